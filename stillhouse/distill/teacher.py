"""The teacher's signals, asked live or read from a memory-mapped cache.

Every candidate of a search sees the same examples, so the teacher runs over them once. The cache
keeps logits and the hidden states, or queries and keys, of the layers that some loss names, ragged
(no padding), as float16 states and float32 logits, of every token where the teacher answers tokens.
Each layer has a file of its own for either, because students of different depths learn from
different layers: what one of them asked for serves the others.

Letters in names: B batch, T tokens, D hidden, C classes, N examples, P tokens of all examples in
a row, W width of queries and of keys, X any width.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from stillhouse.data.batching import collate, plan_ordered
from stillhouse.distill.attention import Attention
from stillhouse.distill.signals import SignalReader, Signals
from stillhouse.files import folder_written_aside
from stillhouse.model.anatomy import label_count
from stillhouse.model.heads import answers_tokens
from stillhouse.model.precision import autocast
from stillhouse.model.ragged import LogitTable, real_tokens, token_places

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel

    from stillhouse.data.batching import Batch
    from stillhouse.data.encoding import EncodedSet
    from stillhouse.model.precision import Precision

logger = logging.getLogger(__name__)


class TeacherSignals(Protocol):
    """Where the training loop gets the teacher's signals of a batch."""

    def __call__(self, batch: Batch) -> Signals:
        """Returns detached signals of the batch's examples, padded like the batch."""
        ...


class LiveTeacher:
    """Asks the teacher itself, for data that is seen only once or too large to keep."""

    def __init__(
        self,
        teacher: PreTrainedModel,
        layers: frozenset[int],
        precision: Precision,
        *,
        attention: frozenset[int] = frozenset(),
    ) -> None:
        """Keeps what is read: the teacher itself is hooked while it is asked, and no longer."""
        teacher.eval()
        self._teacher = teacher
        self._layers, self._attention = layers, attention
        self._precision = precision

    def __call__(self, batch: Batch) -> Signals:  # noqa: D102
        with (
            torch.no_grad(),
            autocast(self._teacher.device, self._precision),
            SignalReader(self._teacher, self._layers, attention=self._attention) as reader,
        ):
            return reader(batch)


class CachedTeacher:
    """Reads signals that were computed once."""

    def __init__(
        self,
        *,
        logits: NDArray[np.float32],
        hidden_PD: Mapping[int, NDArray[np.float16]],
        offsets: NDArray[np.int64],
        per_token: bool = False,
        attention_PX: Mapping[int, NDArray[np.float16]] | None = None,
        heads: int = 0,
    ) -> None:
        """Keeps the arrays, memory-mapped or not.

        Args:
            logits: `[N, C]` logits of all examples, in the encoded set's order, or `[P, C]` of all
                tokens in a row.
            hidden_PD: Hidden states of all tokens in a row, by teacher layer.
            offsets: `[N+1]` first token of each example on axis P.
            per_token: Whether the logits are of tokens.
            attention_PX: Queries and keys of all tokens side by side, X = 2 W, by teacher layer.
            heads: Of the teacher's attention.
        """
        self._attention_PX, self._heads = attention_PX or {}, heads
        self._logits = logits
        self._hidden_PD = hidden_PD
        self._offsets = offsets
        self._per_token = per_token

    def __call__(self, batch: Batch) -> Signals:  # noqa: D102
        indices = batch.indices.cpu().numpy()
        device = batch.input_ids.device
        places = token_places(self._offsets, indices)
        real_BT = real_tokens(self._offsets, indices, batch.input_ids.shape[1])

        def padded(rows_PX: NDArray[Any]) -> Tensor:
            padded_BTX = np.zeros((*real_BT.shape, rows_PX.shape[1]), dtype=rows_PX.dtype)
            padded_BTX[real_BT] = rows_PX[places]
            return torch.from_numpy(padded_BTX).to(device)

        if self._per_token:
            logits = padded(self._logits)
        else:
            logits = torch.from_numpy(self._logits[indices]).to(device)
        return Signals(
            logits=logits,
            hidden_BTD={layer: padded(states_PD) for layer, states_PD in self._hidden_PD.items()},
            attention={
                layer: self._attention(padded(both_PX))
                for layer, both_PX in self._attention_PX.items()
            },
        )

    def _attention(self, both_BTX: Tensor) -> Attention:
        query_BTW, key_BTW = both_BTX.chunk(2, dim=-1)
        return Attention(query_BTW=query_BTW, key_BTW=key_BTW, heads=self._heads)


def cache_bytes(
    encoded: EncodedSet,
    layers: frozenset[int],
    hidden: int,
    labels: int,
    *,
    per_token: bool = False,
    attention: int = 0,
) -> int:
    """Tells how large the cache of a set would be, in bytes.

    Args:
        encoded: N examples.
        layers: Layers whose hidden states are kept.
        hidden: Width of these states, and of queries and keys.
        labels: Outputs of the teacher.
        per_token: Whether it has them for every token.
        attention: Number of layers whose queries and keys are kept.
    """
    tokens = int(encoded.offsets[-1])
    rows = tokens if per_token else len(encoded)
    return tokens * (len(layers) + 2 * attention) * hidden * 2 + rows * labels * 4


def cache_key(teacher_hash: str, encoded: EncodedSet, precision: Precision) -> str:
    """Names a cache after all that its content depends on."""
    parts = (teacher_hash, encoded.fingerprint(), precision)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


def cached_teacher(  # noqa: PLR0913  what a cache depends on, and where it lies
    teacher: PreTrainedModel,
    encoded: EncodedSet,
    layers: frozenset[int],
    *,
    directory: Path,
    teacher_hash: str,
    precision: Precision,
    limit_gb: float,
    on_progress: Callable[[float], None] | None = None,
    attention: frozenset[int] = frozenset(),
) -> TeacherSignals:
    """Returns the teacher's signals for a set, computed now or read from an earlier cache.

    Args:
        teacher: The frozen model.
        encoded: Examples whose `Batch.indices` later index the cache.
        layers: Teacher layers (0-based, or `EMBEDDINGS`) whose hidden states some loss reads.
        directory: Folder of all caches; each lies in its own folder below.
        teacher_hash: Identifies the teacher's weights.
        precision: Arithmetic of the teacher's forward pass.
        limit_gb: Largest cache, in 10⁹ bytes; a larger one, or one that would take more than
            nine tenths of the free disk, is not written and the teacher is asked live.
        on_progress: Told the finished fraction, 0..1.
        attention: Teacher layers whose queries and keys some loss reads.
    """
    files = _CacheFiles(directory / cache_key(teacher_hash, encoded, precision))
    wanted = _Kept(hidden=layers, attention=attention)
    missing = wanted.without(files.kept())
    if missing or not files.logits.exists():
        directory.mkdir(parents=True, exist_ok=True)
        if not _has_room(teacher, encoded, files, wanted, limit_gb):
            return LiveTeacher(teacher, layers, precision, attention=attention)
        _fill_cache(teacher, encoded, missing, files, precision, on_progress)
    return CachedTeacher(
        logits=np.load(files.logits, mmap_mode="r"),
        hidden_PD={layer: np.load(files.hidden(layer), mmap_mode="r") for layer in sorted(layers)},
        offsets=encoded.offsets,
        per_token=answers_tokens(teacher),
        attention_PX={
            layer: np.load(files.attention(layer), mmap_mode="r") for layer in sorted(attention)
        },
        heads=teacher.config.num_attention_heads,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """Layers of which a cache holds something."""

    hidden: frozenset[int]
    attention: frozenset[int]

    def without(self, other: _Kept) -> _Kept:
        return _Kept(hidden=self.hidden - other.hidden, attention=self.attention - other.attention)

    def joined(self, other: _Kept) -> _Kept:
        return _Kept(hidden=self.hidden | other.hidden, attention=self.attention | other.attention)

    def __bool__(self) -> bool:
        return bool(self.hidden or self.attention)


def _has_room(
    teacher: PreTrainedModel,
    encoded: EncodedSet,
    files: _CacheFiles,
    wanted: _Kept,
    limit_gb: float,
) -> bool:
    """Tells whether what is wanted may be kept, and says so where it may not."""
    config, known = teacher.config, files.kept()
    every = known.joined(wanted)
    size = cache_bytes(
        encoded,
        every.hidden,
        config.hidden_size,
        label_count(config),
        per_token=answers_tokens(teacher),
        attention=len(every.attention),
    )
    before = cache_bytes(
        encoded, known.hidden, config.hidden_size, 0, attention=len(known.attention)
    )
    free = shutil.disk_usage(files.folder.parent).free
    if size <= limit_gb * 1e9 and size - before <= 0.9 * free:
        return True
    logger.warning(
        "teacher cache of %.1f GB is over its limit (%.1f GB; %.1f GB free): asking the "
        "teacher at every step instead",
        size / 1e9,
        limit_gb,
        free / 1e9,
    )
    return False


@dataclass(frozen=True, slots=True)
class _CacheFiles:
    """Files of one cache; each is whole or absent."""

    folder: Path

    @property
    def logits(self) -> Path:
        return self.folder / "logits.npy"

    def hidden(self, layer: int) -> Path:
        return self.folder / f"hidden-{layer:03d}.npy"

    def attention(self, layer: int) -> Path:
        return self.folder / f"attention-{layer:03d}.npy"

    def kept(self) -> _Kept:
        """Layers that are there."""
        return _Kept(hidden=self._layers("hidden"), attention=self._layers("attention"))

    def _layers(self, part: str) -> frozenset[int]:
        names = (path.stem for path in self.folder.glob(f"{part}-*.npy"))
        return frozenset(int(name.removeprefix(f"{part}-")) for name in names)


@torch.no_grad()
def _fill_cache(
    teacher: PreTrainedModel,
    encoded: EncodedSet,
    missing: _Kept,
    files: _CacheFiles,
    precision: Precision,
    on_progress: Callable[[float], None] | None,
) -> None:
    """Runs the teacher once for the logits and what is missing; files appear when all is done."""
    outputs = label_count(teacher.config)
    table = LogitTable(encoded, outputs=outputs, per_token=answers_tokens(teacher))
    teacher.eval()
    done = 0
    folder = files.folder
    with (
        folder_written_aside(folder.with_name(f"{folder.name}-part")) as aside,
        SignalReader(teacher, missing.hidden, attention=missing.attention) as reader,
    ):
        written = _CacheFiles(aside)
        tokens, attended = int(encoded.offsets[-1]), 2 * _attention_width(teacher)
        hidden_PD = {
            layer: _new_array(written.hidden(layer), tokens, teacher.config.hidden_size)
            for layer in sorted(missing.hidden)
        }
        attention_PX = {
            layer: _new_array(written.attention(layer), tokens, attended)
            for layer in sorted(missing.attention)
        }
        for indices in plan_ordered(encoded.lengths, batch_size=64):
            batch = collate(encoded, indices).to(teacher.device)
            with autocast(teacher.device, precision):
                signals = reader(batch)
            table.fill(indices, signals.logits.float().cpu().numpy())
            places = token_places(encoded.offsets, indices)
            _write_states(hidden_PD, places, batch, signals.hidden_BTD)
            both = {
                layer: torch.cat([one.query_BTW, one.key_BTW], dim=-1)
                for layer, one in signals.attention.items()
            }
            _write_states(attention_PX, places, batch, both)
            done += len(indices)
            if on_progress is not None:
                on_progress(done / len(encoded))
        for states in (*hidden_PD.values(), *attention_PX.values()):
            states.flush()
        np.save(written.logits, table.logits)
    part = folder.with_name(f"{folder.name}-part")
    folder.mkdir(parents=True, exist_ok=True)
    for path in part.iterdir():
        path.replace(folder / path.name)
    part.rmdir()


def _attention_width(model: PreTrainedModel) -> int:
    """Width of queries, which is that of keys: all heads side by side."""
    config = model.config
    size: int | None = getattr(config, "head_size", None)
    heads: int = config.num_attention_heads
    return config.hidden_size if size is None else heads * size


def _new_array(path: Path, rows: int, width: int) -> np.memmap[Any, np.dtype[np.float16]]:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(rows, width))


def _write_states(
    states_PX: Mapping[int, NDArray[np.float16]],
    places: NDArray[np.int64],
    batch: Batch,
    found_BTX: Mapping[int, Tensor],
) -> None:
    """Writes the states of a batch's real tokens, whose places on axis P are given."""
    real_BT = batch.attention_mask.bool()
    limit = torch.finfo(torch.float16).max
    for layer, rows_PX in states_PX.items():
        kept = found_BTX[layer][real_BT].float().clamp(-limit, limit)
        rows_PX[places] = kept.to(torch.float16).cpu().numpy()
