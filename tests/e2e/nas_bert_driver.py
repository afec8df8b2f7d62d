"""The search and the pre-training that `test_nas_bert.py` kills, and runs on two workers.

Arguments: settings as JSON, and a run directory. The first selected student is pre-trained after
the search. Every step takes a while, so that there is a middle to be killed in, and a checkpoint is
written after each.

Without a run directory, they are read from standard input, one a line. Each is given to a process
of its own, which is spared loading torch: its number is written, and its exit code when it ends.
"""

import gc
import json
import os
import sys
import time
import traceback
from pathlib import Path

from accelerate import PartialState

from stillhouse import search
from stillhouse.api import run_train_job
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.recipe import chain_blocks
from stillhouse.run.progress import LoggingNarrator

SECONDS_A_STEP = 0.02


class SlowNarrator(LoggingNarrator):
    """Takes its time over every step."""

    def advance(self, done: float, detail: str = "") -> None:
        super().advance(done, detail)
        time.sleep(SECONDS_A_STEP)


def work(settings: str, run: str) -> None:
    narrator = SlowNarrator()
    search(run=run, recipe="nas-bert", settings=json.loads(settings), narrator=narrator)
    PartialState().wait_for_everyone()  # the main worker selects, while the others are done
    run_train_job(Path(run) / "selected" / "1", {}, narrator)


def work_apart(settings: str, run: str) -> None:
    child = os.fork()
    if child == 0:
        try:
            work(settings, run)
        except BaseException:  # noqa: BLE001  whatever it was, this process must not go on
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    tell(child)
    _, status = os.waitpid(child, 0)
    tell(os.waitstatus_to_exitcode(status))


def tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def main() -> None:
    settings, *run = sys.argv[1:]
    gc.freeze()
    CheckpointFolder.__init__.__kwdefaults__["every_s"] = 0.0
    chain_blocks.CHECKPOINT_EVERY_S = 0.0
    if run:
        work(settings, *run)
        return
    for line in sys.stdin:
        work_apart(settings, line.strip())


if __name__ == "__main__":
    main()
