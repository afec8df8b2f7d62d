"""Figures as a person reads them, with their units, and how they are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

from stillhouse.report.family import Family
from stillhouse.report.figures import MASKED_WORDS, Figures
from stillhouse.report.gather import Contents, Student
from stillhouse.report.objectives import LATENCY, QUALITY
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
    return MISSING if value is None else signed(value)


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


def signed(value: float, form: str = ".2f") -> str:
    """A number with a minus that is as wide as a digit."""
    return f"{value:{form}}".replace("-", "−")


def plural(word: str, number: int) -> str:
    """A word, or more of them."""
    return word if number == 1 else f"{word}s"
