"""The search for a layer map that `test_layer_map.py` kills: run as a program of its own.

Arguments: run directory, teacher, text, two tables of proxy tasks. Every step takes a while, so
that there is a middle to be killed in, and a distillation writes a checkpoint after every step.
"""

import sys
import time
from pathlib import Path

from stillhouse.api import run_search_job
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import settings_from_dict

SECONDS_A_STEP = 0.02


class SlowNarrator(LoggingNarrator):
    """Takes its time over every step."""

    def advance(self, done: float, detail: str = "") -> None:
        super().advance(done, detail)
        time.sleep(SECONDS_A_STEP)


if __name__ == "__main__":
    run, teacher, text, *tables = sys.argv[1:]
    CheckpointFolder.__init__.__kwdefaults__["every_s"] = 0.0
    settings = settings_from_dict(
        {
            "recipe": "layer-map",
            "teacher": {"model": teacher},
            "student": "layers=2,hidden_size=16",
            "corpus": {"name": text, "length": 16, "held_out": 4},
            "distill": {"precision": "float32", "batch_size": 4},
            "layer_map": {
                "tasks": tables,
                "sequences": 8,
                "task_epochs": 2.0,
                "task_examples": 24,
                "task_max_length": 16,
                "population": 4,
                "evaluations": 3,
            },
            "final": {"epochs": 0.2},
            "device": {"threads": 1},
            "seed": 3,
        }
    )
    run_search_job(settings, Path(run), SlowNarrator())
