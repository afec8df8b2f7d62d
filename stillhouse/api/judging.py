"""The jobs that look at finished models: scores, files, times, attacks, comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.api.runs import refuse_workers
from stillhouse.data.task import (
    IN_MEMORY,
    Task,
    TaskSettings,
    load_task,
    usual_length,
)
from stillhouse.data.task_names import is_plain_text
from stillhouse.errors import SettingsError, did_you_mean
from stillhouse.export.word_tagger import refuse_word_tagger
from stillhouse.model.onnx_graph import PRECISIONS, GraphPrecision
from stillhouse.recipe.attack_report import AttackReport
from stillhouse.recipe.attacking import AttackJob, attack_checkpoints
from stillhouse.recipe.evaluation import Evaluation, evaluate_checkpoint
from stillhouse.recipe.exporting import OnnxExport, export_onnx_checkpoint
from stillhouse.recipe.measuring import Measurements, MeasureSettings, measure_checkpoint
from stillhouse.recipe.profile_job import ProfileJob
from stillhouse.recipe.profiling import profile_space
from stillhouse.report.comparison import Comparison, compare
from stillhouse.report.comparison_page import write_comparison
from stillhouse.run.progress import LoggingNarrator, Narrator

if TYPE_CHECKING:
    from stillhouse.device.profile import Profile
    from stillhouse.evaluate.loyalty import LogBase


def run_attack_job(job: AttackJob, out: Path, narrator: Narrator) -> AttackReport:
    """Attacks checkpoints with synonyms, evaluates them on AdvGLUE, or both; goes on in `out`.

    Args:
        job: What to do.
        out: Folder for `attack.json`, `adversarial.tsv` and what is kept on the way.
        narrator: Told the progress.
    """
    refuse_workers("attack")
    return attack_checkpoints(job, out, narrator)


def run_profile_job(job: ProfileJob, out: Path, narrator: Narrator) -> Profile:
    """Measures some architectures of a space and fits a predictor; goes on with what is begun.

    Args:
        job: What to measure, and where.
        out: The profile, a `.json` file.
        narrator: Told the progress.
    """
    refuse_workers("profile")
    return profile_space(job, out, narrator)


def evaluate(
    name: str | Path,
    task: TaskSettings | Task | str,
    *,
    teacher: str | Path | None = None,
    base: LogBase = "e",
) -> Evaluation:
    """Scores a checkpoint on the dev set of a task.

    Args:
        name: Folder or hub id.
        task: A task, its settings, or its name such as `glue/sst2`.
        teacher: Folder or hub id of the fine-tuned model that it was distilled from; adds label
            and probability loyalty.
        base: Of the logarithm in the probability loyalty: `e` as published, or `2`.

    Raises:
        DataError: If one is a tagger of `cross-view`.
    """
    for checkpoint in (name, *(() if teacher is None else (teacher,))):
        refuse_word_tagger(checkpoint)
    if isinstance(task, Task):
        settings = TaskSettings(name=IN_MEMORY, max_length=usual_length(task.kind))
        loaded = task
    else:
        settings = TaskSettings(name=task) if isinstance(task, str) else task
        loaded = load_task(settings)
    return evaluate_checkpoint(
        str(name),
        loaded,
        settings=settings,
        teacher=None if teacher is None else str(teacher),
        base=base,
    )


def export_onnx(
    model: str | Path,
    *,
    precision: GraphPrecision | None = None,
    check: str | Path | TaskSettings | Task | Sequence[str] | None = None,
    out: str | Path | None = None,
) -> OnnxExport:
    """Writes a checkpoint as a folder with an ONNX file, checked against the model in PyTorch.

    Args:
        model: Folder or hub id of a classifier, of a tagger of words, of a reader that answers
            questions, of a model of masked words or of a bare encoder.
        precision: `float32`; `int8`: weights of embeddings and matrix products in 8 bits; or
            `int8-static`: the same with the scales of activations fixed beforehand, on other texts
            than those of the check, which is what OpenVINO computes in 8 bits. `None` takes
            `float32`, or of a quantised checkpoint `int8` with the ranges of its training.
        check: What to check on: a `.txt` file with one text a line, texts, a task, its settings or
            its name, whose dev set scores the file as well. `None` takes some embedded texts.
        out: The folder; by default `onnx` (or `onnx-int8`, `onnx-int8-static`) in that of the
            checkpoint.

    Raises:
        ExportError: If a package of the extra `onnx` is missing, the exporter lacks an operator,
            or the file of float32 differs from the model.
        DataError: If the check's texts are too few to fix scales on as well.
        SettingsError: If there is no such precision.
    """
    if precision is not None and precision not in PRECISIONS:
        raise SettingsError(
            f"precision is one of {', '.join(PRECISIONS)}, but is {precision!r}"
            f"{did_you_mean(precision, PRECISIONS)}"
        )
    checked, settings = _check_of(check)
    return export_onnx_checkpoint(
        str(model),
        None if out is None else Path(out),
        precision=precision,
        check=checked,
        max_length=settings.max_length,
        stride=settings.stride,
    )


def compare_runs(
    runs: Sequence[str | Path],
    *,
    limits: Sequence[Mapping[str, float]] = (),
    by: str = "latency_ms",
    page: str | Path | None = None,
) -> Comparison:
    """Sets the methods of two or more runs side by side, at equal limits and equal budgets.

    Args:
        runs: Run directories, each perhaps with a name: `kd-nas=runs/a`. Runs of one name, or
            without names of the same settings but the seed, are seeds of one method; the first
            method is what others are compared with.
        limits: Where quality is compared, such as `{"latency_ms": 5}`; none means the runs' own.
        by: The cost that quality is set against: `latency_ms`, `size_mb`, `flops_fraction` or
            `params_m`.
        page: Where to write it as a page; `None` writes none.

    Raises:
        RunError: If a run cannot be read, or runs cannot stand beside each other.
        SettingsError: If there are fewer than two methods, or there is no such limit or cost.
    """
    comparison = compare([str(run) for run in runs], limits=limits, by=by)
    if page is not None:
        write_comparison(comparison, Path(page))
    return comparison


def measure(
    model: str | Path,
    *,
    against: str | Path | None = None,
    settings: MeasureSettings | None = None,
    narrator: Narrator | None = None,
    on_row: Callable[[Measurements], None] | None = None,
) -> Measurements:
    """Measures time, size and peak memory of a checkpoint on devices of this machine.

    Args:
        model: Folder or hub id of a classifier, tagger or reader, of a model of masked words or of
            a bare encoder.
        against: The same of its teacher, which is then timed in turn with it.
        settings: On which devices and for which workloads; by default `auto`, batch 1, length 128.
        narrator: Told the progress; by default it goes to the log.
        on_row: Given all that is known after every row.

    Raises:
        DeviceError: If nothing of it can be measured here; what fails later is told in its row.
    """
    return measure_checkpoint(
        str(model),
        None if against is None else str(against),
        settings or MeasureSettings(),
        narrator or LoggingNarrator(),
        on_row or (lambda _: None),
    )


def _check_of(
    check: str | Path | TaskSettings | Task | Sequence[str] | None,
) -> tuple[Task | Path | Sequence[str] | None, TaskSettings]:
    """Loads a task to check on; says with it how examples are cut."""
    if isinstance(check, str | Path):
        if is_plain_text(str(check)):
            return Path(check).expanduser(), TaskSettings()
        check = TaskSettings(name=str(check))
    if isinstance(check, TaskSettings):
        return load_task(check), check
    if isinstance(check, Task):
        return check, TaskSettings(name=IN_MEMORY, max_length=usual_length(check.kind))
    return check, TaskSettings()
