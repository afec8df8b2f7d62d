"""The time that a trial has taken, kept in the record while it runs."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from optuna.exceptions import OptunaError
from sqlalchemy.exc import SQLAlchemyError

SECONDS_BETWEEN_NOTES = 30.0

_logger = logging.getLogger(__name__)


class TimeRecord(Protocol):
    """Where the time of running trials is kept."""

    def note_time(self, number: int, *, cost_s: float) -> None:
        """Record what a running trial has taken until now, in seconds over all processes."""


class TimedTrial(Protocol):
    """A trial that may have been worked on before."""

    @property
    def number(self) -> int:
        """Its number in the record."""

    @property
    def cost_s(self) -> float:
        """What earlier processes spent on it, in seconds."""


@contextmanager
def time_kept(record: TimeRecord, trial: TimedTrial) -> Iterator[Callable[[], float]]:
    """Count the time of a running trial, from what earlier processes spent on it.

    It is noted every half a minute, from a thread of its own, and where an error passes through: a
    process that is killed loses at most that. What cannot be noted stops no trial.

    Args:
        record: Holds the trial.
        trial: As it was read from the record.

    Yields:
        Tells the wall-clock time until now, in seconds.
    """
    start_s, ended = time.perf_counter(), threading.Event()

    def spent_s() -> float:
        return trial.cost_s + time.perf_counter() - start_s

    def keep() -> None:
        while not ended.wait(SECONDS_BETWEEN_NOTES):
            _note(record, trial.number, spent_s())

    thread = threading.Thread(target=keep, name="trial-time", daemon=True)
    thread.start()
    try:
        yield spent_s
    except BaseException:
        _note(record, trial.number, spent_s())
        raise
    finally:
        ended.set()
        thread.join()


def _note(record: TimeRecord, number: int, cost_s: float) -> None:
    try:
        record.note_time(number, cost_s=cost_s)
    except (OSError, OptunaError, SQLAlchemyError) as error:
        _logger.debug("the time of trial %d so far could not be noted: %s", number, error)
