"""The command that shows a run from another shell."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.options import RunArgument
from stillhouse.cli.plain import plain_trial
from stillhouse.cli.screen import out

if TYPE_CHECKING:
    from rich.console import RenderableType

    from stillhouse.run.watching import Doing, Sight
    from stillhouse.search.trial import Trial

MOST_OF_FRONT = 8
_COLOURS = {"running": "cyan", "complete": "green", "failed": "red", "interrupted": "yellow"}


@answers
def watch(
    run: RunArgument,
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it as it stands, and end.")] = False,
    every: Annotated[float, typer.Option(help="Seconds from one look to the next.")] = 2.0,
) -> Answer:
    """Show a run at work, from another shell, until it ends.

    It tells what is done at present, the time left, the trials and their front.

    Writes nothing and changes nothing; Ctrl-C ends the watching, not the run. With --json it is
    told once, as it stands.

    Examples:
        A search at work
            stillhouse watch runs/search

        What has become of it, for a script
            stillhouse watch runs/search --json
    """
    from stillhouse.run.watching import look_at  # noqa: PLC0415  loads Optuna

    sight = look_at(run)
    if once or not sight.is_working:
        return Answer(told=plain_sight(sight), show=lambda: out.print(drawn(sight)))
    return Answer(told=plain_sight(sight), show=lambda: _follow(run, sight, every))


def _follow(run: Path, sight: Sight, every_s: float) -> None:
    """Shows a run until it ends."""
    from stillhouse.run.watching import look_at  # noqa: PLC0415  loads Optuna

    try:
        with Live(drawn(sight), console=out, auto_refresh=False, screen=False) as live:
            while sight.is_working:
                time.sleep(max(0.1, every_s))
                sight = look_at(run)
                live.update(drawn(sight), refresh=True)
    except KeyboardInterrupt:
        return  # whoever watches may go; the run goes on


def drawn(sight: Sight) -> RenderableType:
    """Draws a run for a terminal."""
    parts: list[RenderableType] = [_headline(sight)]
    if sight.doing is not None and sight.is_working:
        parts.append(_bar(sight.doing))
    if sight.counts:
        states = ", ".join(f"{count} {state}" for state, count in sorted(sight.counts.items()))
        volume = f"; hypervolume {sight.hypervolume[-1]:.4f}" if sight.hypervolume else ""
        parts.append(Text(f"trials: {states}{volume}"))
    if sight.front:
        parts.append(_trials(f"Front ({len(sight.front)})", sight.front[-MOST_OF_FRONT:]))
    if sight.latest:
        parts.append(_trials("Latest", sight.latest))
    if sight.students:
        parts.append(Text("students: " + ", ".join(str(folder) for folder in sight.students)))
    parts += [Text(line, style="dim", overflow="fold") for line in _ways_on(sight)]
    return Group(*parts)


def _headline(sight: Sight) -> Text:
    line = Text(f"{sight.path}  {sight.recipe}  ", overflow="fold")
    line.append(sight.status, style=_COLOURS.get(sight.status, ""))
    if sight.elapsed_s is not None:
        line.append(f"  {_clock(sight.elapsed_s)}")
    if sight.reason:
        line.append(f"\n{sight.reason}", style="red")
    return line


def _bar(doing: Doing) -> RenderableType:
    from stillhouse.run.watching import SILENT_AFTER_S  # noqa: PLC0415  loads Optuna

    left = "" if doing.left_s is None else f"{_clock(doing.left_s)} left"
    if doing.silent_s > SILENT_AFTER_S:
        left = f"said nothing for {_clock(doing.silent_s)}"
    row = Table.grid(padding=(0, 1))
    row.add_row(
        Text(doing.task),
        ProgressBar(total=1.0, completed=doing.fraction, width=30),
        Text(f"{doing.fraction:.0%}"),
        Text(left),
        Text(doing.detail),
    )
    return row


def _trials(title: str, trials: tuple[Trial, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("trial", "architecture", "state", "quality", "ms", "why"):
        table.add_column(name, justify="right" if name in ("trial", "quality", "ms") else "left")
    for trial in trials:
        table.add_row(
            str(trial.number),
            Text(trial.architecture.label),
            trial.state.value,
            "" if trial.quality is None else f"{trial.quality:.4f}",
            "" if trial.latency_ms is None else f"{trial.latency_ms:.2f}",
            Text(trial.reason.partition("\n")[0][:80]),
        )
    return table


def _ways_on(sight: Sight) -> list[str]:
    """Says what else shows the run."""
    lines = []
    if sight.storage_url is not None:
        lines.append(f"optuna-dashboard {sight.storage_url}")
    if sight.tensorboard is not None:
        lines.append(f"tensorboard --logdir {shlex.quote(str(sight.tensorboard))}")
    return [*lines, f"stillhouse report {shlex.quote(str(sight.path))}"]


def plain_sight(sight: Sight) -> dict[str, Any]:
    """Returns a run as plain data."""
    doing = sight.doing
    return {
        "run": str(sight.path),
        "recipe": sight.recipe,
        "status": sight.status,
        "reason": sight.reason,
        "elapsed_s": sight.elapsed_s,
        "doing": None
        if doing is None
        else {name: getattr(doing, name) for name in type(doing).__slots__},
        "trials": dict(sight.counts),
        "front": [plain_trial(trial) for trial in sight.front],
        "latest": [plain_trial(trial) for trial in sight.latest],
        "hypervolume": list(sight.hypervolume),
        "students": [str(folder) for folder in sight.students],
        "storage_url": sight.storage_url,
    }


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
