"""Measures beside quality: loyalty to the teacher, and how well each label is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stillhouse.report.fields import Fields, mapping, mappings, number, text

LOGARITHMS = {"e": "natural logarithms", "2": "logarithms to base 2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share, 0..1, with its 95 % interval, as far as known."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def interval(self) -> str:
        """The interval in words; empty where it is not known."""
        if self.low is None or self.high is None:
            return ""
        return f"{self.low:.3f} to {self.high:.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelLine:
    """How well a label is told, shares 0..1, and how often it occurs."""

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What is known of a student beside its quality; `base` is that of the logarithm."""

    label_loyalty: Share
    probability_loyalty: Share
    base: str
    count: float | None
    labels: tuple[LabelLine, ...]

    @property
    def has_loyalty(self) -> bool:
        """Whether there is any figure of loyalty."""
        return self.label_loyalty.value is not None


def read_measures(fields: Fields) -> Measures:
    """What a student's metrics.json tells."""
    told = mapping(fields, "loyalty")
    return Measures(
        label_loyalty=_share(told, "label"),
        probability_loyalty=_share(told, "probability"),
        base=text(told, "base"),
        count=number(told, "count"),
        labels=tuple(
            LabelLine(
                label=text(row, "label"),
                precision=number(row, "precision"),
                recall=number(row, "recall"),
                f1=number(row, "f1"),
                support=number(row, "support"),
            )
            for row in mappings(fields, "labels")
        ),
    )


def loyalty_note(measures: Sequence[Measures]) -> str:
    """What the two loyalties are; empty where no student has any."""
    bases = dict.fromkeys(one.base for one in measures if one.has_loyalty)
    if not bases:
        return ""
    logarithms = " and ".join(LOGARITHMS.get(base, f"base {base}") for base in bases)
    return (
        "Label loyalty is the share of dev examples (words, questions) that a student answers as "
        "the teacher does, right or wrong; probability loyalty is 1 less the Jensen-Shannon "
        f"distance of their distributions, by {logarithms}. Below each stands its 95 % interval."
    )


def _share(fields: Fields, name: str) -> Share:
    value, low, high = (number(fields, f"{name}{end}") for end in ("", "_low", "_high"))
    return Share(value=value, low=low, high=high)
