"""The bridge from a training to progress bars and TensorBoard curves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch.utils.tensorboard.writer import SummaryWriter

from stillhouse.distill.steps import Progress, Watch

if TYPE_CHECKING:
    from accelerate import Accelerator

    from stillhouse.distill.checkpoint import CheckpointFolder
    from stillhouse.run.progress import Narrator


@contextmanager
def watched(
    narrator: Narrator,
    logs: Path,
    title: str,
    *,
    checkpoint: CheckpointFolder | None = None,
    deadline: float | None = None,
    tokens_a_step: int = 0,
) -> Iterator[Watch]:
    """Watches one training: its losses go to TensorBoard, its steps to the narrator.

    Args:
        narrator: Told the finished share of the training.
        logs: Folder of the training's TensorBoard curves.
        title: What a person reads beside the bar.
        checkpoint: Passed on to the training.
        deadline: Passed on to the training.
        tokens_a_step: Where a step always reads as many, they are counted, and their rate is told
            beside the loss.
    """
    writer = SummaryWriter(str(logs))
    narrator.begin(title, 1.0)
    rate = _Rate(tokens_a_step)

    def on_step(progress: Progress) -> None:
        tokens_a_s = rate.after(progress.step)
        if progress.losses:
            for term, loss in enumerate(progress.losses):
                writer.add_scalar(f"loss/term_{term}", loss, progress.step)
            if tokens_a_s is not None:
                writer.add_scalar("tokens_per_s", tokens_a_s, progress.step)
        detail = f"loss {sum(progress.losses):.4f}" if progress.losses else ""
        if detail and tokens_a_s is not None:
            detail += f", {tokens_a_s:,.0f} tokens/s"
        narrator.advance(progress.step / progress.steps, detail)

    try:
        yield Watch(
            on_step=on_step,
            checkpoint=checkpoint,
            deadline=deadline,
            tokens=lambda _: tokens_a_step,
        )
    finally:
        writer.close()
        narrator.end()


@contextmanager
def watched_by_main(
    accelerator: Accelerator,
    narrator: Narrator,
    logs: Path,
    title: str,
    *,
    checkpoint: CheckpointFolder,
    tokens_a_step: int,
) -> Iterator[Watch]:
    """Watches a training that all workers do together, as `watched` does.

    Only the main one tells of it; each passes the checkpoint on.
    """
    if not accelerator.is_main_process:
        yield Watch(checkpoint=checkpoint, tokens=lambda _: tokens_a_step)
        return
    with watched(
        narrator, logs, title, checkpoint=checkpoint, tokens_a_step=tokens_a_step
    ) as watch:
        yield watch


class _Rate:
    """Tokens a second since the first step that was told."""

    def __init__(self, tokens_a_step: int) -> None:
        self._tokens_a_step = tokens_a_step
        self._first: tuple[int, float] | None = None

    def after(self, step: int) -> float | None:
        """Returns the rate after a step; none is known after the first."""
        now_s = time.monotonic()
        if self._first is None:
            self._first = step, now_s
        first, since_s = self._first
        if not self._tokens_a_step or step == first:
            return None
        return (step - first) * self._tokens_a_step / max(now_s - since_s, 1e-9)
