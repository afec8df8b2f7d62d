"""The start of jobs that make one model of one checkpoint: fine-tuned, or of few bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stillhouse.data.task import Task
    from stillhouse.model.precision import Precision
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.settings import RunSettings


def record_start(
    run: RunDirectory,
    settings: RunSettings,
    *,
    name: str,
    model_hash: str,
    task: Task,
    precision: Precision,
) -> None:
    """Writes what a job stands on; refuses a checkpoint that changed since it began.

    Args:
        run: The run directory.
        settings: The run's settings.
        name: What the user calls the checkpoint.
        model_hash: SHA-256 of its weights.
        task: What the model learns.
        precision: Arithmetic of the training.

    Raises:
        RunError: If the weights are not those that the run began from.
    """
    run.refuse_other_model(model_hash, name)
    run.write_provenance(
        settings,
        {
            "model_sha256": model_hash,
            "data_sha256": task.fingerprint(),
            "training_precision": precision,
        },
    )
    run.update_state({"task": task.name, "model": name})
