"""What a job costs, summed over the processes that worked on it, killed ones among them.

The sum is kept in `run.json` under `cost`, and written with everything else that goes there and
once a minute: a process that is killed loses at most that.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from stillhouse.device.energy import Meter, metered
from stillhouse.distill.token_count import tokens_trained
from stillhouse.files import write_text_atomically

CostFacts: TypeAlias = Mapping[str, Any]
"""`seconds`, `energy_wh` and `co2_g` as in `device.energy.Cost`, with `tokens`, those that models
were trained on, and `how` the energy was obtained. What nobody counted is absent. `workers` are the
amounts of other processes that are in these sums, by their ranks. `is_partial` tells that the job
was begun by a version that counted nothing, and that this is its cost `since` a moment."""

SECONDS_BETWEEN_NOTES = 60.0
WORKER_COSTS = "worker-costs"
"""Folder in a run directory: what each worker but the main one has cost, a file each."""
_AMOUNTS = {"seconds": 4, "energy_wh": 4, "co2_g": 4, "tokens": 0}
"""With the decimals that are kept."""
_KEPT = ("is_partial", "since")
"""Facts that no amount is added to."""

_logger = logging.getLogger(__name__)


def added(one: CostFacts, other: CostFacts) -> dict[str, Any]:
    """Adds costs; what only one of them tells is told as it is."""
    sums: dict[str, Any] = {
        name: round(one.get(name, 0) + other.get(name, 0), decimals or None)
        for name, decimals in _AMOUNTS.items()
        if name in one or name in other
    }
    ways = [way for cost in (one, other) for way in cost.get("how", "").split("; ") if way]
    facts = {name: cost[name] for cost in (one, other) for name in _KEPT if name in cost}
    return sums | ({"how": "; ".join(dict.fromkeys(ways))} if ways else {}) | facts


def uncounted_until_now() -> CostFacts:
    """The cost of a job that was begun by a version that counted none."""
    return {"is_partial": True, "since": datetime.now(UTC).isoformat("T", "seconds")}


class Ledger:
    """Adds what this process costs to what a job has cost before.

    Args:
        before: What it has cost before.
        meter: Of this process.
        workers: Folder with the costs of other processes that work on it, which count their own.
    """

    def __init__(self, before: CostFacts, meter: Meter, workers: Path | None = None) -> None:
        """Begin to count; of what `workers` holds, `before` tells what is in its sums."""
        self._before, self._meter, self._workers = before, meter, workers
        self._tokens_before = tokens_trained()
        self._workers_before = before.get("workers", {})

    def facts(self) -> dict[str, Any]:
        """Tells what the job has cost by now, as plain data."""
        tokens = tokens_trained() - self._tokens_before
        cost = added(self._before, {**asdict(self._meter.cost()), "tokens": tokens})
        workers = _read_costs(self._workers)
        for rank, now in workers.items():
            cost = added(cost, _less(now, self._workers_before.get(rank, {})))
        known = {**self._workers_before, **workers}
        return cost | ({"workers": known} if known else {})


@contextmanager
def costed(
    before: CostFacts, *, watts: float | None, workers: Path | None = None
) -> Iterator[Ledger]:
    """Counts what runs in the context.

    Args:
        before: What the job has cost before.
        watts: Power of what has no counter of energy; see `device.energy.metered`.
        workers: Folder with the costs of other processes that work on the same job.
    """
    with metered(watts=watts) as meter:
        yield Ledger(before, meter, workers)


@contextmanager
def written_now_and_then(write: Callable[[], None]) -> Iterator[None]:
    """Calls `write` every minute and at the end, from a thread of its own and from this one.

    What it cannot write is missed by no training.
    """
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(SECONDS_BETWEEN_NOTES):
            _write(write)

    thread = threading.Thread(target=keep, name="costs", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _write(write)


@contextmanager
def worker_costed(
    run: Path, *, rank: int, counts_machine: bool, watts: float | None
) -> Iterator[None]:
    """Counts what a worker costs that is not the main one, into a file that the main one reads.

    Args:
        run: The run directory.
        rank: Number of the worker among all, above 0.
        counts_machine: Whether nobody else counts the energy of the machine that it runs on.
        watts: Power of what has no counter of energy.
    """
    file = run / WORKER_COSTS / f"{rank}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    before = _read_costs(file.parent).get(file.stem, {})
    with metered(watts=watts, counts_machine=counts_machine) as meter:
        ledger = Ledger(before, meter)

        def write() -> None:
            write_text_atomically(file, json.dumps(ledger.facts()) + "\n")

        with written_now_and_then(write):
            yield


def _write(write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        _logger.debug("the cost so far could not be written: %s", error)


def _read_costs(folder: Path | None) -> dict[str, dict[str, Any]]:
    """Reads the costs of workers by their ranks."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob("[0-9]*.json")) if folder is not None else ():
        with suppress(OSError):
            found[file.stem] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _less(now: CostFacts, before: CostFacts) -> dict[str, Any]:
    amounts = {name: now[name] - before.get(name, 0) for name in _AMOUNTS if name in now}
    return amounts | ({"how": now["how"]} if now.get("how") else {})
