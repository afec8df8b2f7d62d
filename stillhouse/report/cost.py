"""What a run cost, as run.json tells it."""

from __future__ import annotations

from dataclasses import dataclass

from stillhouse.report.fields import Fields, number, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What run.json tells under `cost`; None is what nobody counted.

    Attributes:
        seconds: Of all processes that worked on the run, killed ones among them.
        tokens: That models were trained on.
        energy_wh: Of processors, their memory and GPUs.
        co2_g: Of that energy, a data centre's share included.
        how: The energy was obtained.
        is_partial: Whether the run began before costs were counted, so that this is less than all.
        since: When they were counted from, then.
    """

    seconds: float | None
    tokens: float | None
    energy_wh: float | None
    co2_g: float | None
    how: str
    is_partial: bool
    since: str

    @property
    def all_tokens(self) -> float | None:
        """Tokens of the whole run; None also where a part of it was not counted."""
        return None if self.is_partial else self.tokens


def read_cost(fields: Fields) -> Cost:
    """The section `cost` of run.json; energy without how it was obtained is unknown."""
    how = text(fields, "how")
    return Cost(
        seconds=number(fields, "seconds"),
        tokens=number(fields, "tokens"),
        energy_wh=number(fields, "energy_wh") if how else None,
        co2_g=number(fields, "co2_g") if how else None,
        how=how,
        is_partial=fields.get("is_partial") is True,
        since=text(fields, "since"),
    )
