"""Records a table of proxy scores and latencies, on which strategies are compared by replay.

Architectures are drawn at random from KD-NAS's space in the proportions of all-MiniLM-L6-v2; each
is distilled on SST-2's proxy set exactly as the search does it, once a seed. Latencies are measured
in a pass of their own, with nothing else running. Goes on where it was interrupted.

    python -m benchmarks.record_table --small   # 120 architectures, one seed; 20 also with a second
    python -m benchmarks.record_table --full    # 300 architectures, three seeds
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, WORK, Records, glue_folder, heading, teacher_run
from stillhouse.recipe.candidates import judge_candidate, screen_candidate
from stillhouse.recipe.open_workbench import open_workbench
from stillhouse.recipe.space import space_of
from stillhouse.recipe.workbench import Workbench
from stillhouse.run.device_settings import LimitSettings
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, settings_from_dict
from stillhouse.search.recorded import RecordedRow, write_recorded
from stillhouse.space.architecture import Architecture

TABLE = ROOT / "benchmarks" / "tables" / "sst2_minilm.csv"
DRAW_SEED = 0
TWICE = 20
"""Architectures of `--small` that are trained with a second seed."""


def settings() -> RunSettings:
    """Settings of a KD-NAS search on SST-2; what follows the proxy is not used."""
    return settings_from_dict(
        {
            "recipe": "kd-nas",
            "teacher": {"model": str(teacher_run())},
            "task": {"name": "glue/sst2", "directory": str(glue_folder())},
            "device": {"threads": 1},
        }
    )


def points(bench: Workbench, *, full: bool) -> list[tuple[Architecture, int]]:
    """Architectures with their seeds, in the order of recording; --full begins as --small."""
    everything = list(space_of(bench).enumerate())
    order = np.random.default_rng(DRAW_SEED).permutation(len(everything))
    drawn = [everything[place] for place in order]
    wanted = [(one, 0) for one in drawn[:120]] + [(one, 1) for one in drawn[:TWICE]]
    if full:
        wanted += [(one, seed) for seed in (0, 1, 2) for one in drawn[:300]]
    return list(dict.fromkeys(wanted))


def record(bench: Workbench, wanted: list[tuple[Architecture, int]], table: Path) -> None:
    """Trains, then times, then writes the table."""
    records = Records("record_table")
    found = {}
    for architecture, seed in wanted:
        job = {"architecture": architecture.key, "seed": seed}
        known = records.find(job)
        if known is None:
            judged = judge_candidate(bench, f"{architecture.key}-{seed}", architecture, seed=seed)
            known = records.add(job, {"quality": judged.quality})
            print(f"{architecture.label:<40} seed {seed}  {judged.quality:.4f}", flush=True)
        found[architecture, seed] = float(known["quality"])
    latencies_ms = {}
    for architecture in dict.fromkeys(one for one, _ in wanted):
        job = {"latency": architecture.key}
        known = records.find(job)
        if known is None:
            screened = screen_candidate(bench, LimitSettings(), architecture)
            facts = dict(screened.attributes)
            known = records.add(
                job, {"latency_ms": screened.latency_ms, "teacher_ms": facts["teacher_latency_ms"]}
            )
        latencies_ms[architecture] = known
    # Every latency was measured in turn with the teacher; on the teacher's usual one they compare.
    teacher_ms = statistics.median(float(one["teacher_ms"]) for one in latencies_ms.values())
    table.parent.mkdir(exist_ok=True)
    table.unlink(missing_ok=True)
    for (architecture, seed), quality in found.items():
        timed = latencies_ms[architecture]
        latency_ms = float(timed["latency_ms"]) / float(timed["teacher_ms"]) * teacher_ms
        write_recorded(
            table,
            RecordedRow(
                architecture=architecture,
                seed=seed,
                quality=quality,
                latency_ms=round(latency_ms, 4),
            ),
        )
    qualities = [quality for (_, seed), quality in found.items() if seed == 0]
    print(f"\n{len(qualities)} architectures, {len(found)} rows, teacher {teacher_ms:.2f} ms")
    print(f"quality {min(qualities):.4f} to {max(qualities):.4f}: {table.relative_to(ROOT)}")


def main() -> None:
    """Opens the workbench and records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--full", action="store_true")
    full = parser.parse_args().full
    heading("benchmarks.record_table")
    chosen = settings()
    with open_run(WORK / "record_table" / "run", chosen) as run:
        bench = open_workbench(chosen, run, LoggingNarrator())
        record(bench, points(bench, full=full), TABLE)


if __name__ == "__main__":
    main()
