"""What models of several runs cost, on one scale, and which of them stay within a limit.

Two measurements of one model on a busy machine differ more than two methods do. Each run times its
students in turn with its teacher, so where the teachers are known to be of one shape, latencies are
told as if the teacher took as long in every run as in the first one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from stillhouse.errors import SettingsError
from stillhouse.report import wording
from stillhouse.report.comparing import ComparedRun, Method, Model
from stillhouse.report.trials import TrialRow

CostName: TypeAlias = Literal["latency_ms", "size_mb", "flops_fraction", "params_m"]
COSTS: tuple[CostName, ...] = get_args(CostName)
LIMITS = ("latency_ms", "speedup", "size_mb", "memory_mb", "flops_fraction", "params_m")
OF_DEVICE = ("latency_ms", "speedup", "memory_mb")
"""Limits that are told on a device."""
MILLION = 1e6
USUAL_SPEEDUPS = (2.0, 4.0, 8.0)
USUAL_SHARES = (0.5, 0.25)
"""Of the teacher's cost, where neither the user nor a run gave a limit."""
ROUNDING = 1e-12
EQUAL = 1e-3
"""Clocks that differ by a smaller fraction are one."""

Limit: TypeAlias = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostScale:
    """The cost that quality is set against.

    Attributes:
        name: Which cost.
        reference: Worst cost that counts for the hypervolume: the teacher's, of several the most.
        teacher_ms: What the teacher takes on the common clock; None where latencies are as told.
        told: The scale in words; empty where nothing needs to be said.
    """

    name: CostName
    reference: float | None
    teacher_ms: float | None
    told: str

    def of_model(self, model: Model) -> float | None:
        """The cost of a finished model."""
        figures = model.figures
        if self.name == "latency_ms":
            return self.timed(model, figures.latency_ms)
        known = {
            "size_mb": figures.size_mb,
            "flops_fraction": model.flops_fraction,
            "params_m": _millions(figures.parameters),
        }
        return known[self.name]

    def timed(self, model: Model, latency_ms: float | None) -> float | None:
        """A latency of a finished model, or an end of its interval, on the common clock."""
        if self.teacher_ms is None or latency_ms is None or not model.teacher_latency_ms:
            return latency_ms
        return latency_ms * self.teacher_ms / model.teacher_latency_ms

    def of_trial(self, run: ComparedRun, row: TrialRow) -> float | None:
        """The cost of a trial of a run."""
        if self.name == "latency_ms":
            own_ms = teacher_latency_ms(run)
            if self.teacher_ms is None or row.latency_ms is None or not own_ms:
                return row.latency_ms
            return row.latency_ms * self.teacher_ms / own_ms
        known = {
            "size_mb": row.size_mb,
            "flops_fraction": row.flops_fraction,
            "params_m": _millions(row.parameters),
        }
        return known[self.name]


def _millions(count: float | None) -> float | None:
    return None if count is None else count / MILLION


def teacher_latency_ms(run: ComparedRun) -> float | None:
    """What the teacher took in a run's search, as its hypervolume is told from; else at its end."""
    known = run.contents.hypervolume
    if known is not None and "latency_ms" in known.costs:
        return known.costs["latency_ms"]
    return run.contents.teacher.latency_ms


def cost_scale(methods: Sequence[Method], name: CostName) -> CostScale:
    """Finds the scale that costs of all runs have in common."""
    runs = [run for method in methods for run in method.runs]
    if name != "latency_ms":
        return CostScale(name=name, reference=_teacher_cost(runs, name), teacher_ms=None, told="")
    clocks = [teacher_latency_ms(run) for run in runs]
    known_ms = [clock for clock in clocks if clock]
    if why := _no_common_clock(runs, clocks):
        reference = max(known_ms, default=None)
        told = f"Latencies are as each run told them, for {why}."
        return CostScale(name=name, reference=reference, teacher_ms=None, told=told)
    first_ms = known_ms[0]
    is_one = max(known_ms) - min(known_ms) <= EQUAL * first_ms
    told = (
        f"The teacher took {wording.milliseconds(min(known_ms))} to "
        f"{wording.milliseconds(max(known_ms))} in these runs; latencies are told as if it had "
        f"taken {wording.milliseconds(first_ms)} in all of them, as in the first."
    )
    return CostScale(
        name=name, reference=first_ms, teacher_ms=first_ms, told="" if is_one else told
    )


def _no_common_clock(runs: Sequence[ComparedRun], clocks: Sequence[float | None]) -> str:
    """Why latencies cannot be told by the teacher's; empty where they can."""
    shapes = {run.contents.teacher.architecture for run in runs}
    if len(shapes) > 1:
        return "the teachers are not known to be of one shape"
    if "" in shapes:
        return "the shape of the teachers is not known"
    if not all(clocks):
        return "not every run tells its teacher's latency"
    timed = [one for run in runs for one in run.models if one.figures.latency_ms is not None]
    if not all(one.teacher_latency_ms for one in timed):
        return "not every student was timed in turn with its teacher"
    return ""


def _teacher_cost(runs: Sequence[ComparedRun], name: CostName) -> float | None:
    """The most that a teacher has of a cost that no device tells; of FLOPs its own are all."""
    if name == "flops_fraction":
        return 1.0
    teachers = [run.contents.teacher for run in runs]
    known = [one.size_mb if name == "size_mb" else _millions(one.parameters) for one in teachers]
    return max((value for value in known if value is not None), default=None)


def cost_name(name: str) -> CostName:
    """Reads the name of a cost.

    Raises:
        SettingsError: If there is none of that name.
    """
    for known in COSTS:
        if name == known:
            return known
    raise SettingsError(f"--by must be one of {', '.join(COSTS)}, got {name!r}")


def check_limits(limits: Sequence[Limit]) -> None:
    """Refuses limits that there are none of.

    Raises:
        SettingsError: If one is empty, unknown, infinite or not above 0.
    """
    for limit in limits:
        for name, value in limit.items():
            if name not in LIMITS:
                raise SettingsError(f"a limit must be on {', '.join(LIMITS)}, got {name!r}")
            if not 0 < value < math.inf:
                raise SettingsError(f"the limit {name} must be a number above 0, got {value:g}")
        if not limit:
            raise SettingsError("a limit such as latency_ms=5 is needed, got none")


def usual_limits(methods: Sequence[Method], scale: CostScale) -> list[Limit]:
    """The limits to compare at where none is given: the runs' own, else shares of the teacher's."""
    own = [run.contents.limits for method in methods for run in method.runs]
    kept = [{name: value for name, value in limits.items() if name in LIMITS} for limits in own]
    kept = [
        limits for limits in kept if limits and (scale.name == "latency_ms" or _is_free(limits))
    ]
    found = list({tuple(sorted(limits.items())): limits for limits in kept}.values())
    if found:
        return list(found)
    if scale.name == "latency_ms":
        return [{"speedup": factor} for factor in USUAL_SPEEDUPS]
    if scale.reference is None:
        return []
    return [{scale.name: share * scale.reference} for share in USUAL_SHARES]


def _is_free(limits: Limit) -> bool:
    """Whether no device has a say in limits."""
    return not any(name in OF_DEVICE for name in limits)


def keeps(model: Model, limit: Limit, scale: CostScale) -> bool:
    """Whether a model is within a limit, with the far end of its latency's interval."""
    return all(_keeps(model, name, bound, scale) for name, bound in limit.items())


def _keeps(model: Model, name: str, bound: float, scale: CostScale) -> bool:
    figures, teacher_ms = model.figures, model.teacher_latency_ms
    high_ms = figures.latency_high_ms or figures.latency_ms
    if name == "speedup":
        speedup = teacher_ms / high_ms if teacher_ms and high_ms else None
        return speedup is not None and speedup >= bound * (1 - ROUNDING)
    used = {
        "latency_ms": scale.timed(model, high_ms),
        "size_mb": figures.size_mb,
        "memory_mb": figures.memory_mb,
        "flops_fraction": model.flops_fraction,
        "params_m": _millions(figures.parameters),
    }[name]
    return used is not None and used <= bound * (1 + ROUNDING)


def cost_told(name: str, value: float | None) -> str:
    """A cost with its unit."""
    if name == "params_m":
        return wording.MISSING if value is None else f"{value:.2f} M"
    return wording.objective_value(name, value) if value is not None else wording.MISSING


def cost_head(name: CostName) -> str:
    """The head of a column of costs."""
    return "Parameters" if name == "params_m" else wording.objective_head(name)
