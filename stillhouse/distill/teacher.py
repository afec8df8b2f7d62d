"""The teacher's signals, asked live or read from a memory-mapped cache.

Every candidate of a search sees the same examples, so the teacher runs over them once. The cache
keeps logits and the hidden states of the layers that some loss names, ragged (no padding), as
float16 states and float32 logits. Each layer has a file of its own, because students of different
depths learn from different layers: what one of them asked for serves the others.

Letters in names: B batch, T tokens, D hidden, C classes, N examples, P tokens of all examples in
a row.
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
from stillhouse.distill.signals import SignalReader, Signals
from stillhouse.files import folder_written_aside
from stillhouse.model.anatomy import label_count
from stillhouse.model.precision import autocast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
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
        self, teacher: PreTrainedModel, layers: frozenset[int], precision: Precision
    ) -> None:
        """Hooks the layers of the teacher whose hidden states are read."""
        teacher.eval()
        self._reader = SignalReader(teacher, layers)
        self._precision = precision

    def __call__(self, batch: Batch) -> Signals:  # noqa: D102
        with torch.no_grad(), autocast(self._reader.model.device, self._precision):
            return self._reader(batch)


class CachedTeacher:
    """Reads signals that were computed once."""

    def __init__(
        self,
        *,
        logits_NC: NDArray[np.float32],
        hidden_PD: Mapping[int, NDArray[np.float16]],
        offsets: NDArray[np.int64],
    ) -> None:
        """Keeps the arrays, memory-mapped or not.

        Args:
            logits_NC: Logits of all examples, in the encoded set's order.
            hidden_PD: Hidden states of all tokens in a row, by teacher layer.
            offsets: `[N+1]` first token of each example on axis P.
        """
        self._logits_NC = logits_NC
        self._hidden_PD = hidden_PD
        self._offsets = offsets

    def __call__(self, batch: Batch) -> Signals:  # noqa: D102
        indices = batch.indices.cpu().numpy()
        device = batch.input_ids.device
        logits_BC = torch.from_numpy(self._logits_NC[indices]).to(device)
        lengths = self._offsets[indices + 1] - self._offsets[indices]
        rows_BT = np.arange(batch.input_ids.shape[1])[None, :]
        real_BT = rows_BT < lengths[:, None]
        positions_P = (self._offsets[indices][:, None] + rows_BT)[real_BT]
        hidden_BTD = {}
        for layer, states_PD in self._hidden_PD.items():
            states_BTD = np.zeros((*real_BT.shape, states_PD.shape[1]), dtype=np.float16)
            states_BTD[real_BT] = states_PD[positions_P]
            hidden_BTD[layer] = torch.from_numpy(states_BTD).to(device)
        return Signals(logits_BC=logits_BC, hidden_BTD=hidden_BTD)


def cache_bytes(encoded: EncodedSet, layers: frozenset[int], hidden: int, labels: int) -> int:
    """Tells how large the cache of a set would be, in bytes."""
    tokens = int(encoded.offsets[-1])
    return tokens * len(layers) * hidden * 2 + len(encoded) * labels * 4


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
) -> TeacherSignals:
    """Returns the teacher's signals for a set, computed now or read from an earlier cache.

    Args:
        teacher: The frozen model.
        encoded: Examples whose `Batch.indices` later index the cache.
        layers: Teacher layers (0-based) whose hidden states some loss reads.
        directory: Folder of all caches; each lies in its own folder below.
        teacher_hash: Identifies the teacher's weights.
        precision: Arithmetic of the teacher's forward pass.
        limit_gb: Largest cache, in 10⁹ bytes; a larger one, or one that would take more than
            nine tenths of the free disk, is not written and the teacher is asked live.
        on_progress: Told the finished fraction, 0..1.
    """
    files = _CacheFiles(directory / cache_key(teacher_hash, encoded, precision))
    missing = frozenset(layer for layer in layers if not files.hidden(layer).exists())
    if missing or not files.logits.exists():
        config = teacher.config
        directory.mkdir(parents=True, exist_ok=True)
        known = files.layers()
        size = cache_bytes(encoded, known | layers, config.hidden_size, label_count(config))
        added = size - cache_bytes(encoded, known, config.hidden_size, 0)
        free = shutil.disk_usage(directory).free
        if size > limit_gb * 1e9 or added > 0.9 * free:
            logger.warning(
                "teacher cache of %.1f GB is over its limit (%.1f GB; %.1f GB free): asking the "
                "teacher at every step instead",
                size / 1e9,
                limit_gb,
                free / 1e9,
            )
            return LiveTeacher(teacher, layers, precision)
        _fill_cache(teacher, encoded, missing, files, precision, on_progress)
    return CachedTeacher(
        logits_NC=np.load(files.logits),
        hidden_PD={layer: np.load(files.hidden(layer), mmap_mode="r") for layer in sorted(layers)},
        offsets=encoded.offsets,
    )


@dataclass(frozen=True, slots=True)
class _CacheFiles:
    """Files of one cache; each is whole or absent."""

    folder: Path

    @property
    def logits(self) -> Path:
        return self.folder / "logits.npy"

    def hidden(self, layer: int) -> Path:
        return self.folder / f"hidden-{layer:03d}.npy"

    def layers(self) -> frozenset[int]:
        """Layers that are there."""
        return frozenset(int(path.stem[-3:]) for path in self.folder.glob("hidden-*.npy"))


@torch.no_grad()
def _fill_cache(
    teacher: PreTrainedModel,
    encoded: EncodedSet,
    layers: frozenset[int],
    files: _CacheFiles,
    precision: Precision,
    on_progress: Callable[[float], None] | None,
) -> None:
    """Runs the teacher once for the logits and the given layers; files appear when all is done."""
    logits_NC = np.empty((len(encoded), label_count(teacher.config)), dtype=np.float32)
    teacher.eval()
    done = 0
    folder = files.folder
    with (
        folder_written_aside(folder.with_name(f"{folder.name}-part")) as aside,
        SignalReader(teacher, layers) as reader,
    ):
        written = _CacheFiles(aside)
        shape = (int(encoded.offsets[-1]), teacher.config.hidden_size)
        hidden_PD = {
            layer: np.lib.format.open_memmap(
                written.hidden(layer), mode="w+", dtype=np.float16, shape=shape
            )
            for layer in sorted(layers)
        }
        for indices in plan_ordered(encoded.lengths, batch_size=64):
            batch = collate(encoded, indices).to(teacher.device)
            with autocast(teacher.device, precision):
                signals = reader(batch)
            logits_NC[indices] = signals.logits_BC.float().cpu().numpy()
            _write_states(hidden_PD, encoded.offsets, indices, batch, signals)
            done += len(indices)
            if on_progress is not None:
                on_progress(done / len(encoded))
        for states_PD in hidden_PD.values():
            states_PD.flush()
        np.save(written.logits, logits_NC)
    part = folder.with_name(f"{folder.name}-part")
    folder.mkdir(parents=True, exist_ok=True)
    for path in part.iterdir():
        path.replace(folder / path.name)
    part.rmdir()


def _write_states(
    hidden_PD: Mapping[int, NDArray[np.float16]],
    offsets: NDArray[np.int64],
    indices: NDArray[np.int64],
    batch: Batch,
    signals: Signals,
) -> None:
    real_BT = batch.attention_mask.bool()
    columns = torch.arange(real_BT.shape[1], device=real_BT.device)
    first = torch.from_numpy(offsets[indices]).to(real_BT.device)
    positions_P = (first[:, None] + columns)[real_BT].cpu().numpy()
    limit = torch.finfo(torch.float16).max
    for layer, states_PD in hidden_PD.items():
        kept = signals.hidden_BTD[layer][real_BT].float().clamp(-limit, limit)
        states_PD[positions_P] = kept.to(torch.float16).cpu().numpy()
