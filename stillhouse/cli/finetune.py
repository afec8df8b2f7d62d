"""The command that fine-tunes a checkpoint on a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.options import (
    DevOption,
    LabelOption,
    MetricOption,
    ModelArgument,
    RunOption,
    SeedOption,
    SetOption,
    SettingsArgument,
    TaskOption,
    TextOption,
)
from stillhouse.cli.screen import narrator, print_line, resumable
from stillhouse.cli.search_options import gather_settings, task_options

if TYPE_CHECKING:
    from stillhouse.api import FinetuneResult


@answers
def finetune(
    model: ModelArgument,
    settings_file: SettingsArgument = None,
    *,
    task: TaskOption = None,
    run: RunOption = Path("runs/finetune"),
    text: TextOption = None,
    label: LabelOption = None,
    dev: DevOption = None,
    metric: MetricOption = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training set, at most.")
    ] = None,
    learning_rate: Annotated[
        list[float] | None,
        typer.Option(help="Repeatable: the best on held-out training examples is kept."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples a step.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Evaluations in a row that are no better end the training.")
    ] = None,
    trust_remote_code: Annotated[
        bool | None,
        typer.Option("--trust-remote-code", help="Let code that lies in the checkpoint run."),
    ] = None,
    seed: SeedOption = None,
    overrides: SetOption = None,
) -> Answer:
    """Fine-tune a checkpoint on a task with labels.

    Writes the checkpoint RUN/model, the best epoch's weights; the same command again resumes it.

    Next: `stillhouse export RUN/model`, or give it as --teacher to a search.

    Examples:
        A student on another task, the better of two learning rates
            stillhouse finetune runs/sst2/students/1 --task glue/mrpc --learning-rate 2e-5
            --learning-rate 1e-4
    """
    settings = gather_settings(
        settings_file,
        task_options(task, text, label, dev, metric)
        | {
            "finetune.model": model,
            "finetune.epochs": epochs,
            "finetune.learning_rates": learning_rate or None,
            "finetune.batch_size": batch_size,
            "finetune.patience": patience,
            "finetune.trust_remote_code": trust_remote_code,
            "seed": seed,
        },
        overrides=overrides or (),
        reads=("task", "finetune", "seed", "distill.precision", "device.watts"),
    )
    from stillhouse.api import run_finetune_job  # noqa: PLC0415  torch loads after parsing

    with resumable(run):
        result = run_finetune_job(settings, run, narrator())
    return Answer(
        told={"run": run, "path": result.path, "metrics": result.metrics},
        show=lambda: _show(result),
        done=f"The model lies in {result.path}",
    )


def _show(result: FinetuneResult) -> None:
    metrics = result.metrics
    interval = f"95 % interval {metrics['quality_low']:.4f} to {metrics['quality_high']:.4f}"
    for name, value in metrics["scores"].items():
        told = f"  ({interval})" if name == metrics["metric"] else ""
        print_line(f"{name} {value:.4f}{told}")
    print_line(
        f"{metrics['quality_count']} dev examples of {metrics['task']}; learning rate "
        f"{metrics['learning_rate']:g}, epoch {metrics['epoch']:g} of "
        f"{metrics['epochs_trained']:g}"
    )
    print_line(metrics["choice"])
