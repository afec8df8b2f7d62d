"""What a search weighs against each other: the objectives by name, and a trial's value of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from stillhouse.errors import SettingsError
from stillhouse.search.trial import Trial

ObjectiveName: TypeAlias = Literal["quality", "latency_ms", "size_mb", "flops_fraction", "reward"]
REWARD = "reward"


@dataclass(frozen=True, slots=True)
class Objective:
    """One thing that a search makes as high or as low as it can.

    Attributes:
        name: As in the settings, and in the study.
        value_of: A trial's value, `None` where it is not known.
        is_higher_better: Whether it is made high.
    """

    name: str
    value_of: Callable[[Trial], float | None]
    is_higher_better: bool = False

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Optuna's word for it."""
        return "maximize" if self.is_higher_better else "minimize"

    def loss_of(self, trial: Trial) -> float:
        """Return what is lower for the better of two trials; the value must be known."""
        value = self.value_of(trial)
        assert value is not None
        return -value if self.is_higher_better else value


def _quality_of(trial: Trial) -> float | None:
    return trial.quality


def _latency_of(trial: Trial) -> float | None:
    return trial.latency_ms


def _recorded(name: str) -> Callable[[Trial], float | None]:
    def value_of(trial: Trial) -> float | None:
        value = trial.attributes.get(name)
        return float(value) if isinstance(value, int | float) else None

    return value_of


QUALITY = Objective("quality", _quality_of, is_higher_better=True)
LATENCY = Objective("latency_ms", _latency_of)
REWARD_ALONE = Objective(REWARD, _recorded(REWARD), is_higher_better=True)
TWO_OBJECTIVES = (QUALITY, LATENCY)

_COSTS = {
    "latency_ms": LATENCY,
    "size_mb": Objective("size_mb", _recorded("size_mb")),
    "flops_fraction": Objective("flops_fraction", _recorded("flops_fraction")),
}
_ORDER: tuple[ObjectiveName, ...] = get_args(ObjectiveName)


def checked_objectives(names: Sequence[ObjectiveName]) -> tuple[ObjectiveName, ...]:
    """Return objectives in the one order that they have everywhere.

    Raises:
        SettingsError: No search could have them; the rule is named.
    """
    told = ",".join(names)
    if len(set(names)) < len(names):
        raise SettingsError(f"search.objectives names one twice: {told}; leave the second out")
    if REWARD in names:
        if len(names) > 1:
            raise SettingsError(
                f"search.objectives is either reward alone, which weighs quality and latency in "
                f"one number, or quality with others, got {told}"
            )
    elif "quality" not in names or len(names) == 1:
        raise SettingsError(
            f"search.objectives must have quality and at least one of {', '.join(_COSTS)}, or be "
            f"{REWARD} alone, got {told or 'none'}"
        )
    return tuple(name for name in _ORDER if name in names)


def objectives_of(names: Sequence[str]) -> tuple[Objective, ...]:
    """Return what a strategy is told, quality first.

    Args:
        names: As `checked_objectives` wants them.
    """
    if REWARD in names:
        return (REWARD_ALONE,)
    return (QUALITY, *(cost for name, cost in _COSTS.items() if name in names))


def front_objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """Return what trials are compared by: the same, and quality and latency under a reward.

    Args:
        names: As for `objectives_of`; none for a run that is older than the choice.
    """
    return TWO_OBJECTIVES if REWARD in names or not names else objectives_of(names)
