"""Methods side by side: everything that a comparison tells, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stillhouse.evaluate.differences import Difference
from stillhouse.report.comparability import (
    refuse_incomparable,
    search_seconds,
    spent,
    unequal,
)
from stillhouse.report.comparing import Method, differing, methods_of, read_runs
from stillhouse.report.comparison_costs import (
    CostScale,
    Limit,
    check_limits,
    cost_name,
    cost_scale,
    usual_limits,
)
from stillhouse.report.comparison_table import Cell, Line, quality_at, tested_pairs
from stillhouse.report.comparison_volume import Volumes, volumes_of, why_no_equal_budget
from stillhouse.report.figures import report_set_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one method cost: for each run of it one figure.

    Attributes:
        method: Its name.
        candidates: Trained candidates.
        search_s: Time that these took.
        final_s: Time of the final distillations, where it was noted.
        wall_s: Time of the whole run, where it was noted.
        tokens: That models were trained on, where they were counted.
    """

    method: str
    candidates: tuple[int, ...]
    search_s: tuple[float, ...]
    final_s: tuple[float | None, ...]
    wall_s: tuple[float | None, ...]
    tokens: tuple[float | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two or more methods side by side.

    Attributes:
        methods: In the order in which they were given; the first is what others are compared with.
        scale: The cost that quality is set against.
        remarks: Sentences on what is not equal between the methods.
        lines: Quality at limits.
        volumes: Hypervolumes; None where no reference is known.
        spent: What each method cost.
        differing: Names of the settings that differ.
    """

    methods: tuple[Method, ...]
    scale: CostScale
    remarks: tuple[str, ...]
    lines: tuple[Line, ...]
    volumes: Volumes | None
    spent: tuple[Spent, ...]
    differing: tuple[str, ...]

    @property
    def metric(self) -> str:
        """What quality is."""
        return self.methods[0].runs[0].metric

    @property
    def report_set(self) -> str:
        """Name of what finished models are told on."""
        return report_set_of(self.metric)

    @property
    def tested(self) -> int:
        """How many differences the table tests, each pair of students once."""
        return len(tested_pairs(self.lines))

    def to_dict(self) -> dict[str, Any]:
        """Gives the comparison as plain data, for scripts."""
        return {
            "metric": self.metric,
            "cost": self.scale.name,
            "remarks": list(self.remarks),
            "methods": [
                {
                    "name": method.name,
                    "runs": [str(run.path) for run in method.runs],
                    "seeds": [run.seed for run in method.runs],
                }
                for method in self.methods
            ],
            "quality": [
                {"limit": dict(line.limit), "methods": [_plain_cell(cell) for cell in line.cells]}
                for line in self.lines
            ],
            "tested": self.tested,
            "hypervolume": None if self.volumes is None else _plain_volumes(self.volumes),
            "spent": [asdict(one) for one in self.spent],
            "differing_settings": list(self.differing),
        }


def compare(
    given: Sequence[str], *, limits: Sequence[Limit] = (), by: str = "latency_ms"
) -> Comparison:
    """Reads runs and sets their methods side by side.

    Args:
        given: Run directories, each perhaps with a name: `kd-nas=runs/a`. Runs of one name, or
            without names of the same settings but the seed, are seeds of one method.
        limits: At which quality is compared; none means the runs' own, else a few speed-ups.
        by: The cost that quality is set against.

    Raises:
        RunError: If a run cannot be read, or runs cannot stand beside each other.
        SettingsError: If there are fewer than two methods, or a limit is impossible.
    """
    check_limits(limits)
    name = cost_name(by)
    runs = read_runs(given)
    refuse_incomparable(runs, name, limits)
    methods = methods_of(runs)
    scale = cost_scale(methods, name)
    wanted = list(limits) or usual_limits(methods, scale)
    volumes = volumes_of(methods, scale)
    no_volumes = why_no_equal_budget(methods, volumes)
    return Comparison(
        methods=methods,
        scale=scale,
        remarks=tuple(filter(None, [*unequal(methods, no_volumes=no_volumes), scale.told])),
        lines=quality_at(methods, wanted, scale),
        volumes=volumes,
        spent=tuple(map(_spent, methods)),
        differing=tuple(differing(runs)),
    )


def _spent(method: Method) -> Spent:
    runs = method.runs
    return Spent(
        method=method.name,
        candidates=tuple(len(spent(run.contents.trials)) for run in runs),
        search_s=tuple(search_seconds(run) for run in runs),
        final_s=tuple(run.contents.phases_s.get("final") for run in runs),
        wall_s=tuple(run.contents.wall_s for run in runs),
        tokens=tuple(run.contents.cost.all_tokens for run in runs),
    )


def _plain_cell(cell: Cell) -> dict[str, Any]:
    return {
        "method": cell.method,
        "students": [None if one is None else one.name for one in cell.chosen],
        "architectures": [None if one is None else one.figures.architecture for one in cell.chosen],
        "quality": cell.quality,
        "low": cell.low,
        "high": cell.high,
        "cost": cell.cost,
        "difference": _plain_difference(cell.difference),
        "behind_teacher": _plain_difference(cell.behind),
        "p_corrected": cell.p_corrected,
        "verdict": cell.verdict,
    }


def _plain_difference(one: Difference | None) -> dict[str, Any] | None:
    return None if one is None else asdict(one)


def _plain_volumes(volumes: Volumes) -> dict[str, Any]:
    return {
        "reference": {"quality": 0.0, "cost": volumes.reference},
        "candidates": volumes.candidates,
        "seconds": volumes.seconds,
        "methods": [
            {
                "name": one.method,
                "at_end": list(one.at_end),
                "at_candidates": list(one.at_candidates),
                "at_seconds": list(one.at_seconds),
                "finished": list(one.finished),
                "difference": _plain_difference(one.difference),
                "by_candidate": [list(course.volumes) for course in one.courses],
            }
            for one in volumes.each
        ],
    }
