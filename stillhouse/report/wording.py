"""Figures as a person reads them, and the outcome of a run as a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

from stillhouse.evaluate.agreement import FEWEST_PAIRS, Agreement, Estimate
from stillhouse.report.chains import ENDS_ROW, Chains, Head, Selected
from stillhouse.report.controller import ControllerRecord, Episode
from stillhouse.report.family import Family, Search
from stillhouse.report.figures import MASKED_WORDS, Figures
from stillhouse.report.gather import Contents, Student
from stillhouse.report.objectives import LATENCY, QUALITY
from stillhouse.report.proxy_final import ProxyCheck
from stillhouse.report.references import Reference

MISSING = "–"
THOUSAND, MILLION, BILLION = 1e3, 1e6, 1e9
MINUTE_S, HOUR_S = 60, 3600  # an hour has as many minutes as a minute has seconds
TENTH, TEN, HUNDRED = 0.1, 10, 100
SMALLEST_POINT = 0.05  # of 100, what is still shown with one decimal
PREDICTED = "predicted"
UNITS = {"ms": "ms", "mb": "MB", "s": "s"}


def quality(value: float | None) -> str:
    """Three decimals: a dev set of 1,000 examples resolves no more."""
    return MISSING if value is None else f"{value:.3f}"


def loss(value: float | None) -> str:
    """Four decimals, as the search prints a relation loss."""
    return MISSING if value is None else f"{value:.4f}"


def whole(value: float | None) -> str:
    """A number of things."""
    return MISSING if value is None else f"{value:,.0f}"


def two_decimals(value: float | None) -> str:
    """A share or a correlation, neither in percent."""
    return MISSING if value is None else _signed(value)


def percent(fraction: float | None) -> str:
    """A fraction of 0..1 as percent with one decimal."""
    return MISSING if fraction is None else f"{HUNDRED * fraction:.1f} %"


def milliseconds(value: float | None) -> str:
    """Three significant digits, never in scientific notation."""
    if value is None:
        return MISSING
    rounded = _three_digits(value)
    decimals = 0 if rounded >= HUNDRED else 1 if rounded >= TEN else 2
    if 0 < rounded < TENTH:
        decimals = 2 - math.floor(math.log10(rounded))
    return f"{rounded:.{decimals}f} ms"


def times(factor: float | None) -> str:
    """A speed-up, as in 2.4×."""
    return MISSING if factor is None else f"{factor:.1f}×"


def times_exactly(factor: float) -> str:
    """A speed-up beside one that was asked for: 2.41×."""
    return f"{factor:.2f}×"


def count(value: float | None) -> str:
    """A number of parameters: 352 k, 4.4 M, 1.2 G."""
    if value is None:
        return MISSING
    rounded = _three_digits(value)
    for unit, letter in ((BILLION, "G"), (MILLION, "M"), (THOUSAND, "k")):
        if rounded >= unit:
            scaled = rounded / unit
            return f"{scaled:.0f} {letter}" if scaled >= HUNDRED else f"{scaled:.1f} {letter}"
    return f"{rounded:.0f}"


def millions(value: float | None) -> str:
    """A number of parameters as limits are given: 7.98 M."""
    return MISSING if value is None else f"{value / MILLION:.2f} M"


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def megabytes(value: float | None) -> str:
    """A size on disk or in memory."""
    if value is None:
        return MISSING
    return f"{value:.1f} MB" if value >= 1 else f"{value:.2g} MB"


def file_size(figures: Figures) -> str:
    """The size of the runtime's file beside that of what is served; empty where they are one."""
    if figures.file_mb is None or figures.file_mb == figures.size_mb:
        return ""
    return f"file {megabytes(figures.file_mb)}"


def sizes(figures: Figures) -> str:
    """Size, file and peak memory in one line, as far as known."""
    parts = [] if figures.size_mb is None else [megabytes(figures.size_mb), file_size(figures)]
    if figures.memory_mb is not None:
        parts.append(f"peak memory {megabytes(figures.memory_mb)}")
    return ", ".join(filter(None, parts))


def duration(seconds: float | None) -> str:
    """Seconds as 8.2 s, 3 min 05 s or 2 h 14 min."""
    if seconds is None:
        return MISSING
    if round(seconds, 1) < MINUTE_S:
        return f"{seconds:.1f} s"
    if (whole := round(seconds)) < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S:02d} s"
    minutes = round(seconds / MINUTE_S)
    return f"{minutes // MINUTE_S} h {minutes % MINUTE_S:02d} min"


def moment(text: str) -> str:
    """An ISO 8601 time to the minute; any other text as it is."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return text


def limits(contents: Contents) -> str:
    """The hard limits of the run in words; empty without any."""
    return limits_of(contents.limits)


def limits_of(asked: Mapping[str, float]) -> str:
    """Limits in words; empty without any."""
    return ", ".join(limit(name, value) for name, value in asked.items())


def limit(name: str, value: float) -> str:
    """A limit with its unit taken from the end of its name: latency ≤ 5 ms."""
    if name == "speedup":
        return f"speed-up ≥ {value:g}×"
    if name == "flops_fraction":
        return f"FLOPs ≤ {HUNDRED * value:g} % of the teacher’s"
    if name == "params_m":
        return f"parameters ≤ {value:g} M"
    quantity, _, unit = name.rpartition("_")
    if quantity and unit in UNITS:
        return f"{quantity} ≤ {value:g} {UNITS[unit]}"
    return f"{name} ≤ {value:,.0f}" if value == round(value) else f"{name} ≤ {value:g}"


def auto_class(student: Student) -> str:
    """Name of the class of transformers that loads a student of a task."""
    named = {"tags": "TokenClassification", "spans": "QuestionAnswering"}
    return f"AutoModelFor{named.get(student.task_kind, 'SequenceClassification')}"


def quality_interval(figures: Figures) -> str:
    """The dev quality's 95 % interval and number of examples, as far as known."""
    parts = []
    if figures.quality_low is not None and figures.quality_high is not None:
        parts.append(f"{figures.quality_low:.3f} to {figures.quality_high:.3f}")
    if figures.quality_count is not None:
        parts.append(f"n = {figures.quality_count:,.0f}")
    return ", ".join(parts)


def served(students: Sequence[Student]) -> str:
    """How students of 8 bits are scored, and what they are before; empty where none is."""
    scored = [one for one in students if one.figures.quality_before_8_bits is not None]
    if not scored:
        return ""
    first = scored[0].figures
    before = [f"student {one.rank} {quality(one.figures.quality_before_8_bits)}" for one in scored]
    others = "neither the teacher nor the head that tells masked words is"
    others = others if first.metric == MASKED_WORDS else "the teacher is not"
    return (
        f"Trials and students are scored in {first.served_precision}, as they are served; "
        f"{others}. Before that, in float32, on {first.report_set}: {listed(before)}."
    )


def latency_interval(figures: Figures) -> str:
    """The 95 % interval of the latency, as far as known.

    It is that of a timed median, or that of a prediction, which says so. A latency that was looked
    up or computed has none.
    """
    interval = _interval_ms(figures)
    return f"predicted, {interval}" if interval and figures.latency_how == PREDICTED else interval


def latency_basis(one: Reference) -> str:
    """How a latency is known, and its 95 % interval, as far as known."""
    return ", ".join(filter(None, (one.latency_how, _interval_ms(one))))


def _interval_ms(one: Figures | Reference) -> str:
    low_ms, high_ms = one.latency_low_ms, one.latency_high_ms
    if low_ms is None or high_ms is None or low_ms == high_ms:
        return ""
    return f"{milliseconds(low_ms)} to {milliseconds(high_ms)}"


def prediction(figures: Figures) -> str:
    """What was predicted of a latency that is measured; empty where nothing was."""
    predicted_ms = figures.latency_predicted_ms
    error_fraction = figures.latency_predicted_error_fraction
    if predicted_ms is None or error_fraction is None or figures.latency_how == PREDICTED:
        return ""
    which = "long" if error_fraction > 0 else "short"
    return f"predicted {milliseconds(predicted_ms)}, {percent(abs(error_fraction))} too {which}"


OBJECTIVE_NAMES = {QUALITY: "quality", LATENCY: "latency", "size_mb": "size"}


def objective(name: str) -> str:
    """An objective in words."""
    return "FLOPs" if name == "flops_fraction" else OBJECTIVE_NAMES.get(name, name)


def objective_head(name: str) -> str:
    """The head of a column of its values."""
    return "FLOPs, of the teacher’s" if name == "flops_fraction" else objective(name).capitalize()


def objective_value(name: str, value: float | None) -> str:
    """The value of an objective with its unit."""
    told = {
        QUALITY: quality,
        LATENCY: milliseconds,
        "size_mb": megabytes,
        "flops_fraction": percent,
    }
    return told[name](value) if name in told else two_decimals(value)


def objectives(names: Sequence[str]) -> str:
    """Objectives in words: quality, latency and size."""
    return listed([objective(name) for name in names])


def listed(words: Sequence[str]) -> str:
    """One or more things in a row: a, b and c."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def measured_how(contents: Contents) -> str:
    """How latencies are known, on what and for what, from the first model that tells it."""
    models = [contents.teacher, *(student.figures for student in contents.students)]
    if contents.chains is not None:
        models += [selected.figures for selected in contents.chains.selected]
    known = [model for model in models if model.device or model.workload]
    if not known:
        return ""
    parts = (_latency_how(contents, known), known[0].device, known[0].workload)
    return "; ".join(part for part in parts if part)


def _latency_how(contents: Contents, known: Sequence[Figures]) -> str:
    """How latencies are known, in words; what a profile predicts is told of candidates alone."""
    is_kept = any(model.latency_how == PREDICTED for model in known)
    if not is_kept and all(model.latency_predicted_ms is None for model in known):
        return known[0].latency_how
    chosen_from = contents.trials or contents.family or contents.chains
    told = "predicted for candidates, measured for teacher and students"
    exception = ", but where it says predicted" if is_kept else ""
    return (told if chosen_from else "measured") + exception


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
        f"No student has been chosen yet; {number} {_plural('supernet', number)} trained so far. "
        "Run the same command again to continue this run."
    )


def _chains_outcome(chains: Chains) -> str:
    last = chains.last
    if last is None:
        number = len(chains.blocks)
        return (
            f"No student has been selected yet; {number} {_plural('block', number)} trained so "
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


PROFILED = "predicted, then measured"
CHAIN_LATENCIES = {
    "measured": (
        "Predicted latency is the sum of the operations’, and only proposes: a measured model must "
        "be within its limit itself. Each was timed in turn with the teacher, whose latency here "
        "is the median over the timings of operations: where a machine’s speed drifts, compare "
        "speed-ups, not milliseconds."
    ),
    "analytic": (
        "Predicted latency is the sum of the operations’, and only proposes: a model must be "
        "within its limit as a whole. Nothing was timed: whole models, operations and the teacher "
        "are all told from the chip’s data sheet, without spread."
    ),
    PREDICTED: (
        "Predicted latency is the sum of the operations’, and only proposes: a model must be "
        "within its limit as a whole. That of a whole model is told by the device’s profile, and "
        "its interval is that of 95 % for what a measurement would find; models unlike the "
        "profile’s and the teacher were timed."
    ),
    PROFILED: (
        "Latency in the column of predictions is the sum of the operations’, and only proposes: a "
        "model must be within its limit as a whole, first by the device’s profile and then as it "
        "is measured, in turn with the profile’s reference, whose milliseconds all others are in."
    ),
    "sum of operations": (
        "Latency is the predicted one, the sum of the operations’: the device’s table knows these "
        "and the teacher, and no model as a whole."
    ),
}


def chain_latencies(selected: Sequence[Selected]) -> str:
    """How latencies of selected chains are known, and their losses: one device has all of them."""
    hows = [one.figures.latency_how for one in selected]
    if any(prediction(one.figures) for one in selected):
        hows.insert(0, PROFILED)
    told = next(filter(None, map(CHAIN_LATENCIES.get, hows)), "")
    return " ".join(filter(None, (told, _chain_losses(selected))))


def _chain_losses(selected: Sequence[Selected]) -> str:
    """Which losses are told in 8 bits; empty where students are not served so."""
    precisions = (one.figures.served_precision for one in selected)
    precision = next(filter(None, precisions), "")
    if not precision:
        return ""
    return (
        f"Masked-word losses of complete models are those in {precision}; losses of blocks, and "
        "their sums, are told unquantised."
    )


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


def estimate(value: Estimate) -> str:
    """A rank correlation; never shown without `estimate_basis`."""
    return _signed(value.value)


def estimate_basis(value: Estimate, number: int) -> str:
    """What a rank correlation rests on: its 95 % interval and number of pairs."""
    return f"{_signed(value.low)} to {_signed(value.high)}, n = {number:,}"


def _signed(value: float, form: str = ".2f") -> str:
    return f"{value:{form}}".replace("-", "−")


def silence(agreement: Agreement) -> str:
    """Why there is no rank correlation."""
    return agreement.reason or f"too few to say (n = {agreement.count:,})"


def regret(check: ProxyCheck) -> str:
    """What trusting the proxy cost among the students trained to the end, in points."""
    if check.regret is None:
        return ""
    if not check.regret:
        return "Regret: none. The short training put first what is the best of these in the end."
    lost = HUNDRED * check.regret
    told = "less than 0.1" if lost < SMALLEST_POINT else f"{lost:.1f}"
    return (
        f"Regret: {told} points of {check.metric}. By so much the best of these in the end beats "
        "the student that the short training put first."
    )


def noise_ceiling(check: ProxyCheck) -> str:
    """How to read the agreement beside the proxy's agreement with itself."""
    if check.noise is None:
        return (
            "No trial was judged twice, so it is not known how well any ranking could agree with "
            "a short training."
        )
    if check.noise.agreement.spearman is None:
        return (
            "Too few trials were judged twice to know how well any ranking could agree with a "
            "short training."
        )
    return (
        "The noise ceiling is how well the short training agrees with itself under another seed. "
        "An agreement near it means that the proxy cannot be better without more training; one "
        "far below it, that short and full training disagree on the students themselves. Where the "
        "intervals overlap, this run cannot tell which."
    )


def checked_students(check: ProxyCheck) -> str:
    """How many students were trained briefly and to the end."""
    winners, controls = len(check.of_role("winner")), len(check.of_role("control"))
    return f"{winners} {_plural('winner', winners)} and {controls} {_plural('control', controls)}"


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"


def controller_constants(record: ControllerRecord) -> str:
    """The controller's constants in words, as far as known."""
    parts = [record.constants] if record.constants else []
    if record.planned is not None and record.per_episode is not None:
        parts.append(f"{record.planned} episodes of {record.per_episode} trained candidates")
    if record.passes is not None and record.learning_rate is not None:
        parts.append(f"{record.passes} passes after each at rate {record.learning_rate:g}")
    return ", ".join(parts)


def reward(record: ControllerRecord, metric: str) -> str:
    """The reward's formula; empty where its constants are unknown."""
    if record.target_ms is None or record.alpha is None:
        return ""
    judged = "(1 less hidden-state loss)" if record.quality == "hidden" else metric
    power = _signed(record.alpha, "g")
    return f"{judged} × (latency ÷ {milliseconds(record.target_ms)}) to the power {power}"


def learnt_correlation(record: ControllerRecord) -> str:
    """The rank correlation of predicted and true rewards, or why there is none."""
    count, told = record.correlation_count, record.correlation
    if count is None or count < FEWEST_PAIRS:
        return "too few to say" + ("" if count is None else f" (n = {count})")
    if told is None:
        return f"none, for one side is all the same (n = {count:,})"
    return f"{estimate(told)} (95 % interval {estimate_basis(told, count)})"


def episode_basis(episode: Episode) -> str:
    """How many pairs an episode's rank correlation rests on; empty without one."""
    return "" if episode.correlation is None else f"n = {len(episode.predictions)}"


def runners_up(number: int) -> str:
    """How many come next, and what they are."""
    return f"{number} {'runner-up' if number == 1 else 'runners-up'} within the same limits"


def flops_basis(family: Family) -> str:
    """What the FLOPs of a family count; they are not those of the paper's formula."""
    at = "" if family.flops_length is None else f" at length {family.flops_length:,}"
    return (
        f"FLOPs are the true ones of the bare encoder with its pooler{at}, two per multiply-add, "
        "and not those of the paper’s formula."
    )


OPERATION_NAMES = {"M": "attention", "F": "feed-forward", ENDS_ROW: "embeddings, pooler"}


def operation(kind: str) -> str:
    """An operation of a chain in words; empty for one that this version does not know."""
    if kind[:1] == "S" and kind[1:].isdecimal():
        return f"convolution of {kind[1:]}"
    return OPERATION_NAMES.get(kind, "")


def head_origin(head: Head | None) -> str:
    """Where the teacher's head for masked words comes from; empty if that is unknown."""
    if head is None or head.is_trained_here is None:
        return ""
    if head.is_trained_here:
        return (
            "The teacher had no head for masked words: one was trained for this run, while the "
            "teacher’s body stayed as it is."
        )
    return "The teacher brought its own head for masked words."


def shrinking_of(settings: Sequence[tuple[str, str]]) -> str:
    """How the candidates of the blocks were thinned out, as far as known."""
    said = dict(settings)
    parts = []
    if said.get("blocks.bins_by") == "size":
        parts.append("Bins are by size alone; latency plays its part when students are selected.")
    elif "blocks.bins_by" in said:
        parts.append(
            "A candidate was dropped at once if its latency lies in another bin than its size."
        )
    if {"blocks.warm_epochs", "blocks.sampled", "blocks.kept"} <= set(said):
        parts.append(
            f"Warm epochs, without a comparison: {said['blocks.warm_epochs']}. Then the worse half "
            f"of up to {said['blocks.sampled']} candidates of each bin went after every epoch, "
            f"until {said['blocks.kept']} were left in it."
        )
    return " ".join(parts)
