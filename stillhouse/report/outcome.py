"""The outcome of a run as a sentence, and the student that a page begins with."""

from __future__ import annotations

from collections.abc import Sequence

from stillhouse.report.chains import Chains, Selected
from stillhouse.report.family import Search
from stillhouse.report.figures import Figures
from stillhouse.report.gather import Contents, Student
from stillhouse.report.wording import (
    limits,
    limits_of,
    listed,
    loss,
    millions,
    milliseconds,
    percent,
    plural,
    quality,
    times,
    whole,
)


def winner(students: Sequence[Student]) -> Student | None:
    """The first in rank that meets the limits; without one, the first in rank.

    Ranks were given on the search-validation set, so dev chooses nothing here.
    """
    within = [student for student in students if student.within_limit is not False]
    return next(iter(within or students), None)


def headline(contents: Contents) -> Student | None:
    """The student that a page begins with: the winner, or what the last search of a family chose.

    Students of a family were chosen for different limits, so none of them wins.
    """
    if contents.has_task or contents.is_general:
        return winner(contents.students)
    last = last_search(contents)
    return None if last is None else contents.chosen(last)


def last_search(contents: Contents) -> Search | None:
    """The latest search of a family."""
    searches = () if contents.family is None else contents.family.searches
    return next(reversed(searches), None)


def outcome(contents: Contents) -> str:
    """Tells what the run found, or how far it came."""
    if contents.chains is not None:
        return _chains_outcome(contents.chains)
    if contents.is_general:
        return _text_outcome(contents)
    if not contents.has_task:
        return _family_outcome(contents)
    best = winner(contents.students)
    if best is None:
        return _unfinished(contents)
    figures = best.figures
    sentence = f"Student {best.rank}"
    if figures.architecture:
        sentence += f" ({figures.architecture})"
    if best.quality_fraction is not None:
        sentence += f" keeps {percent(best.quality_fraction)} of the teacher’s {contents.metric}"
        sentence += f" ({quality(figures.quality)} of {quality(best.teacher_quality)}"
        sentence += f" on {contents.report_set})"
    else:
        sentence += (
            f" reaches {contents.metric} {quality(figures.quality)} on {contents.report_set}"
        )
    sentence += f" and answers in {milliseconds(figures.latency_ms)}"
    if best.speedup is not None:
        sentence += f", {times(best.speedup)} as fast as the teacher"
    return sentence + _limit_clause(contents, best) + "."


def _text_outcome(contents: Contents) -> str:
    student = winner(contents.students)
    if student is None:
        return (
            "No student has been distilled in full yet. Run the same command again to continue "
            "this run."
        )
    found = f"Student {student.rank}"
    found += f" ({student.figures.architecture})" if student.figures.architecture else ""
    learnt = student.on_text
    if learnt is None:  # of another version
        return f"{found} is distilled{_costs(student.figures, None, student.speedup)}."
    found += " has learnt from plain text"
    found += "" if learnt.tokens is None else f", {whole(learnt.tokens)} tokens"
    found += _costs(student.figures, learnt.flops_fraction, student.speedup)
    moved = [
        f"{name} {loss(learnt.before.get(name))} to {loss(value)}"
        for name, value in learnt.after.items()
    ]
    return (
        f"{found}. Losses on held-out text, before and after: {listed(moved)}. Teacher layers by "
        f"student layer, counted from 1 (0 is none): {learnt.layer_map}. Only fine-tuning shows "
        "what it is worth on a task."
    )


def _family_outcome(contents: Contents) -> str:
    last = last_search(contents)
    if contents.family is None or last is None:
        return _unsearched(contents)
    number = len(contents.family.searches)
    found = "The search" if number == 1 else f"{number} searches have been made; the last"
    found += f" for {limits_of(last.limits)}" if last.limits else " without a limit"
    found += " chose a student" if last.student is None else f" chose student {last.student}"
    if last.best.architecture:
        found += f" ({last.best.architecture})"
    found += _family_costs(contents, last)
    return f"{found}. Only fine-tuning shows what it is worth on a task."


def _family_costs(contents: Contents, search: Search) -> str:
    """What a chosen student costs, after a colon, as far as known."""
    best, student = search.best, contents.chosen(search)
    parts = []
    if best.parameters is not None:
        parts.append(f"{millions(best.parameters)} parameters")
    if best.flops_fraction is not None:
        parts.append(f"{percent(best.flops_fraction)} of the teacher’s FLOPs")
    if student is not None and student.figures.latency_ms is not None:
        parts.append(f"answers in {milliseconds(student.figures.latency_ms)}")
    if student is not None and student.speedup is not None:
        parts.append(f"{times(student.speedup)} as fast as the teacher")
    return ": " + ", ".join(parts) if parts else ""


def _unsearched(contents: Contents) -> str:
    if contents.students:
        return (
            f"Students of a family: {len(contents.students)}. What they were chosen for cannot be "
            "read."
        )
    number = 0 if contents.family is None else len(contents.family.supernets)
    return (
        f"No student has been chosen yet; {number} {plural('supernet', number)} trained so far. "
        "Run the same command again to continue this run."
    )


def _chains_outcome(chains: Chains) -> str:
    last = chains.last
    if last is None:
        number = len(chains.blocks)
        return (
            f"No student has been selected yet; {number} {plural('block', number)} trained so "
            "far. Run the same command again to continue this run."
        )
    number = len(chains.selected)
    found = (
        "One student is selected" if number == 1 else f"{number} students are selected; the last"
    )
    found += f" for {limits_of(last.limits)}" if last.limits else ""
    found += f" is number {last.number}" if number > 1 else ""
    found += f" ({last.best.architecture})" if last.best.architecture else ""
    costs = _costs(last.figures, last.flops_fraction, last.speedup)
    return f"{found}{costs}. {_chain_worth(chains, last)}"


def _costs(figures: Figures, flops_fraction: float | None, speedup: float | None) -> str:
    """What a student without a task costs, after a colon, as far as known."""
    parts = []
    if figures.parameters is not None:
        parts.append(f"{millions(figures.parameters)} parameters")
    if flops_fraction is not None:
        parts.append(f"{percent(flops_fraction)} of the teacher’s FLOPs")
    if figures.latency_ms is not None:
        parts.append(f"answers in {milliseconds(figures.latency_ms)}")
    if speedup is not None:
        parts.append(f"{times(speedup)} as fast as the teacher")
    return ": " + ", ".join(parts) if parts else ""


def _chain_worth(chains: Chains, selected: Selected) -> str:
    trained = chains.trained(selected.number)
    if trained is None:
        return "It is not pre-trained yet."
    precision = selected.figures.served_precision
    right = (
        f"Pre-trained, it tells {percent(trained.score.accuracy_fraction)} of masked words right"
        f"{f' in {precision}' if precision else ''}"
    )
    if chains.head is None:
        return f"{right}."
    return f"{right} (teacher {percent(chains.head.score.accuracy_fraction)})."


def _limit_clause(contents: Contents, student: Student) -> str:
    if not contents.limits or student.within_limit is None:
        return ""
    if student.within_limit:
        return f"; that meets the limit ({limits(contents)})"
    return f"; that does not meet the limit ({limits(contents)}), and no student does"


def _unfinished(contents: Contents) -> str:
    complete = sum(trial.state == "complete" for trial in contents.trials)
    return (
        f"No student has been distilled in full yet; {complete} of {len(contents.trials)} recorded "
        "trials are complete. Run the same command again to continue this run."
    )
