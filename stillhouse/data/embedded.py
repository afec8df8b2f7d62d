"""A task that every Python brings along: which module of the standard library says this?

Its texts are the docstrings of the standard library's modules, classes and functions, read from
the sources without running them. The same Python version gives the same examples.
"""

from __future__ import annotations

import ast
import logging
import sysconfig
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer
from transformers import BertTokenizer

from stillhouse.data.examples import Examples, Source
from stillhouse.data.splits import hold_out
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MODULES = 20
MOST_TEXTS_A_MODULE = 500
FEWEST_WORDS = 6
MOST_WORDS = 60
DEV_FRACTION = 0.15
MODEL_MAX_LENGTH = 512
SEED = 0
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "dist-packages", "idlelib", "lib2to3", "site-packages", "test", "tests"}
    | {"turtledemo"}
)
"""Foreign packages, tests, and what distributions of one Python version may leave out."""

_logger = logging.getLogger(__name__)


def load_embedded() -> Source:
    """Loads the embedded task: docstrings with the name of their top-level module.

    Raises:
        DataError: If the standard library's sources are not installed.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    names, examples = collect_docstrings(folder)
    dataset = examples.to_dataset(names)
    train, dev = hold_out(
        dataset, count=round(DEV_FRACTION * len(dataset)), stratified=True, seed=SEED
    )
    return Source(
        label_names=names,
        metrics=("accuracy", "f1_macro"),
        train=train,
        dev=dev,
        text_columns=("text",),
    )


def collect_docstrings(folder: Path) -> tuple[tuple[str, ...], Examples]:
    """Collects the labelled docstrings of the modules with the most of them.

    Args:
        folder: A folder of modules and packages in source form.

    Returns:
        The sorted names of at most 20 modules, and distinct texts of 6 to 60 words, at most 500 a
        module, each labelled with its module's place among the names. A text that occurs in
        two modules belongs to neither.

    Raises:
        DataError: If fewer than two modules have docstrings.
    """
    modules_of: dict[str, set[str]] = {}
    for module, text in _docstrings(folder):
        modules_of.setdefault(text, set()).add(module)
    module_of = {text: min(modules) for text, modules in modules_of.items() if len(modules) == 1}
    counts = Counter(module_of.values())
    ranked = sorted(counts, key=lambda module: (-counts[module], module))
    names = tuple(sorted(ranked[:MODULES]))
    if len(names) < 2:  # noqa: PLR2004
        raise DataError(
            f"the embedded task needs the sources of the standard library, but {folder} has "
            f"docstrings of {len(names)} modules; name a table or a GLUE task instead"
        )
    texts, labels = _capped(module_of, names)
    return names, Examples(text_a=texts, labels=labels)


def train_tokenizer(texts: Iterable[str], vocab_size: int = 4_000) -> BertTokenizer:
    """Trains an uncased WordPiece tokeniser like BERT's; the same texts give the same vocabulary.

    Args:
        texts: Texts to learn the word pieces from.
        vocab_size: Most entries of the vocabulary, special tokens included; single characters
            are kept even beyond it.
    """
    texts = list(texts)
    # The trainer numbers the inner characters of words ("##e") in the random order of a hash map,
    # and breaks ties between equally frequent merges by these numbers. Reserving them sorted makes
    # its result reproducible.
    inner = (piece for piece in _train_vocabulary(texts, 1, SPECIAL_TOKENS) if piece[:2] == "##")
    reserved = (*SPECIAL_TOKENS, *sorted(inner))
    vocabulary = _train_vocabulary(texts, vocab_size, reserved)
    return BertTokenizer(vocab=vocabulary, model_max_length=MODEL_MAX_LENGTH)


def _train_vocabulary(
    texts: list[str], vocab_size: int, reserved: tuple[str, ...]
) -> dict[str, int]:
    """Learns word pieces; the reserved ones come first, in their order."""
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    trainer = WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(reserved), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary


def _capped(
    module_of: Mapping[str, str], names: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Draws at most 500 texts of every module and orders all texts by chance, with a fixed seed."""
    generator = np.random.default_rng(SEED)
    texts = sorted(text for text, module in module_of.items() if module in names)
    taken: Counter[str] = Counter()
    chosen = []
    for index in generator.permutation(len(texts)):
        module = module_of[texts[index]]
        taken[module] += 1
        if taken[module] <= MOST_TEXTS_A_MODULE:
            chosen.append(texts[index])
    return tuple(chosen), tuple(names.index(module_of[text]) for text in chosen)


def _docstrings(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields (top-level module, normalised docstring) of every source file below the folder."""
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder)
        if SKIPPED_FOLDERS.intersection(relative.parts):
            continue
        module = relative.parts[0].removesuffix(".py")
        for node in ast.walk(_parse(path)):
            if not isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                continue
            words = (ast.get_docstring(node, clean=False) or "").split()
            if len(words) >= FEWEST_WORDS:
                yield module, " ".join(words[:MOST_WORDS])


def _parse(path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            # Old sources hold escapes that newer Pythons warn of while parsing.
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        _logger.debug("left %s out: %s", path, error)
        return ast.Module(body=[], type_ignores=[])
