"""The training in few bits that `test_quantise.py` kills: run as a program of its own.

Arguments: run directory, model, table of the task. Every step takes a while, so that there is a
middle to be killed in, and writes a checkpoint.
"""

import sys
import time
from pathlib import Path

from stillhouse.api import run_quantise_job
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import settings_from_dict

SECONDS_A_STEP = 0.05


class SlowNarrator(LoggingNarrator):
    """Takes its time over every step."""

    def advance(self, done: float, detail: str = "") -> None:
        super().advance(done, detail)
        time.sleep(SECONDS_A_STEP)


if __name__ == "__main__":
    run, model, task = sys.argv[1:]
    CheckpointFolder.__init__.__kwdefaults__["every_s"] = 0.0
    settings = settings_from_dict(
        {
            "quantise": {"model": model, "weight_bits": 3, "epochs": 2.0, "batch_size": 8},
            "task": {"name": task},
            "distill": {"precision": "float32", "dropout": 0.1},
            "seed": 3,
        }
    )
    run_quantise_job(settings, Path(run), SlowNarrator())
