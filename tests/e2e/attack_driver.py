"""Attacks a checkpoint as the command line does, slowly enough to be killed in the middle."""

import sys
import time
from pathlib import Path

from stillhouse.data.task import TaskSettings
from stillhouse.recipe.attacking import AttackJob, attack_checkpoints
from stillhouse.run.progress import LoggingNarrator

PAUSE_S = 0.05


class Slow(LoggingNarrator):
    """Waits a little after every text."""

    def advance(self, done, detail=""):
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    model, task, synonyms, out = sys.argv[1:]
    job = AttackJob(
        models=(model,),
        task=TaskSettings(name=task, dev=task),
        synonyms=Path(synonyms),
        examples=60,
        at_once=4,
    )
    attack_checkpoints(job, Path(out), Slow())
