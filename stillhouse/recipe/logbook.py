"""The bridge from a training to progress bars and TensorBoard curves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch.utils.tensorboard.writer import SummaryWriter

from stillhouse.distill.loop import Progress, Watch

if TYPE_CHECKING:
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
) -> Iterator[Watch]:
    """Watches one training: its losses go to TensorBoard, its steps to the narrator.

    Args:
        narrator: Told the finished share of the training.
        logs: Folder of the training's TensorBoard curves.
        title: What a person reads beside the bar.
        checkpoint: Passed on to the training.
        deadline: Passed on to the training.
    """
    writer = SummaryWriter(str(logs))
    narrator.begin(title, 1.0)

    def on_step(progress: Progress) -> None:
        for term, loss in enumerate(progress.losses):
            writer.add_scalar(f"loss/term_{term}", loss, progress.step)
        detail = f"loss {sum(progress.losses):.4f}" if progress.losses else ""
        narrator.advance(progress.step / progress.steps, detail)

    try:
        yield Watch(on_step=on_step, checkpoint=checkpoint, deadline=deadline)
    finally:
        writer.close()
        narrator.end()
