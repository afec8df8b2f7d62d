"""The loop of every search: propose, screen, judge, record, learn; and resume where it stopped."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

from stillhouse.errors import TrainingError
from stillhouse.search.record import Record
from stillhouse.search.strategy import Strategy
from stillhouse.search.trial import CandidateFailed, JsonValue, Trial, TrialState
from stillhouse.space.architecture import Architecture

_REPEATS_BEFORE_DRAW = 20
_IDLE_PROPOSALS_BEFORE_STOP = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """What is known of an architecture before any training.

    Args:
        latency_ms: Latency on the device of the search.
        violations: By hard limit, the amount over it relative to the limit; above 0 the
            architecture is not trained.
        attributes: Whatever else is worth recording.
    """

    latency_ms: float
    violations: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What distillation found out about an architecture.

    Args:
        quality: Score on the search-validation set, higher is better.
        attributes: Whatever else is worth recording.
    """

    quality: float
    attributes: Mapping[str, JsonValue] = field(default_factory=dict)


Screen = Callable[[Architecture], Screening]
Judge = Callable[[int, Architecture, Trial], Judgement]


def run_search(  # noqa: PLR0913 - the one place where all parts of a search meet
    *,
    strategy: Strategy,
    record: Record,
    screen: Screen,
    judge: Judge,
    candidates: int | None,
    may_start: Callable[[Sequence[Trial]], bool],
    on_trial: Callable[[Trial], None],
    seed: int,
) -> list[Trial]:
    """Search until enough candidates are trained, or there is no point in going on.

    Trials that the record holds count as done; those it holds as running are continued under
    their own numbers. An architecture is trained at most once: proposed again, it is recorded as
    a repeat with the first outcome. After many repeats in a row one untried architecture is drawn
    instead of asking. `KeyboardInterrupt` passes through and leaves a running trial.

    Args:
        strategy: Proposes; is told every finished trial of the record first.
        record: Where trials are written, and read from on resuming.
        screen: Tells latency and limits of an architecture without training it.
        judge: Trains a candidate under its number; raises `CandidateFailed` or `TrainingError` to
            have it recorded as failed.
        candidates: How many to train, failed ones included; None for no such end.
        may_start: Told the finished trials, says whether one more may start (time, energy).
        on_trial: Called with every trial that finishes here.
        seed: Of the draws from the untried architectures.

    Returns:
        All finished trials of the record, by number.
    """
    search = _Search(
        strategy=strategy,
        record=record,
        screen=screen,
        judge=judge,
        on_trial=on_trial,
        finished=_finished_trials(record),
    )
    strategy.tell(search.finished)
    for trial in record.running():
        search.settle(trial)
    while (
        not _is_over(search.finished, candidates)
        and len(_first_trials(search.finished)) < record.space.size()
        and may_start(search.finished)
    ):
        architecture = search.choose(seed)
        number = record.start(architecture)
        search.settle(Trial(number=number, architecture=architecture, state=TrialState.RUNNING))
    return search.finished


@final
@dataclass(slots=True, kw_only=True)
class _Search:
    """The parts of a search, and the trials that have finished so far."""

    strategy: Strategy
    record: Record
    screen: Screen
    judge: Judge
    on_trial: Callable[[Trial], None]
    finished: list[Trial]

    def settle(self, trial: Trial) -> None:
        """Bring a running trial to its end, record it and let the strategy learn from it."""
        earlier = _first_trials(self.finished).get(trial.architecture)
        outcome = self._try(trial) if earlier is None else _repeat(trial, earlier)
        self.record.finish(outcome)
        # Read back, so that what is learnt now is what a resumed search will be told.
        self.finished = _finished_trials(self.record)
        recorded = next(item for item in self.finished if item.number == trial.number)
        self.strategy.tell([recorded])
        self.on_trial(recorded)

    def choose(self, seed: int) -> Architecture:
        """Ask for a proposal, or draw an untried one if the strategy only repeats itself."""
        repeats = _count_last(trial.repeat_of is not None for trial in self.finished)
        if repeats < _REPEATS_BEFORE_DRAW:
            return self.strategy.ask(1)[0]
        tried = _first_trials(self.finished)
        untried = [item for item in self.record.space.enumerate() if item not in tried]
        generator = np.random.default_rng([seed, len(self.finished)])
        return untried[generator.integers(len(untried))]

    def _try(self, trial: Trial) -> Trial:
        start_s = time.perf_counter()
        try:
            outcome = self._screen_and_judge(trial)
        except (CandidateFailed, TrainingError) as error:
            outcome = replace(trial, state=TrialState.FAILED, reason=str(error))
        return replace(outcome, cost_s=time.perf_counter() - start_s)

    def _screen_and_judge(self, trial: Trial) -> Trial:
        screened = trial if trial.latency_ms is not None else self._screen(trial)
        if screened.is_over_limit:
            return replace(
                screened, state=TrialState.INFEASIBLE, reason=_over_limits(screened.violations)
            )
        judgement = self.judge(trial.number, trial.architecture, screened)
        if not math.isfinite(judgement.quality):
            raise CandidateFailed(f"its quality is {judgement.quality}, not a finite number")
        return replace(
            screened,
            state=TrialState.COMPLETE,
            quality=judgement.quality,
            attributes={**screened.attributes, **judgement.attributes},
        )

    def _screen(self, trial: Trial) -> Trial:
        screening = self.screen(trial.architecture)
        if not math.isfinite(screening.latency_ms):
            raise CandidateFailed(f"its latency is {screening.latency_ms} ms, not a finite number")
        self.record.note(trial.number, screening.attributes)
        self.record.note_screening(
            trial.number, latency_ms=screening.latency_ms, violations=screening.violations
        )
        return replace(
            trial,
            latency_ms=screening.latency_ms,
            violations=screening.violations,
            attributes={**trial.attributes, **screening.attributes},
        )


def _is_over(finished: Sequence[Trial], candidates: int | None) -> bool:
    trained = sum(_is_trained(trial) for trial in finished)
    idle = _count_last(not _is_trained(trial) for trial in finished)
    return idle >= _IDLE_PROPOSALS_BEFORE_STOP or (candidates is not None and trained >= candidates)


def _finished_trials(record: Record) -> list[Trial]:
    return [trial for trial in record.trials() if trial.is_finished]


def _first_trials(finished: Iterable[Trial]) -> dict[Architecture, Trial]:
    return {trial.architecture: trial for trial in finished if trial.repeat_of is None}


def _repeat(trial: Trial, earlier: Trial) -> Trial:
    return replace(earlier, number=trial.number, repeat_of=earlier.number, cost_s=0.0)


def _is_trained(trial: Trial) -> bool:
    return trial.repeat_of is None and trial.state is not TrialState.INFEASIBLE


def _count_last(marks: Iterable[bool]) -> int:
    """Count the true marks after the last false one."""
    count = 0
    for mark in marks:
        count = count + 1 if mark else 0
    return count


def _over_limits(violations: Mapping[str, float]) -> str:
    over = (f"{name} {amount:.1%} over" for name, amount in violations.items() if amount > 0)
    return "; ".join(over)
