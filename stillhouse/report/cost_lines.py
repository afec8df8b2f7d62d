"""What a run cost, in words: its phases, its tokens, and its energy with how that was obtained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from stillhouse.report.cost import Cost
from stillhouse.report.wording import count, duration, moment

KILO = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One line of the cost: its share is of the longest phase, 0..1."""

    name: str
    seconds: float
    share: float


def phases(phases_s: Mapping[str, float]) -> Iterator[Phase]:
    """The phases in their order, with their seconds."""
    longest = max(phases_s.values(), default=0.0)
    for name, seconds in phases_s.items():
        yield Phase(name=name, seconds=seconds, share=seconds / longest if longest else 0.0)


def amounts(cost: Cost) -> list[tuple[str, str]]:
    """What is known of a cost, as names with amounts in words."""
    told = [
        ("worked", duration(cost.seconds) if cost.seconds is not None else ""),
        ("trained on", f"{count(cost.tokens)} tokens" if cost.tokens else ""),
        ("energy", _in_kilos(cost.energy_wh, "Wh")),
        ("CO₂", _in_kilos(cost.co2_g, "g")),
    ]
    return [(name, amount) for name, amount in told if amount]


def basis(cost: Cost) -> str:
    """What the amounts leave out, and how the energy was obtained; empty where nothing is known."""
    return " ".join(told for told in (_part(cost), _energy(cost)) if told)


def _part(cost: Cost) -> str:
    if not cost.is_partial:
        return ""
    since = f" since {moment(cost.since)}" if cost.since else " of its later part"
    return (
        f"These amounts are only those{since}: the run began before costs were counted. "
        "Its phases are told in full."
    )


def _energy(cost: Cost) -> str:
    if cost.energy_wh is None:
        return ""
    energy = f"The energy is {cost.how}: of processors, their memory and the GPUs in use."
    if cost.co2_g is None:
        return energy
    return f"{energy} The CO₂ is an estimate from it{_factor(cost.co2_g, cost.energy_wh)}."


def _factor(co2_g: float, energy_wh: float) -> str:
    """Grams per Wh, which are kg per kWh; the shares in it are those of `device.energy`."""
    if not energy_wh:
        return ""
    return (
        f", at {co2_g / energy_wh:.3f} kg per kWh: what data centres take over their machines, "
        "and the mean of the electricity of the USA (Strubell et al. 2019)"
    )


def _in_kilos(amount: float | None, unit: str) -> str:
    """An amount with three digits, from 1,000 on in thousands; empty where it is unknown."""
    if amount is None:
        return ""
    thousands = amount >= KILO
    shown = amount / KILO if thousands else amount
    whole = shown >= KILO
    return f"{shown:,.0f} k{unit}" if whole else f"{shown:.3g} {'k' if thousands else ''}{unit}"
