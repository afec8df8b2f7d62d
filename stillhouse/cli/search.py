"""The commands that search, that plan a search, and that demonstrate one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.options import RunOption
from stillhouse.cli.plain import plain_search
from stillhouse.cli.screen import (
    EXIT_OVER_LIMITS,
    narrator,
    print_line,
    print_table,
    quiet_libraries,
    resumable,
    stoppable,
)
from stillhouse.cli.search_options import gather_settings, takes_search_settings

if TYPE_CHECKING:
    from stillhouse.api import SearchResult
    from stillhouse.recipe.plan import Plan
    from stillhouse.run.settings import RunSettings


@answers
@takes_search_settings
def search(settings: RunSettings, *, run: RunOption = Path("runs/search")) -> Answer | None:
    """Search students of a teacher and distil the best of them.

    Every candidate is timed on the device and distilled for a short while; the best within the
    limits are distilled to the end.

    Writes RUN/students/1, 2 and on, the best first, as Hugging Face checkpoints, and the page
    RUN/report.html. Ctrl-C keeps what is finished; the same command goes on there.

    Next: open the report; `stillhouse export RUN/students/1` for a folder that is served.

    Examples:
        A BERT for SST-2, and students that answer within 5 ms
            stillhouse search --teacher google-bert/bert-base-uncased --task glue/sst2
            --limit latency_ms=5 --run runs/sst2

        Your own table, in 45 minutes
            stillhouse search --teacher my-teacher/ --task data.csv --text question,answer
            --label relevant --time 45m --run runs/mine

        With the controller of KD-NAS
            stillhouse search kd-nas --teacher my-teacher/ --task glue/sst2

        Without a task, a family of encoders from one supernet
            stillhouse search autodistil --teacher my-teacher/ --corpus wiki.txt
            --limit flops_fraction=0.5

        Several budgets from one table
            stillhouse search nas-bert --teacher my-teacher/ --corpus wiki.txt
            --limit params_m=10,latency_ms=4 --limit params_m=5

        MobileBERTs for a chip
            stillhouse search autodistill --teacher my-teacher/ --corpus wiki.txt
            --device tpu-v4i --trials 60

        The layer map of one student
            stillhouse search layer-map --teacher my-teacher/
            --student layers=3,hidden_size=384 --corpus wiki.txt
    """
    from stillhouse.api import run_search_job  # noqa: PLC0415  torch loads after parsing

    with resumable(run):
        result = run_search_job(settings, run, narrator())
    return _answer(settings, result)


@answers
@takes_search_settings
def plan(
    settings: RunSettings,
    *,
    run: Annotated[
        Path | None, typer.Option("--run", help="Ignored: a plan writes nothing.", hidden=True)
    ] = None,
) -> Answer:
    """Tell what a search will do and take; train nothing.

    Its time and its disk are told from a few timed steps, for a plain search or kd-nas. Takes the
    options of `stillhouse search` and writes nothing.

    Next: the same command with `search` in place of `plan`.

    Examples:
        What a search with the controller of KD-NAS will take
            stillhouse plan kd-nas --teacher my-teacher/ --task glue/sst2 --limit latency_ms=5
    """
    del run  # taken so that `search` can be replaced by `plan` in any command line
    from stillhouse.api import plan_job  # noqa: PLC0415  torch loads after parsing

    quiet_libraries()
    with stoppable():
        planned = plan_job(settings, narrator())
    told = {
        "phases": planned.phases,
        "seconds": planned.seconds,
        "disk_mb": planned.disk_mb,
        "notes": planned.notes,
    }
    return Answer(told=told, show=lambda: _show_plan(planned))


@answers
def demo(run: RunOption = Path("runs/demo")) -> Answer | None:
    """Run the whole job on texts that every Python brings.

    Trains a small teacher, searches, distils, and writes RUN/report.html, in a few minutes on two
    processor cores; downloads neither data nor weights.

    Examples:
        The demonstration
            stillhouse demo
    """
    from stillhouse.cli.demo import DEMO  # noqa: PLC0415  settings load pydantic

    settings = gather_settings(None, DEMO)
    from stillhouse.api import run_search_job  # noqa: PLC0415  torch loads after parsing

    with resumable(run):
        result = run_search_job(settings, run, narrator())
    answer = _answer(settings, result)
    return None if answer is None else replace(answer, exit_code=0)  # a slow machine is no failure


def _answer(settings: RunSettings, result: SearchResult) -> Answer | None:
    """Returns what a search found; nothing in a worker of a data-parallel training."""
    from stillhouse.cli import students as tables  # noqa: PLC0415  loads scipy

    if not result.students:
        return None
    best = result.students[0]
    tune = f"Fine-tune the best with: stillhouse finetune {best.path} --task glue/mrpc"

    def show() -> None:
        match settings.recipe:
            case "autodistil":
                tables.show_family(result.students)
            case "nas-bert":
                tables.show_selected(result.students)
            case "layer-map":
                tables.show_layer_maps(result.path)
                tables.show_finished(best)
            case _:
                tables.show_students(result.students, result.competitors)

    match settings.recipe:
        case "nas-bert":
            done = f"Pre-train one with: stillhouse train {best.path}"
        case "autodistil" | "autodistill":
            done = tune
        case "layer-map" if settings.layer_map.judge == "corpus":
            done = tune
        case _:
            done = f"Load the best with {tables.auto_class(best)}.from_pretrained('{best.path}')"
    return Answer(
        told=plain_search(result),
        show=show,
        done=f"{done}; open {result.report}",
        exit_code=0
        if any(tables.is_within_limits(one) for one in result.students)
        else EXIT_OVER_LIMITS,
    )


def _show_plan(planned: Plan) -> None:
    table = Table(title="Plan")
    table.add_column("phase")
    table.add_column("what")
    for column in ("steps", "time"):
        table.add_column(column, justify="right")
    for phase in planned.phases:
        steps = f"{phase.steps:,}" if phase.steps else "-"
        table.add_row(phase.name, phase.what, steps, _duration(phase.seconds))
    table.add_row("total", "", "", _duration(planned.seconds), style="bold")
    print_table(table)
    for purpose, size_mb in planned.disk_mb.items():
        print_line(f"disk, {purpose}: {size_mb:,.0f} MB")
    for note in planned.notes:
        print_line(note)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 60:  # noqa: PLR2004  a minute
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004
