"""Parts of a search on a task that are handed over as objects, instead of named in settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from stillhouse.errors import RunError, SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from stillhouse.device.latency import Device
    from stillhouse.distill.terms import Term
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.settings import RunSettings
    from stillhouse.search.strategy import Strategy
    from stillhouse.space.search_space import SearchSpace

_STATE = "own_parts"
_RECIPES = ("plain", "kd-nas")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnParts:
    """Parts of your own for a search on a task; each stands for what settings would name.

    Attributes:
        strategy: Makes the strategy from the search space and the run's seed.
        terms: Makes further terms of the objective from the configurations of student and teacher,
            beside those of the section `distill`; fresh ones at each call.
        space: The search space, before the size rule (`space.size_fraction`).
        device: Tells the latencies; the workload is still that of the section `device`.
    """

    strategy: Callable[[SearchSpace, int], Strategy] | None = None
    terms: Callable[[PreTrainedConfig, PreTrainedConfig], Sequence[Term]] | None = None
    space: SearchSpace | None = None
    device: Device | None = None

    def given(self) -> dict[str, str]:
        """Tells what was handed over: the name of its function, or of its class."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _named(part) for name, part in parts.items() if part is not None}

    def terms_of(self, student: PreTrainedConfig, teacher: PreTrainedConfig) -> list[Term]:
        """Makes the further terms of one training; none where none were handed over."""
        return [] if self.terms is None else list(self.terms(student, teacher))


NO_PARTS = OwnParts()


def check_own_parts(own: OwnParts, settings: RunSettings) -> None:
    """Refuses parts that a recipe would not use.

    Raises:
        SettingsError: If there are any, and which.
    """
    given = ", ".join(own.given())
    if given and settings.recipe not in _RECIPES:
        raise SettingsError(
            f"own parts ({given}) are for searches on a task ({', '.join(_RECIPES)}), and "
            f"{settings.recipe} has no use for them: leave them out, or take another recipe"
        )
    if own.strategy is not None and settings.search.strategy == "controller":
        raise SettingsError(
            "an own strategy cannot stand beside search.strategy = controller, which has a reward "
            "and episodes of its own: take recipe plain, or set search.strategy to random"
        )


def refuse_other_parts(run: RunDirectory, own: OwnParts) -> None:
    """Compares the parts, by name, with those that the run began with, and keeps them.

    Raises:
        RunError: If they are others. That one of the same name does the same is the user's word.
    """
    given = own.given()
    before = given if run.is_untouched else run.state().get(_STATE, {})
    if before != given:
        raise RunError(
            f"run directory {run.path} was made with {_listed(before)}, now with {_listed(given)}: "
            "give the same to resume it, or another directory with run="
        )
    if given:
        run.update_state({_STATE: given})


def _listed(parts: dict[str, str]) -> str:
    said = ", ".join(f"{name} {part}" for name, part in parts.items())
    return f"own parts ({said})" if said else "no own parts"


def _named(part: object) -> str:
    return str(getattr(part, "__qualname__", type(part).__qualname__))
