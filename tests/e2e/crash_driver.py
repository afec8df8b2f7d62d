"""The search that `test_crash.py` kills: run as a program of its own.

Arguments: run directory, teacher folder, table of the task, table of latencies. Every step takes a
while, so that there is a middle to be killed in, and the final training writes a checkpoint after
every step.
"""

import gc
import sys
import time

from stillhouse import search
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.run.progress import LoggingNarrator

SECONDS_A_STEP = 0.02


class SlowNarrator(LoggingNarrator):
    """Takes its time over every step."""

    def advance(self, done: float, detail: str = "") -> None:
        super().advance(done, detail)
        time.sleep(SECONDS_A_STEP)


def main() -> None:
    run, teacher, task, table = sys.argv[1:]
    gc.freeze()  # else each of the many collections of a search goes through all of torch
    CheckpointFolder.__init__.__kwdefaults__["every_s"] = 0.0
    search(
        teacher=teacher,
        task=task,
        limit={"latency_ms": 1.0},
        candidates=7,
        run=run,
        settings={
            "device": {"kind": "table", "table": table},
            "distill": {"precision": "float32", "hidden_weight": 0.1, "dropout": 0.1},
            "search": {"proxy_examples": 50},  # no more than there are: one pass
            "final": {"students": 2, "epochs": 3.0},
            "seed": 3,
        },
        narrator=SlowNarrator(),
    )


if __name__ == "__main__":
    main()
