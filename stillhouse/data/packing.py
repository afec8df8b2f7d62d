"""Sequences of one length, packed from tokenised documents and read from a memory map.

Every sequence begins with the tokeniser's start token and ends with its separator, as `[CLS] ...
[SEP]` of BERT or `<s> ... </s>` of RoBERTa. Between them stand the tokens of one document as far as
they reach; what does not fit goes on in the next sequence. Where a document ends early, a separator
and the next document follow. If fewer than 8 tokens of a longer document would fit, they only fill
the sequence up, and that document begins anew in the next one. So all sequences are full, and none
but the last one of a corpus would need padding: that one is dropped, unless it is the only one.

Shapes: B sequences of a batch, N of a store, T tokens, S stretches of sequences.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

FEWEST_TOKENS_OF_NEXT = 8
"""A document begins in the sequence of the one before if at least so many of its tokens fit."""

ROWS_A_CHUNK = 8_192
HELD_OUT_BLOCK = 50
FEWEST_HELD_OUT_BLOCKS = 8
COLUMN = "input_ids"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTokens:
    """The token numbers around the texts of a sequence.

    Attributes:
        start: Begins every sequence.
        separator: Parts documents and ends every sequence.
        pad: Fills the rest.
    """

    start: int
    separator: int
    pad: int


class TokenPiece(NamedTuple):
    """A document's tokens, or some of them.

    Attributes:
        ids: Token numbers, at least one.
        begins: Whether a document begins here; else the one before goes on.
    """

    ids: NDArray[np.int32]
    begins: bool


def frame_tokens(tokenizer: PreTrainedTokenizerBase) -> FrameTokens:
    """Finds the special tokens that a tokeniser puts around a text.

    Raises:
        DataError: If it has neither a classification nor a start token, or neither a separator nor
            an end token.
    """
    start = _first_given(tokenizer.cls_token_id, tokenizer.bos_token_id)
    separator = _first_given(tokenizer.sep_token_id, tokenizer.eos_token_id)
    if start is None or separator is None:
        raise DataError(
            f"sequences of a corpus are framed by special tokens, but {type(tokenizer).__name__} "
            f"has no {'cls or bos' if start is None else 'sep or eos'} token; take the tokeniser "
            "of an encoder"
        )
    return FrameTokens(start=start, separator=separator, pad=tokenizer.pad_token_id or 0)


class Packer:
    """Cuts and joins documents into sequences of one length, as told above.

    Args:
        frame: Special tokens.
        length: Tokens of a sequence, special ones included; at least 3.

    Attributes:
        document_count: Documents so far.
        token_count: Tokens so far, without special ones.
        sequence_count: Sequences so far.
        last_length: Tokens of the latest sequence without its padding.
    """

    def __init__(self, frame: FrameTokens, *, length: int) -> None:
        """Begins the first sequence."""
        self.document_count = 0
        self.token_count = 0
        self.sequence_count = 0
        self.last_length = length
        self._frame = frame
        self._length = length
        self._begin()

    def pack(self, pieces: Iterable[TokenPiece]) -> Iterator[NDArray[np.int32]]:
        """Packs a whole corpus; to be called once.

        Args:
            pieces: The documents, one after the other.

        Yields:
            Sequences, `[T]` each.
        """
        for ids, begins in pieces:
            self.document_count += begins
            self.token_count += len(ids)
            if begins and self._used > 1:
                yield from self._part(ids)
            yield from self._fill(ids)
        if self._used > 1 and not self.sequence_count:
            yield self._end()

    def _part(self, ids: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
        """Puts a separator before a document, or fills the sequence up where little would fit."""
        self._append(np.array([self._frame.separator], np.int32))
        if self._free < FEWEST_TOKENS_OF_NEXT and len(ids) > self._free:
            self._append(ids[: self._free])
            yield self._end()

    def _fill(self, ids: NDArray[np.int32]) -> Iterator[NDArray[np.int32]]:
        while len(ids):
            taken, ids = ids[: self._free], ids[self._free :]
            self._append(taken)
            if not self._free:
                yield self._end()

    @property
    def _free(self) -> int:
        return self._length - 1 - self._used

    def _append(self, ids: NDArray[np.int32]) -> None:
        self._row_T[self._used : self._used + len(ids)] = ids
        self._used += len(ids)

    def _begin(self) -> None:
        self._row_T = np.full(self._length, self._frame.pad, np.int32)
        self._row_T[0] = self._frame.start
        self._used = 1

    def _end(self) -> NDArray[np.int32]:
        row_T = self._row_T
        row_T[self._used] = self._frame.separator
        self.last_length = self._used + 1
        self.sequence_count += 1
        self._begin()
        return row_T


def write_sequences(
    path: Path, sequences: Iterable[NDArray[np.int32]], *, length: int, largest_id: int
) -> str:
    """Writes sequences into an Arrow file, a chunk at a time; the same ones give the same bytes.

    Args:
        path: File to write.
        sequences: `[T]` token numbers each.
        length: Tokens of a sequence.
        largest_id: Largest token number; decides between 2 and 4 bytes a token.

    Returns:
        The SHA-256, in hexadecimal, of all token numbers as 4 bytes each.
    """
    small = largest_id <= np.iinfo(np.uint16).max
    kind = pa.list_(pa.uint16() if small else pa.int32(), length)
    schema = pa.schema([pa.field(COLUMN, kind, nullable=False)])
    digest = hashlib.sha256()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for ids_NT in _chunks(sequences):
            digest.update(ids_NT.astype("<i4").data)
            values = pa.array(ids_NT.astype(np.uint16 if small else np.int32).reshape(-1))
            rows = pa.FixedSizeListArray.from_arrays(values, type=kind)
            writer.write_batch(pa.record_batch([rows], schema=schema))
    return digest.hexdigest()


def open_sequences(path: Path) -> tuple[NDArray[Any], ...]:
    """Opens a file of `write_sequences`; its pages are read when they are needed.

    Returns:
        `[8192, T]` token numbers; the last chunk may have fewer.

    Raises:
        DataError: If the file is missing or damaged.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} is missing or damaged ({error}); delete its folder to prepare the corpus anew"
        ) from error
    return tuple(
        batch.column(0).flatten().to_numpy(zero_copy_only=True).reshape(batch.num_rows, -1)
        for batch in batches
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PackedSet:
    """Some sequences of a store, all of one length.

    Attributes:
        chunks: All sequences of the store, see `open_sequences`.
        stretches: `[S, 2]` int64; the set is the rows from the first number to below the second,
            for each pair.
        length: Tokens of a sequence.
        used_length: Tokens without padding; below `length` in a store of a single sequence alone.
    """

    chunks: tuple[NDArray[Any], ...]
    stretches: NDArray[np.int64]
    length: int
    used_length: int
    _ends: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Counts the sequences up to the end of every stretch."""
        object.__setattr__(self, "_ends", np.cumsum(self.stretches[:, 1] - self.stretches[:, 0]))

    def __len__(self) -> int:
        """The number of sequences."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def part(self, start: int, stop: int) -> PackedSet:
        """Returns the sequences from position `start` to below `stop` as a set of their own."""
        counts = self.stretches[:, 1] - self.stretches[:, 0]
        before = self._ends - counts  # sequences ahead of each stretch
        first = self.stretches[:, 0] + np.clip(start - before, 0, counts)
        last = self.stretches[:, 0] + np.clip(stop - before, 0, counts)
        stretches = np.stack([first, last], axis=1)
        return replace(self, stretches=stretches[first < last])

    def batch(self, indices: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int32]:
        """Reads sequences.

        Args:
            indices: B positions, 0 to below the number of sequences.

        Returns:
            `[B, T]` token numbers.

        Raises:
            DataError: If there is no such position.
        """
        chunk_B, place_B = np.divmod(self._rows(indices), ROWS_A_CHUNK)
        ids_BT = np.empty((len(chunk_B), self.length), np.int32)
        for chunk in np.unique(chunk_B):
            here_B = chunk_B == chunk
            ids_BT[here_B] = self.chunks[chunk][place_B[here_B]]
        return ids_BT

    def attention_mask(self, indices: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int32]:
        """Tells tokens from padding.

        Args:
            indices: B positions.

        Returns:
            `[B, T]` 1 for tokens, 0 for padding.
        """
        mask_BT = np.ones((len(indices), self.length), np.int32)
        mask_BT[:, self.used_length :] = 0
        return mask_BT

    def plan(self, *, batch_size: int, seed: int, step: int) -> NDArray[np.int64]:
        """Tells which sequences a step of training reads; a function of its arguments alone.

        The steps go through one shuffled order after the other: each holds every sequence once,
        and a batch may hold the end of one and the beginning of the next. An order takes 4 bytes a
        sequence; the latest one is kept for the steps to come.

        Args:
            batch_size: Sequences of a step, of all workers together.
            seed: Decides the orders.
            step: Number of the step, from 0.

        Returns:
            `[B]` positions.

        Raises:
            DataError: If the set is empty, or the batch size or the step is impossible.
        """
        if batch_size < 1 or step < 0 or not len(self):
            raise DataError(
                f"a batch is at least one of the sequences and steps count from 0, but batch_size "
                f"is {batch_size}, step {step}, and there are {len(self)} sequences"
            )
        epoch_B, place_B = np.divmod(np.arange(batch_size) + step * batch_size, len(self))
        parts = [
            _shuffled(len(self), seed, int(epoch))[place_B[epoch_B == epoch]]
            for epoch in np.unique(epoch_B)
        ]
        return np.concatenate(parts).astype(np.int64)

    def _rows(self, indices: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int64]:
        """Turns positions in the set into rows of the store."""
        chosen_B = np.asarray(indices, np.int64)
        if chosen_B.size and not 0 <= chosen_B.min() <= chosen_B.max() < len(self):
            raise DataError(
                f"there are {len(self)} sequences, numbered from 0, but number "
                f"{chosen_B.min() if chosen_B.min() < 0 else chosen_B.max()} was asked for"
            )
        stretch_B = np.searchsorted(self._ends, chosen_B, side="right")
        rows_B: NDArray[np.int64] = self.stretches[stretch_B, 1] - self._ends[stretch_B] + chosen_B
        return rows_B


def shard(indices: NDArray[np.int64], *, rank: int, world: int) -> NDArray[np.int64]:
    """Cuts one worker's part out of the batch of all workers.

    The parts of all workers, by rank, are the whole batch in its order.

    Args:
        indices: Positions of the whole batch.
        rank: Number of the worker, 0 to `world` - 1.
        world: Number of workers.

    Raises:
        DataError: If there is no such worker, or workers would get unlike numbers of examples: the
            mean of their gradients would then not be that of the whole batch.
    """
    if not 0 <= rank < world:
        raise DataError(f"a worker's rank is from 0 to below their number, but is {rank} / {world}")
    if len(indices) % world:
        raise DataError(
            f"{len(indices)} examples cannot be shared evenly among {world} workers; take a batch "
            f"size that {world} divides"
        )
    share = len(indices) // world
    return indices[rank * share : (rank + 1) * share]


def hold_out_blocks(
    total: int, *, count: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Parts the rows of a store in two, the second part made of blocks of neighbours.

    Blocks keep documents from lying in both parts. They have at most 50 rows, and one lies at a
    random place of each of as many equal parts of the store.

    Args:
        total: Rows of the store.
        count: Rows to hold out, 0 to half of all.
        seed: Decides where the blocks lie.

    Returns:
        The stretches of the kept and of the held-out rows, `[S, 2]` each, see `PackedSet`.
    """
    blocks = max(-(-count // HELD_OUT_BLOCK), min(count, FEWEST_HELD_OUT_BLOCKS))
    places = np.arange(blocks + 1, dtype=np.int64)
    sizes = np.diff(places * count // max(blocks, 1))
    borders = places * total // max(blocks, 1)
    generator = np.random.default_rng(seed)
    starts = generator.integers(borders[:-1], borders[1:] - sizes, endpoint=True)
    held = np.stack([starts, starts + sizes], axis=1)
    kept = np.concatenate([[0], held.reshape(-1), [total]]).reshape(-1, 2)
    return kept[kept[:, 0] < kept[:, 1]], held


@lru_cache(maxsize=1)
def _shuffled(count: int, seed: int, epoch: int) -> NDArray[Any]:
    order = np.arange(count, dtype=np.min_scalar_type(count))
    np.random.default_rng([seed, epoch]).shuffle(order)
    order.flags.writeable = False
    return order


def _chunks(sequences: Iterable[NDArray[np.int32]]) -> Iterator[NDArray[np.int32]]:
    rows: list[NDArray[np.int32]] = []
    for sequence in sequences:
        rows.append(sequence)
        if len(rows) == ROWS_A_CHUNK:
            yield np.stack(rows)
            rows.clear()
    if rows:
        yield np.stack(rows)


def _first_given(*numbers: int | None) -> int | None:
    return next((number for number in numbers if number is not None), None)
