"""Render what a run directory holds as one self-contained page, written atomically."""

from __future__ import annotations

from pathlib import Path

from stillhouse.errors import RunError
from stillhouse.files import write_text_atomically
from stillhouse.report import chain_wording, check_wording, content, outcome, wording
from stillhouse.report.block_plots import draw_blocks, draw_shrinking
from stillhouse.report.cost_lines import amounts, basis, phases
from stillhouse.report.drawing import MOST_DRAWN, Json
from stillhouse.report.failures import failures, states
from stillhouse.report.front import draw_finished, draw_front
from stillhouse.report.front_table import (
    against_references,
    front_lines,
    front_marks,
    hypervolume,
)
from stillhouse.report.gather import Contents, gather
from stillhouse.report.latency_limit import limit_basis
from stillhouse.report.layer_map import draw_map_searches
from stillhouse.report.limits_table import limit_lines
from stillhouse.report.measures import loyalty_note
from stillhouse.report.objectives import TWO
from stillhouse.report.scatter import draw_predictions, draw_proxy_check
from stillhouse.report.subnets import draw_subnets
from stillhouse.report.templates import own_source, template
from stillhouse.report.trial_table import trial_table
from stillhouse.report.trials import trained

PAGE_NAME = "report.html"
TEMPLATE_NAME = "page.html.jinja"


def write_report(run: Path) -> Path:
    """Write `report.html` into a run directory; a reader never sees half of it.

    Args:
        run: A run directory, of a finished or an interrupted run.

    Returns:
        Path of the page.

    Raises:
        RunError: If `run` is not a run directory, or the page cannot be written.
    """
    page = render(gather(run)).encode("utf-8", "replace").decode("utf-8")  # halves of surrogates
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
    return template(TEMPLATE_NAME).render(
        contents=contents,
        say=wording,
        say_of_chains=chain_wording,
        say_of_checks=check_wording,
        outcome=outcome.outcome(contents),
        winner=outcome.headline(contents),
        has_students=contents.has_task or _has_unlisted(contents),
        measured_how=wording.measured_how(contents),
        plots=_plots(contents),
        front_lines=front_lines(contents),
        against_references=against_references(contents),
        front_marks=front_marks(contents),
        thinned=_thinned(contents),
        limit_basis=limit_basis(contents),
        hypervolume=hypervolume(contents),
        objectives="" if contents.objectives == TWO else wording.objectives(contents.objectives),
        compared_on_search=bool(trained(contents.trials)),
        has_long_texts=contents.has_task
        and any(one.speedup_128 is not None for one in contents.students),
        has_memory=_has_memory(contents),
        limit_lines=limit_lines(contents),
        loyalty_note=loyalty_note([one.measures for one in contents.students]),
        has_labels=any(one.measures.labels for one in contents.students),
        trial_table=trial_table(contents),
        phases=list(phases(contents.phases_s)),
        amounts=amounts(contents.cost),
        cost_basis=basis(contents.cost),
        counts=states(contents.trials),
        failures=list(failures(contents.trials)),
        limits="" if outcome.last_search(contents) else wording.limits(contents),
        axes_js=own_source("axes.js"),
        **content.variables(contents),
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
    blocks = {**draw_blocks(contents), **draw_shrinking(contents)}
    return {**found, **maps, **blocks, **content.figures(contents)}


def _thinned(contents: Contents) -> str:
    """Says that a plot does not show all trials at once, where they may be too many for that."""
    if len(trained(contents.trials)) <= MOST_DRAWN:
        return ""
    return (
        f"Of many trials at most {MOST_DRAWN:,} are drawn at a time; zoom in for the others, which "
        "the table holds as well."
    )


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
