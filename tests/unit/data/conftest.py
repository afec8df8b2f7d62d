"""Small tables, tiny tokenisers, and the real data sets where there are any."""

import json
import os
from pathlib import Path

import datasets
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import BertTokenizer, RobertaTokenizer, XLMRobertaTokenizer

from stillhouse.data.embedded import train_tokenizer

REPOSITORY = Path(__file__).resolve().parents[3]


TEXTS = [
    "The cat sat on the mat in the old town house.",
    "A dog and a cat were looking at the birds in the garden!",
    "Unbelievable things happened to Mary Ann Smith, who lives in New York.",
    "Who was looking at the cats? When did the dogs sit down?",
]


@pytest.fixture
def data_folder():
    """Gives a folder of real data sets by name; skips the test where there is none."""

    def find(name: str) -> Path:
        named = os.environ.get("STILLHOUSE_DATA")
        candidates = [Path(named)] if named else []
        candidates.append(REPOSITORY.parent / "shared" / "data")
        for root in candidates:
            if (root / name).exists():
                return root / name
        pytest.skip(f"no {name} in $STILLHOUSE_DATA or {candidates[-1]}")

    return find


@pytest.fixture
def glue_folder(data_folder) -> Path:
    """The folder of original GLUE folders; skips the test where there is none."""
    return data_folder("glue")


@pytest.fixture
def bert_tokenizer(data_folder) -> BertTokenizer:
    """BERT's own; skips the test where its vocabulary is not."""
    return BertTokenizer(vocab=str(data_folder("vocab") / "vocab.txt"))


@pytest.fixture(scope="session")
def word_pieces() -> BertTokenizer:
    """A tokeniser of word pieces like BERT's, which knows the characters of `TEXTS`."""
    return train_tokenizer(TEXTS * 3, vocab_size=120)


@pytest.fixture(scope="session")
def byte_pieces() -> RobertaTokenizer:
    """A tokeniser of bytes like RoBERTa's."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(
        vocab_size=330,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return RobertaTokenizer(vocab=model["vocab"], merges=list(map(tuple, model["merges"])))


@pytest.fixture(scope="session")
def unigram_pieces() -> XLMRobertaTokenizer:
    """A tokeniser like XLM-RoBERTa's, which marks the spaces before words."""
    tokenizer = Tokenizer(Unigram())
    tokenizer.pre_tokenizer = Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = UnigramTrainer(
        vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    return XLMRobertaTokenizer(vocab=list(map(tuple, vocabulary)))


@pytest.fixture(params=["word_pieces", "byte_pieces", "unigram_pieces"])
def any_pieces(request):
    """Each of the three tokenisers in turn."""
    return request.getfixturevalue(request.param)


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
