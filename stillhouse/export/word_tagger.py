"""Folders of word taggers: weights in safetensors beside words, characters, tags and sizes in JSON.

Letters in names: W words of all sentences in a row, C tags of the task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stillhouse.data.bioes import TagCode
from stillhouse.data.lexicon import Lexicon
from stillhouse.data.word_batches import encode_words
from stillhouse.errors import DataError
from stillhouse.export.checkpoint import METRICS_FILE
from stillhouse.files import folder_written_aside
from stillhouse.model.word_tagger import TaggerSizes, WordTagger, word_logits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stillhouse.data.word_batches import WordSet

TAGGER_FILE = "word_tagger.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceTagger:
    """A word tagger with all that turns sentences into tags.

    Attributes:
        network: The tagger.
        sizes: Its widths.
        lexicon: The words and characters that it knows.
        code: What its tags are called.
    """

    network: WordTagger
    sizes: TaggerSizes
    lexicon: Lexicon
    code: TagCode

    def tag(self, sentences: Sequence[Sequence[str]]) -> list[list[str]]:
        """Gives every word a tag, by its name in the task; empty sentences get none.

        Args:
            sentences: Words, parted as those of the task were.
        """
        filled = [place for place, words in enumerate(sentences) if len(words)]
        tags: list[list[str]] = [[] for _ in sentences]
        if not filled:
            return tags
        encoded = encode_words([sentences[place] for place in filled], self.lexicon)
        numbers_W = self.numbers(encoded)
        for place, (start, end) in zip(filled, pairwise(encoded.offsets), strict=True):
            tags[place] = [self.code.task_names[one] for one in numbers_W[start:end]]
        return tags

    def numbers(self, encoded: WordSet) -> NDArray[np.int64]:
        """Gives every word the number of its tag in the task, `[W]`."""
        own_W = word_logits(self.network, encoded).argmax(axis=1)
        rows = [self.code.decode(own_W[start:end]) for start, end in pairwise(encoded.offsets)]
        return np.concatenate(rows).astype(np.int64)

    def votes(self, encoded: WordSet) -> NDArray[np.float32]:
        """Gives `[W, C]`, 1 at the tag of every word, as metrics read logits."""
        return np.eye(len(self.code.task_names), dtype=np.float32)[self.numbers(encoded)]


def save_word_tagger(
    folder: Path,
    tagger: SentenceTagger,
    *,
    metrics: Mapping[str, Any],
    card: str,
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Writes a tagger, its measures and its card as one folder, whole or not at all.

    Args:
        folder: Where the tagger ends.
        tagger: Network, words and tags.
        metrics: Content of `metrics.json`.
        card: Content of `README.md`.
        files: Content of further files, by name.
    """
    code, lexicon = tagger.code, tagger.lexicon
    facts = {
        "sizes": asdict(tagger.sizes),
        "tags": list(code.task_names),
        "scheme": code.scheme,
        "words": list(lexicon.words),
        "characters": list(lexicon.characters),
    }
    weights = {name: one.detach().cpu() for name, one in tagger.network.state_dict().items()}
    with folder_written_aside(folder) as aside:
        save_file({name: one.contiguous() for name, one in weights.items()}, aside / WEIGHTS_FILE)
        (aside / TAGGER_FILE).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
        (aside / "README.md").write_text(card, encoding="utf-8")
        for name, content in files.items():
            (aside / name).write_bytes(content)
        text = json.dumps(metrics, indent=2, ensure_ascii=False)
        (aside / METRICS_FILE).write_text(text + "\n", encoding="utf-8")


def load_word_tagger(folder: str | Path) -> SentenceTagger:
    """Loads a word tagger that `stillhouse cross-view` has written.

    Args:
        folder: Its folder, `RUN/model`.

    Raises:
        DataError: If there is none, or its files are damaged.
    """
    path = Path(folder).expanduser()
    if not is_word_tagger(path):
        raise DataError(
            f"{path} holds no word tagger ({TAGGER_FILE}): give RUN/model of `stillhouse "
            "cross-view`"
        )
    try:
        facts = json.loads((path / TAGGER_FILE).read_text(encoding="utf-8"))
        sizes = TaggerSizes(**{**facts["sizes"], "windows": tuple(facts["sizes"]["windows"])})
        lexicon = Lexicon(words=tuple(facts["words"]), characters=tuple(facts["characters"]))
        code = TagCode(task_names=tuple(facts["tags"]), scheme=facts["scheme"])
        network = WordTagger(
            sizes,
            words=lexicon.word_count,
            characters=lexicon.character_count,
            tags=len(code.names),
        )
        network.load_state_dict(load_file(path / WEIGHTS_FILE))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"the word tagger in {path} is damaged ({str(error).splitlines()[0]}): write it again "
            "with `stillhouse cross-view`, in another run directory"
        ) from error
    return SentenceTagger(network=network.eval(), sizes=sizes, lexicon=lexicon, code=code)


def is_word_tagger(folder: Path) -> bool:
    """Tells whether a folder holds a word tagger."""
    return (folder / TAGGER_FILE).exists()


def refuse_word_tagger(name: str | Path) -> None:
    """Refuses a word tagger where a transformer is wanted.

    Raises:
        DataError: Telling what it is.
    """
    if is_word_tagger(Path(name).expanduser()):
        raise DataError(
            f"{name} holds a BiLSTM tagger of `stillhouse cross-view`, and no transformer: its "
            f"scores are in {name}/{METRICS_FILE}, and stillhouse.load_word_tagger('{name}') tags "
            "sentences with it"
        )
