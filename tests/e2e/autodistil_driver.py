"""The search without a task that `test_autodistil.py` kills, and runs on two workers.

Arguments: run directory, settings as JSON. Every step takes a while, so that there is a middle to
be killed in, and a checkpoint is written after each.
"""

import gc
import json
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
    run, settings = sys.argv[1:]
    gc.freeze()
    CheckpointFolder.__init__.__kwdefaults__["every_s"] = 0.0
    search(run=run, recipe="autodistil", settings=json.loads(settings), narrator=SlowNarrator())


if __name__ == "__main__":
    main()
