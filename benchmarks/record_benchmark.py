"""Records the tables of `stillhouse.benchmark`: every point of a small space, trained and timed.

    python -m benchmarks.record_benchmark --table sst2-minilm   # 192 BERTs, distilled on SST-2
    python -m benchmarks.record_benchmark --table flash-minilm  # 72 MobileBERTs, flash distilled

Both have all-MiniLM-L6-v2 as teacher and are complete grids. Each student is trained as a search
trains it, some with a second seed; latencies are measured in a pass of their own, each in turn with
the teacher. Each goes on where it was interrupted; `--only train` and `--only time` do a half.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.autodistill import SMALL, most_frequent_fraction, open_nursery
from benchmarks.common import ROOT, WORK, Records, glue_folder, heading, minilm_folder
from stillhouse.recipe.candidates import judge_candidate
from stillhouse.recipe.flash import judge_by_flash
from stillhouse.recipe.open_workbench import open_workbench
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, settings_from_dict
from stillhouse.search.recorded import RecordedRow, write_recorded
from stillhouse.space.architecture import Architecture, BertArchitecture
from stillhouse.space.mobilebert import MobileBertArchitecture

if TYPE_CHECKING:
    from stillhouse.device.latency import Comparison

FLASH_SIZE = replace(SMALL, transfer_steps=600, pretrain_steps=600, search_flash_steps=240)
"""What flash-minilm was recorded with; another size makes another table, and needs another name."""
TABLES = ROOT / "stillhouse" / "benchmark" / "tables"
TWICE = {"sst2-minilm": 48, "flash-minilm": 8}
"""How many points are trained with a second seed, too, spread evenly over the grid."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is recorded.

    Attributes:
        points: Every architecture of the table.
        train: Score of an architecture with a seed.
        compare: Its latency, in turn with the teacher.
        floor: Score from which a student counts as trained.
    """

    points: Sequence[Architecture]
    train: Callable[[Architecture, int], float]
    compare: Callable[[Architecture], Comparison]
    floor: float


def sst2_settings() -> RunSettings:
    """Settings of a mini-distillation: 4,096 examples, once, from a teacher of 24,000."""
    return settings_from_dict(
        {
            "recipe": "kd-nas",
            "teacher": {"model": minilm_folder(), "learning_rates": [1.2e-4], "epochs": 1},
            "task": {"name": "glue/sst2", "directory": str(glue_folder()), "max_train": 24_000},
            "search": {"proxy_examples": 4_096, "epochs": 1},
            "device": {"threads": 1, "length": 128},
        }
    )


def bert_points() -> list[BertArchitecture]:
    """192 BERTs: every combination of four dimensions."""
    return [
        BertArchitecture(layers=layers, hidden_size=hidden, heads=heads, ffn_size=ffn)
        for layers, hidden, heads, ffn in itertools.product(
            (1, 2, 3, 5), (128, 192, 256, 384), (2, 4, 8), (192, 384, 768, 1536)
        )
    ]


def mobilebert_points(layers: int) -> list[MobileBertArchitecture]:
    """72 MobileBERTs: every combination of four dimensions."""
    return [
        MobileBertArchitecture(
            layers=layers,
            hidden_size=hidden,
            bottleneck_size=bottleneck,
            heads=heads,
            ffn_size=384,
            ffn_count=ffns,
            embedding_size=96,
            bottleneck_attention=False,
        )
        for hidden, bottleneck, heads, ffns in itertools.product(
            (96, 192, 288, 384), (48, 72, 120), (2, 4), (2, 4, 6)
        )
    ]


def record(name: str, grid: Grid, *, only: str | None) -> None:
    """Trains, then times, then writes the table."""
    records = Records(f"benchmark_{name}")
    order = np.random.default_rng(0).permutation(len(grid.points))
    wanted = [(grid.points[place], 0) for place in order]
    wanted += [(grid.points[place], 1) for place in order[: TWICE[name]]]
    if only != "time":
        for architecture, seed in wanted:
            job = {"architecture": architecture.key, "seed": seed}
            if records.find(job) is None:
                quality = grid.train(architecture, seed)
                records.add(job, {"quality": quality})
                print(f"{architecture.label:<48} seed {seed}  {quality:.4f}", flush=True)
    if only != "train":
        for architecture in grid.points:
            job = {"latency": architecture.key}
            if records.find(job) is None:
                comparison = grid.compare(architecture)
                student, teacher = comparison.student.median_ms, comparison.teacher.median_ms
                records.add(job, {"latency_ms": student, "teacher_ms": teacher})
    if only is None:
        write(name, wanted, records, grid.floor)


def write(
    name: str, wanted: Sequence[tuple[Architecture, int]], records: Records, floor: float
) -> None:
    """Writes the table anew from the records, and says what it holds."""
    timed = {one: records.find({"latency": one.key}) or {} for one, _ in wanted}
    # Every latency was measured in turn with the teacher; on the teacher's usual one they compare.
    teacher_ms = statistics.median(float(one["teacher_ms"]) for one in timed.values())
    table = TABLES / f"{name}.csv"
    aside = table.with_suffix(".recording")
    aside.unlink(missing_ok=True)
    qualities: dict[int, list[float]] = {}
    for architecture, seed in wanted:
        known = records.find({"architecture": architecture.key, "seed": seed}) or {}
        ratio = float(timed[architecture]["latency_ms"]) / float(timed[architecture]["teacher_ms"])
        quality = float(known["quality"])
        row = RecordedRow(
            architecture=architecture,
            seed=seed,
            quality=round(quality, 5),
            latency_ms=round(ratio * teacher_ms, 4),
        )
        write_recorded(aside, row)
        qualities.setdefault(seed, []).append(quality)
    aside.replace(table)
    first = qualities[0]
    gaps = [a - b for a, b in zip(first, qualities[1], strict=False)]
    print(
        f"{len(first)} architectures, {len(wanted)} rows, teacher {teacher_ms:.2f} ms\n"
        f"quality {min(first):.4f} to {max(first):.4f}, deviation {statistics.stdev(first):.4f}; "
        f"between two seeds {statistics.stdev(gaps) / 2**0.5:.4f} (n = {len(gaps)})\n"
        f"{sum(quality >= floor for quality in first)} of {len(first)} at {floor:.4f} or above "
        f"count as trained: {table.relative_to(ROOT)}"
    )


def record_sst2(only: str | None) -> None:
    """Opens the workbench and records table 1."""
    settings = sst2_settings()
    with open_run(WORK / "benchmark_sst2-minilm" / "run", settings) as run:
        bench = open_workbench(settings, run, LoggingNarrator())

        def train(architecture: Architecture, seed: int) -> float:
            name = f"{architecture.key}-{seed}"
            return judge_candidate(bench, name, architecture, seed=seed).quality

        labels = bench.data.validation.labels
        assert labels is not None
        most_frequent = float(np.bincount(labels.astype(int)).max() / len(labels))
        grid = Grid(
            points=bert_points(), train=train, compare=bench.compare, floor=most_frequent + 0.05
        )
        record("sst2-minilm", grid, only=only)


def record_flash(only: str | None) -> None:
    """Opens the nursery and records table 2."""
    nursery = open_nursery(FLASH_SIZE, "table")

    def train(architecture: Architecture, seed: int) -> float:
        settings = replace(nursery.settings, seed=seed)
        return judge_by_flash(replace(nursery, settings=settings), 0, architecture).quality

    grid = Grid(
        points=mobilebert_points(nursery.teacher_architecture.layers),
        train=train,
        compare=lambda architecture: nursery.device.compare(architecture, nursery.workload),
        floor=2 * most_frequent_fraction(nursery, nursery.judging_text),
    )
    record("flash-minilm", grid, only=only)


RECORDERS = {"sst2-minilm": record_sst2, "flash-minilm": record_flash}


def main() -> None:
    """Records a table, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the only size there is")
    parser.add_argument("--table", choices=RECORDERS, required=True)
    parser.add_argument("--only", choices=("train", "time"), help="a half of the work")
    given = parser.parse_args()
    heading("benchmarks.record_benchmark")
    RECORDERS[given.table](given.only)


if __name__ == "__main__":
    main()
