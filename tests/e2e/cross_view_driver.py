"""The training that `test_cross_view.py` kills: run as a program of its own.

Arguments: run directory, task, text without tags. It writes a checkpoint after every step.
"""

import sys
from pathlib import Path

from stillhouse.api import run_cross_view_job
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import settings_from_dict

if __name__ == "__main__":
    run, task, text = sys.argv[1:]
    CheckpointFolder.__init__.__kwdefaults__["every_s"] = 0.0
    settings = settings_from_dict(
        {
            "task": {"name": task, "unlabelled": text},
            "cross_view": {
                "steps": 14,
                "batch_size": 8,
                "unlabelled_batch_size": 8,
                "evaluate_every": 4,
                "word_size": 16,
            },
            "seed": 3,
        }
    )
    run_cross_view_job(settings, Path(run), LoggingNarrator())
