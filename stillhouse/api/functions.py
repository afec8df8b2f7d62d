"""The public doors that take plain arguments: a search and a fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.api.in_memory import (
    task_in_memory,
    task_overrides,
    teacher_in_memory,
    with_usual_length,
)
from stillhouse.api.model_jobs import run_finetune_job
from stillhouse.api.results import FinetuneResult, Given, SearchResult
from stillhouse.api.runs import run_path
from stillhouse.api.search_jobs import run_search_job
from stillhouse.data.task import (
    IN_MEMORY,
    Task,
)
from stillhouse.recipe.own_parts import NO_PARTS, OwnParts
from stillhouse.run.progress import LoggingNarrator, Narrator
from stillhouse.run.settings import settings_from_dict
from stillhouse.run.settings_file import apply_overrides

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def search(  # noqa: PLR0913  the one public door; everything else is in `settings`
    *,
    teacher: str | PreTrainedModel | None = None,
    task: str | Task | Dataset | None = None,
    limit: Mapping[str, float] | None = None,
    seconds: float | None = None,
    candidates: int | None = None,
    run: str | Path | None = None,
    recipe: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    text: tuple[str, ...] = (),
    label: str | None = None,
    settings: Mapping[str, Any] | None = None,
    own: OwnParts = NO_PARTS,
    narrator: Narrator | None = None,
) -> SearchResult:
    """Searches students of a teacher for a task within limits, and distils the best.

    Args:
        teacher: Hub id, folder, `scratch`, or a model in memory (then with its `tokenizer`), which
            stays as it is. `None` leaves it to `settings`, by default `scratch`.
        task: Name such as `glue/sst2`, a table file, a `Task`, or a `Dataset` (then with `text` and
            `label` columns). `None` leaves it to `settings`, by default `embedded`.
        limit: By name (`latency_ms`, `speedup`, `size_mb`, `memory_mb`, `parameters`, `params_m`,
            `flops_fraction`); without any, twice the teacher's speed.
        seconds: Time for everything, the final training included.
        candidates: Candidates to train at most.
        run: Run directory; a temporary one if not given. The same call resumes it.
        recipe: `kd-nas`, `autodistil`, `nas-bert`, `autodistill`, `layer-map` or `plain`; `None`
            leaves it to `settings`, by default `plain`.
        tokenizer: Tokeniser of a teacher in memory.
        text: Text columns, one or two.
        label: Label column.
        settings: Any other settings, as in a settings file.
        own: Strategy, terms, space or device of your own, as objects; for searches on a task.
        narrator: Told the progress; by default it goes to the log.

    Returns:
        Trials, Pareto front, students.
    """
    overrides: dict[str, Any] = {f"limit.{name}": value for name, value in (limit or {}).items()}
    if limit and (recipe or (settings or {}).get("recipe")) == "nas-bert":
        overrides = {"limits": [dict(limit)]}
    if seconds is not None:
        overrides["search.seconds"] = seconds
    if candidates is not None:
        overrides["search.candidates"] = candidates
    if recipe is not None:
        overrides["recipe"] = recipe
    if teacher is not None:
        overrides["teacher.model"] = teacher if isinstance(teacher, str) else IN_MEMORY
    given = Given(
        teacher=teacher_in_memory(teacher, tokenizer),
        task=task_in_memory(task, text, label),
        own=own,
    )
    overrides |= task_overrides(task, text, label)
    resolved = settings_from_dict(
        apply_overrides(with_usual_length(settings or {}, given.task), overrides)
    )
    return run_search_job(resolved, run_path(run), narrator or LoggingNarrator(), given)


def finetune(  # noqa: PLR0913  the one public door; everything else is in `settings`
    model: str | Path,
    *,
    task: str | Task | Dataset | None = None,
    text: tuple[str, ...] = (),
    label: str | None = None,
    learning_rates: Sequence[float] = (),
    epochs: float | None = None,
    run: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    narrator: Narrator | None = None,
) -> FinetuneResult:
    """Fine-tunes a checkpoint on a task with labels; the weights of the best evaluation are kept.

    Args:
        model: Folder or hub id of a checkpoint, with a head or without one.
        task: Name such as `glue/mrpc`, a table file, a `Task`, or a `Dataset` (then with `text` and
            `label` columns). `None` leaves it to `settings`, by default `embedded`.
        text: Text columns, one or two.
        label: Label column.
        learning_rates: The best of them on held-out examples wins; none leaves it to `settings`.
        epochs: Passes over the training set, at most.
        run: Run directory; a temporary one if not given. The same call resumes it.
        settings: Any other settings, as in a settings file: `{"finetune": {"patience": 2}}`.
        narrator: Told the progress; by default it goes to the log.

    Returns:
        Folder and measures of the fine-tuned model.
    """
    overrides: dict[str, Any] = {"finetune.model": str(model)}
    if learning_rates:
        overrides["finetune.learning_rates"] = list(learning_rates)
    if epochs is not None:
        overrides["finetune.epochs"] = epochs
    given = Given(task=task_in_memory(task, text, label))
    overrides |= task_overrides(task, text, label)
    resolved = settings_from_dict(
        apply_overrides(with_usual_length(settings or {}, given.task), overrides)
    )
    return run_finetune_job(resolved, run_path(run), narrator or LoggingNarrator(), given)
