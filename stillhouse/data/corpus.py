"""Plain text to distil on without a task: read as a stream, tokenised once, kept on the disk.

What may be read is told in `corpus_texts.py`, how documents become sequences in `packing.py`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stillhouse.data.corpus_texts import EMBEDDED, Document, read_documents, source_state
from stillhouse.data.hub import HUB_PREFIX, check_hub_name
from stillhouse.data.packing import (
    PackedSet,
    Packer,
    TokenPiece,
    frame_tokens,
    hold_out_blocks,
    open_sequences,
    write_sequences,
)
from stillhouse.data.task import FEWEST_TOKENS
from stillhouse.errors import DataError, SettingsError
from stillhouse.files import folder_written_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from transformers import PreTrainedTokenizerBase

SEQUENCES_PER_HELD_OUT = 10
"""At most one of so many sequences is held out."""
HELD_OUT_SEED = 0
STORE_FORMAT = 1
"""Goes up when the same texts would become other sequences."""
SEQUENCES_FILE = "sequences.arrow"
MANIFEST_FILE = "corpus.json"

PIECE_CHARACTERS = 1 << 16
"""A longer document is tokenised in parts, cut at white space."""
CHARACTERS_AT_ONCE = 1 << 19
PROBE = "Crème  BRÛLÉE,\tnaïve co-op's 3.14 €! 漢字\nunbelievably"
PROBE_WORDS = 1_000
"""Tokenisers that share a vocabulary, but cut text differently, differ on the probe, or on so many
words of the vocabulary in capitals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusSettings:
    """What the user says about the text corpus.

    Attributes:
        name: Path of a `.txt`, `.jsonl` or `.parquet` file, of a folder of them, or a pattern such
            as `texts/*.txt`; `hf:NAME`, `hf:OWNER/NAME` or `hf:./FOLDER` (each perhaps with
            `:CONFIG`) for the split `train` of a dataset of the hub or of a folder; or `embedded`
            for the training texts of the embedded task.
        text: Text column of all but `.txt` files.
        length: Tokens of a sequence, special ones included.
        held_out: Sequences to hold out for the search, at most a tenth of all.
        max_tokens: Tokens to stop after, special ones not counted; `None` takes all.
    """

    name: str = EMBEDDED
    text: str = "text"
    length: int = 128
    held_out: int = 2_000
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        """Refuses impossible values.

        Raises:
            SettingsError: If a value is impossible.
        """
        if self.name.startswith(HUB_PREFIX):
            check_hub_name(self.name, called="corpus.name")
        elif not self.name:
            raise SettingsError(
                "corpus.name is empty; name a text file, a folder, hf:OWNER/NAME or embedded"
            )
        if not self.text:
            raise SettingsError("corpus.text names no column; name the one that holds the texts")
        if self.length < FEWEST_TOKENS:
            raise SettingsError(f"corpus.length is at least {FEWEST_TOKENS}, but is {self.length}")
        if self.held_out < 0:
            raise SettingsError(f"corpus.held_out is not negative, but is {self.held_out}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise SettingsError(f"corpus.max_tokens is at least 1, but is {self.max_tokens}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Corpus:
    """A tokenised corpus, read from a memory map.

    Attributes:
        train: Sequences to learn from.
        held_out: Sequences for the search; empty if none were asked for.
        document_count: Documents of both.
        token_count: Tokens of the texts, without special ones.
        fingerprint: SHA-256, in hexadecimal, of settings, tokeniser and all tokens.
    """

    train: PackedSet
    held_out: PackedSet
    document_count: int
    token_count: int
    fingerprint: str


def prepare_corpus(
    settings: CorpusSettings,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    *,
    on_progress: Callable[[float], None] | None = None,
) -> Corpus:
    """Tokenises a corpus into a folder, or opens what lies there already.

    The folder is whole or absent: an interrupted preparation leaves none. Only one process at a
    time may prepare the same folder. `held_out` may differ from the time when it was prepared.

    Args:
        settings: Which corpus, and how it is cut.
        tokenizer: A tokeniser with classification and separator, or start and end tokens.
        directory: The corpus's own folder.
        on_progress: Told the finished fraction of the preparation, 0..1; of a dataset of the hub
            it is known only if `max_tokens` is given.

    Raises:
        SettingsError: If sequences would be longer than the tokeniser allows.
        DataError: If the corpus is missing, empty, too small or unusable, has changed since it was
            prepared, or if the folder holds something else.
    """
    if settings.length > tokenizer.model_max_length:
        raise SettingsError(
            f"corpus.length is at most the tokeniser's {tokenizer.model_max_length} tokens, but is "
            f"{settings.length}"
        )
    origin = _Origin(
        settings={key: value for key, value in asdict(settings).items() if key != "held_out"},
        tokenizer_sha256=_tokenizer_sha256(tokenizer),
        source=source_state(settings.name),
    )
    if (directory / MANIFEST_FILE).exists():
        manifest = _read_manifest(directory / MANIFEST_FILE)
        _refuse_other_origin(manifest.origin, origin, directory)
    else:
        _refuse_foreign_files(directory)
        with folder_written_aside(directory) as aside:
            manifest = _prepare(settings, tokenizer, origin, aside, on_progress)
    if on_progress is not None:
        on_progress(1.0)
    return _open_corpus(settings, manifest, directory)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Origin:
    """What decides the sequences; `source` is a list of names, sizes and times of change."""

    settings: dict[str, Any]
    tokenizer_sha256: str
    source: list[list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
    """The file that makes a store whole."""

    store_format: int
    origin: _Origin
    sequence_count: int
    last_length: int
    document_count: int
    token_count: int
    tokens_sha256: str


def _prepare(
    settings: CorpusSettings,
    tokenizer: PreTrainedTokenizerBase,
    origin: _Origin,
    folder: Path,
    on_progress: Callable[[float], None] | None,
) -> _Manifest:
    packer = Packer(frame_tokens(tokenizer), length=settings.length)
    batches = _text_batches(read_documents(settings.name, settings.text))
    pieces = _token_pieces(batches, tokenizer, settings.max_tokens, on_progress)
    tokens_sha256 = write_sequences(
        folder / SEQUENCES_FILE,
        packer.pack(pieces),
        length=settings.length,
        largest_id=max(tokenizer.get_vocab().values()),
    )
    manifest = _Manifest(
        store_format=STORE_FORMAT,
        origin=origin,
        sequence_count=packer.sequence_count,
        last_length=packer.last_length,
        document_count=packer.document_count,
        token_count=packer.token_count,
        tokens_sha256=tokens_sha256,
    )
    _held_out_count(settings, manifest)
    text = json.dumps(asdict(manifest), indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")
    return manifest


def _open_corpus(settings: CorpusSettings, manifest: _Manifest, directory: Path) -> Corpus:
    chunks = open_sequences(directory / SEQUENCES_FILE)
    total = sum(map(len, chunks))
    if total != manifest.sequence_count:
        raise DataError(
            f"{directory} holds {total} sequences where {manifest.sequence_count} were written; "
            "delete it to prepare the corpus anew"
        )
    stretches = hold_out_blocks(
        total, count=_held_out_count(settings, manifest), seed=HELD_OUT_SEED
    )
    train, held_out = (
        PackedSet(
            chunks=chunks,
            stretches=part,
            length=settings.length,
            used_length=manifest.last_length,
        )
        for part in stretches
    )
    parts = [asdict(settings), manifest.origin.tokenizer_sha256, manifest.tokens_sha256]
    return Corpus(
        train=train,
        held_out=held_out,
        document_count=manifest.document_count,
        token_count=manifest.token_count,
        fingerprint=hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
    )


def _held_out_count(settings: CorpusSettings, manifest: _Manifest) -> int:
    """Counts the sequences to hold out: as many as asked for, at most a tenth, at least one."""
    tokens, total = manifest.token_count, manifest.sequence_count
    if not tokens:
        raise DataError(f"corpus {settings.name} holds no text; give one that does")
    if not settings.held_out:
        return 0
    if total < 2:  # noqa: PLR2004  one to learn from, one to hold out
        raise DataError(
            f"corpus {settings.name} is too small: its {tokens} tokens fill fewer than two "
            f"sequences of {settings.length}, and at least two are needed to hold one out; give "
            "more text, a smaller corpus.length, or corpus.held_out 0"
        )
    return max(1, min(settings.held_out, total // SEQUENCES_PER_HELD_OUT))


def _read_manifest(path: Path) -> _Manifest:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        origin = _Origin(**values.pop("origin"))
        manifest = _Manifest(origin=origin, **values)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path} is damaged ({error}); delete its folder to prepare the corpus anew"
        ) from error
    if manifest.store_format != STORE_FORMAT:
        raise DataError(
            f"{path} was written by another version (format {manifest.store_format}, now "
            f"{STORE_FORMAT}); delete its folder to prepare the corpus anew"
        )
    return manifest


def _refuse_other_origin(before: _Origin, now: _Origin, directory: Path) -> None:
    unlike = [
        f"corpus.{key} was {before.settings.get(key)!r} and is {value!r}"
        for key, value in now.settings.items()
        if before.settings.get(key) != value
    ]
    if before.tokenizer_sha256 != now.tokenizer_sha256:
        unlike.append("the tokeniser is another one")
    if unlike:
        raise DataError(
            f"{directory} holds another corpus ({'; '.join(unlike)}); name another folder, or "
            "delete this one"
        )
    changed = [entry[0] for entry in before.source if entry not in now.source]
    changed += [entry[0] for entry in now.source if entry not in before.source]
    if changed:
        raise DataError(
            f"the corpus changed since {directory} was prepared from it: {changed[0]} has another "
            "size or time, is new or is gone; put it back, or delete the folder to prepare the "
            "corpus anew"
        )


def _refuse_foreign_files(directory: Path) -> None:
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise DataError(
            f"{directory} exists, but holds no corpus; name a new or an empty folder for it"
        )


def _tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    vocabulary = sorted(tokenizer.get_vocab().items())
    words = [word for word, _ in vocabulary[:: -(-len(vocabulary) // PROBE_WORDS)]]
    probes = _tokenise([PROBE, " ".join(words), " ".join(words).upper()], tokenizer)
    parts = [vocabulary, asdict(frame_tokens(tokenizer)), probes]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class _TextBatch(NamedTuple):
    """Texts to tokenise at once, and whether a document begins with each."""

    texts: list[str]
    begins: list[bool]
    done_fraction: float


def _token_pieces(
    batches: Iterable[_TextBatch],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int | None,
    on_progress: Callable[[float], None] | None,
) -> Iterator[TokenPiece]:
    count, begins = 0, False
    for batch in batches:
        for row, begins_here in zip(_tokenise(batch.texts, tokenizer), batch.begins, strict=True):
            ids = np.array(row if max_tokens is None else row[: max_tokens - count], np.int32)
            begins = begins or begins_here
            if len(ids):
                yield TokenPiece(ids, begins)
                begins = False
            count += len(ids)
            if count == max_tokens:
                return
        if on_progress is not None:
            on_progress(max(batch.done_fraction, 0 if max_tokens is None else count / max_tokens))


def _tokenise(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    encoding = tokenizer(
        texts,
        add_special_tokens=False,
        padding=False,
        truncation=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # no warning of texts that are longer than the model reads
    )
    rows: list[list[int]] = encoding["input_ids"]
    return rows


def _text_batches(documents: Iterable[Document]) -> Iterator[_TextBatch]:
    texts: list[str] = []
    begins: list[bool] = []
    characters, done_fraction = 0, 0.0
    for parts, done_fraction in documents:
        for number, text in enumerate(_cut_text(parts)):
            texts.append(text)
            begins.append(number == 0)
            characters += len(text)
            if characters >= CHARACTERS_AT_ONCE:
                yield _TextBatch(texts, begins, done_fraction)
                texts, begins, characters = [], [], 0
    if texts:
        yield _TextBatch(texts, begins, done_fraction)


def _cut_text(parts: Iterable[str]) -> Iterator[str]:
    """Joins a document's parts, and cuts it at white space where it is long."""
    held = ""
    for part in parts:
        held += part
        start = 0
        while len(held) - start > PIECE_CHARACTERS:
            limit = start + PIECE_CHARACTERS
            gap = max(held.rfind(" ", start + 1, limit), held.rfind("\n", start + 1, limit))
            end = gap if gap > 0 else limit
            yield held[start:end]
            start = end
        held = held[start:]
    held = held.rstrip()
    if held:
        yield held
