"""Small tables, a tiny tokeniser, and the real GLUE folders where there are any."""

import os
from pathlib import Path

import datasets
import pytest
from transformers import BertTokenizer

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def glue_folder() -> Path:
    """The folder of original GLUE folders; skips the test where there is none."""
    named = os.environ.get("STILLHOUSE_DATA")
    candidates = [Path(named)] if named else []
    candidates.append(REPOSITORY.parent / "shared" / "data")
    for root in candidates:
        if (root / "glue").is_dir():
            return root / "glue"
    pytest.skip(f"no GLUE folders in $STILLHOUSE_DATA/glue or {candidates[-1]}/glue")


@pytest.fixture
def tokenizer() -> BertTokenizer:
    """A tokeniser of whole words: a=5, b=6, c=7, d=8."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d"]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


@pytest.fixture
def write(tmp_path):
    """Writes a text file and gives its path."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        return path

    return write_file


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the hub and notes what was asked for."""
    asked = []

    def serve(**splits):
        def load_dataset(*arguments, **options):
            asked.append((arguments, options))
            return {
                name: datasets.Dataset.from_list(rows).to_iterable_dataset()
                for name, rows in splits.items()
            }

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return serve
