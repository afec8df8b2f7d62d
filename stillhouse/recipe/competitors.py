"""Competitors: given students that are distilled like the winners of a search."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.export.checkpoint import METRICS_FILE, read_metrics
from stillhouse.files import folder_written_aside, write_text_atomically
from stillhouse.recipe.final import finish_winner
from stillhouse.recipe.single import check_student, is_shape, student_of

if TYPE_CHECKING:
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.device_settings import LimitSettings
    from stillhouse.run.directory import RunDirectory

COMPETITORS_FILE = "competitors.json"

_SHOWN = (
    "quality",
    "quality_low",
    "quality_high",
    "quality_count",
    "quality_search",
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "latency_how",
    "latency_predicted_ms",
    "latency_predicted_error_fraction",
    "teacher_latency_ms",
    "speedup",
    "parameters",
    "size_mb",
    "file_mb",
    "memory_mb",
    "flops_fraction",
    "limits",
    "violations",
    "within_limit",
)


def check_competitors(bench: Workbench) -> None:
    """Refuses a competitor that could not be distilled, before hours of search.

    Raises:
        StillhouseError: As the distillation of one student would: a malformed shape, a checkpoint
            that cannot be loaded or has another vocabulary, a device that does not know it.
    """
    for name in bench.settings.compare:
        check_student(bench, name)


def train_competitors(bench: Workbench, limits: LimitSettings) -> None:
    """Distils every competitor with the winners' data, objective, rate and epochs."""

    def finish(name: str, called: str) -> Path:
        winner, their_bench = student_of(bench, name, called=called)
        return finish_winner(their_bench, limits, winner)

    keep_competitors(bench.run, bench.settings.compare, finish, other_kind="checkpoint")


def keep_competitors(
    run: RunDirectory,
    names: Sequence[str],
    finish: Callable[[str, str], Path],
    *,
    other_kind: str,
) -> None:
    """Finishes competitors; those that an earlier start finished stay.

    Each lands in `competitors/<n>` with its metrics, all of them in `competitors.json`.

    Args:
        run: The run directory.
        names: What was given, in its order.
        finish: Distils what was given first, under the name that is second, and tells its folder.
        other_kind: What those are that are no shapes.
    """
    points = []
    for number, name in enumerate(names, start=1):
        target = run.path / "competitors" / str(number)
        if not (target / METRICS_FILE).exists():
            finished = finish(name, f"competitor-{number}")
            with folder_written_aside(target) as aside:
                shutil.copytree(finished, aside, dirs_exist_ok=True)
        kind = "shape" if is_shape(name) else other_kind
        points.append(_point(name, kind, f"competitors/{number}", read_metrics(target)))
        content = json.dumps({"points": points}, indent=2)
        write_text_atomically(run.path / COMPETITORS_FILE, content + "\n")


def _point(name: str, kind: str, folder: str, metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "label": metrics["architecture_label"],
        "kind": kind,
        "folder": folder,
        **{key: metrics.get(key) for key in _SHOWN},
    }
