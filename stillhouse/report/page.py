"""Render what a run directory holds as one self-contained page, written atomically."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from stillhouse.errors import RunError
from stillhouse.files import write_text_atomically
from stillhouse.report import wording
from stillhouse.report.block_plots import draw_blocks, draw_shrinking
from stillhouse.report.drawing import DARK, Json
from stillhouse.report.front import draw_finished, draw_front
from stillhouse.report.front_table import (
    against_references,
    front_lines,
    front_marks,
    hypervolume,
)
from stillhouse.report.gather import Contents, gather
from stillhouse.report.layer_map import draw_map_searches
from stillhouse.report.limits_table import limit_lines
from stillhouse.report.measures import loyalty_note
from stillhouse.report.objectives import TWO
from stillhouse.report.scatter import draw_predictions, draw_proxy_check
from stillhouse.report.subnets import draw_subnets
from stillhouse.report.trials import TrialRow, trained

PAGE_NAME = "report.html"
TEMPLATE_NAME = "page.html.jinja"
NO_REASON = "no reason recorded"
REASONS_SHOWN = 5  # architectures named beside one reason; the table of trials names them all


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Trials that ended for one reason, told by the first of them."""

    state: str
    reason: str
    trials: tuple[TrialRow, ...]

    @property
    def told(self) -> str:
        """The reason, as an example where the trials' own differ in their figures."""
        same = all((trial.reason or NO_REASON) == self.reason for trial in self.trials)
        return self.reason if same else f"for example: {self.reason}"

    @property
    def examples(self) -> str:
        """The first few architectures, and how many more there are."""
        names = [trial.architecture for trial in self.trials[:REASONS_SHOWN]]
        more = len(self.trials) - len(names)
        return "; ".join(names) + (f"; and {more} more" if more else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One line of the cost: its share is of the longest phase, 0..1."""

    name: str
    seconds: float
    share: float


def write_report(run: Path) -> Path:
    """Write `report.html` into a run directory; a reader never sees half of it.

    Args:
        run: A run directory, of a finished or an interrupted run.

    Returns:
        Path of the page.

    Raises:
        RunError: If `run` is not a run directory, or the page cannot be written.
    """
    page = render(gather(run))
    target = run / PAGE_NAME
    try:
        write_text_atomically(target, page)
    except OSError as error:
        raise RunError(
            f"{target} could not be written ({error}). Make room or give write permission, then: "
            f"stillhouse report {run}"
        ) from error
    return target


def render(contents: Contents) -> str:
    """The page as HTML: every text of the run is escaped, and nothing is fetched."""
    environment = Environment(
        loader=PackageLoader("stillhouse.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template(TEMPLATE_NAME)
    return template.render(
        contents=contents,
        say=wording,
        outcome=wording.outcome(contents),
        winner=wording.headline(contents),
        has_students=contents.has_task or _has_unlisted(contents),
        measured_how=wording.measured_how(contents),
        plots=_plots(contents),
        dark=DARK,
        front_lines=front_lines(contents),
        against_references=against_references(contents),
        front_marks=front_marks(contents),
        hypervolume=hypervolume(contents),
        objectives="" if contents.objectives == TWO else wording.objectives(contents.objectives),
        compared_on_search=bool(trained(contents.trials)),
        has_long_texts=contents.has_task
        and any(one.speedup_128 is not None for one in contents.students),
        has_memory=_has_memory(contents),
        limit_lines=limit_lines(contents),
        loyalty_note=loyalty_note([one.measures for one in contents.students]),
        has_labels=any(one.measures.labels for one in contents.students),
        has_rewards=any(trial.reward is not None for trial in contents.trials),
        phases=list(_phases(contents)),
        counts=_counts(contents.trials),
        failures=list(_failures(contents.trials)),
        limits="" if wording.last_search(contents) else wording.limits(contents),
        plotly_js=Markup(get_plotlyjs()),  # the library's own source, no input
    )


def _plots(contents: Contents) -> dict[str, Json]:
    """The figures that there are, by the id of their place on the page."""
    drawn = {
        "front": draw_front(contents),
        "finished": draw_finished(contents),
        "proxy": draw_proxy_check(contents),
        "predictions": draw_predictions(contents),
        "subnets": draw_subnets(contents),
    }
    found = {place: figure for place, figure in drawn.items() if figure is not None}
    maps = draw_map_searches(contents.map_searches)
    return {**found, **maps, **draw_blocks(contents), **draw_shrinking(contents)}


def _has_unlisted(contents: Contents) -> bool:
    """Whether there are students that no search of a family names, as where its file is damaged."""
    if contents.chains is not None:  # which has tables of its own
        return False
    searches = () if contents.family is None else contents.family.searches
    listed = {search.student for search in searches}
    return any(student.rank not in listed for student in contents.students)


def _has_memory(contents: Contents) -> bool:
    """Whether the peak memory of any finished model is known."""
    models = [one.figures for one in contents.students]
    models += [one.figures for one in contents.competitors]
    return any(one.memory_mb is not None for one in models)


def _phases(contents: Contents) -> Iterator[Phase]:
    longest = max(contents.phases_s.values(), default=0.0)
    for name, seconds in contents.phases_s.items():
        yield Phase(name=name, seconds=seconds, share=seconds / longest if longest else 0.0)


def _counts(trials: Sequence[TrialRow]) -> dict[str, int]:
    """Number of trials by state; a repeat counts as a repeat whatever its state."""
    return dict(
        Counter("repeat" if trial.repeat_of is not None else trial.state for trial in trials)
    )


def _failures(trials: Sequence[TrialRow]) -> Iterator[Failure]:
    """Failed, infeasible and stopped trials by reason, failures first, the commonest first.

    Reasons that differ only in their numbers (how far over a limit, at which step) are one.
    """
    grouped: dict[tuple[str, str], list[TrialRow]] = {}
    for trial in trials:
        if trial.state in ("failed", "infeasible", "stopped") and trial.repeat_of is None:
            pattern = re.sub(r"\d+(\.\d+)?", "0", trial.reason)
            grouped.setdefault((trial.state, pattern), []).append(trial)
    for (state, _), rows in sorted(grouped.items(), key=lambda g: (g[0][0], -len(g[1]))):
        yield Failure(state=state, reason=rows[0].reason or NO_REASON, trials=tuple(rows))
