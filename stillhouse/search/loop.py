"""The loop of every search: propose, screen, judge, record, learn; and resume where it stopped."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import numpy as np

from stillhouse.errors import TrainingError
from stillhouse.search.record import Record
from stillhouse.search.strategy import Strategy
from stillhouse.search.trial import (
    CandidateFailed,
    CandidateStopped,
    JsonValue,
    Trial,
    TrialState,
)
from stillhouse.search.trial_time import time_kept
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
    ask: int = 1,
) -> list[Trial]:
    """Search until enough candidates are trained, or there is no point in going on.

    Trials that the record holds count as done; those it holds as running are continued under
    their own numbers. An architecture is trained at most once: proposed again, it is recorded as
    a repeat with the first outcome. After many repeats in a row one untried architecture is drawn
    instead of asking. `KeyboardInterrupt` passes through and leaves a running trial.

    Of a batch that was proposed together, each trial is started when its turn comes, so a search
    that may not go on leaves none behind that nobody judges. Where batches begin follows from the
    finished trials, and a strategy proposes the same whenever it is told the same: resumed in the
    middle of a batch, the search asks for that batch again, as if told nothing that finished since,
    and goes on with the rest of it.

    Args:
        strategy: Proposes; is told every finished trial of the record first.
        record: Where trials are written, and read from on resuming.
        screen: Tells latency and limits of an architecture without training it.
        judge: Trains a candidate under its number; raises `CandidateFailed` or `TrainingError` to
            have it recorded as failed, `CandidateStopped` as not worth the whole budget.
        candidates: How many to train, failed and stopped ones included; None for no such end.
        may_start: Told the finished trials, says whether one more may start (time, energy).
        on_trial: Called with every trial that finishes here.
        seed: Of the draws from the untried architectures.
        ask: Candidates that the strategy proposes at a time, at least 1; fewer where fewer are
            wanted or untried.

    Returns:
        All finished trials of the record, by number.
    """
    search = _Search(
        strategy=strategy,
        record=record,
        screen=screen,
        judge=judge,
        on_trial=on_trial,
        seed=seed,
        batches=_Batches(most=ask, candidates=candidates, space_size=record.space.size()),
        finished=_finished_trials(record),
    )
    search.resume()
    while (
        not _is_over(search.finished, candidates)
        and len(_first_trials(search.finished)) < record.space.size()
        and may_start(search.finished)
    ):
        search.settle(search.start())
    return search.finished


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batches:
    """How the trials of a search fall into batches of proposals, by those before them alone."""

    most: int
    candidates: int | None
    space_size: int

    def size_after(self, finished: Sequence[Trial]) -> int:
        """Return the size of the batch that is proposed when these trials are known."""
        if _only_repeats(finished):
            return 1  # the draw that then takes the place of a proposal
        sizes = [self.most, self.space_size - len(_first_trials(finished))]
        if self.candidates is not None:
            sizes.append(self.candidates - _count_trained(finished))
        return max(1, min(sizes))

    def last_start(self, finished: Sequence[Trial]) -> int:
        """Return how many of the trials were known when the first unfinished batch is proposed."""
        start = 0
        while start + (size := self.size_after(finished[:start])) <= len(finished):
            start += size
        return start


@final
@dataclass(slots=True, kw_only=True)
class _Search:
    """The parts of a search, and the trials that have finished so far."""

    strategy: Strategy
    record: Record
    screen: Screen
    judge: Judge
    on_trial: Callable[[Trial], None]
    seed: int
    batches: _Batches
    finished: list[Trial]
    proposed: list[Architecture] = field(default_factory=list)
    """The rest of a batch, not yet started."""

    def resume(self) -> None:
        """Tell the strategy what is recorded, take up a begun batch, and end running trials."""
        start = self.batches.last_start(self.finished)
        known, later = self.finished[:start], self.finished[start:]
        running = self.record.running()
        begun = len(later) + len(running)
        self.strategy.tell(known)
        if 0 < begun < self.batches.size_after(known):
            self.proposed = self._propose(known)[begun:]
        self.strategy.tell(later)
        for trial in running:
            self.settle(trial)

    def start(self) -> Trial:
        """Start the next of the proposals, after asking for some if none is left."""
        if not self.proposed:
            self.proposed = self._propose(self.finished)
        architecture = self.proposed.pop(0)
        number = self.record.start(architecture)
        return Trial(number=number, architecture=architecture, state=TrialState.RUNNING)

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

    def _propose(self, finished: Sequence[Trial]) -> list[Architecture]:
        """Ask for a batch, or draw an untried one if the strategy only repeats itself."""
        if not _only_repeats(finished):
            return self.strategy.ask(self.batches.size_after(finished))
        tried = _first_trials(finished)
        untried = [item for item in self.record.space.enumerate() if item not in tried]
        generator = np.random.default_rng([self.seed, len(finished)])
        return [untried[generator.integers(len(untried))]]

    def _try(self, trial: Trial) -> Trial:
        with time_kept(self.record, trial) as spent_s:
            try:
                outcome = self._screen_and_judge(trial)
            except (CandidateFailed, TrainingError) as error:
                outcome = replace(trial, state=TrialState.FAILED, reason=str(error))
            return replace(outcome, cost_s=spent_s())

    def _screen_and_judge(self, trial: Trial) -> Trial:
        screened = trial if trial.latency_ms is not None else self._screen(trial)
        if screened.is_over_limit:
            return replace(
                screened, state=TrialState.INFEASIBLE, reason=_over_limits(screened.violations)
            )
        try:
            judgement = self.judge(trial.number, trial.architecture, screened)
        except CandidateStopped as stop:
            return replace(
                screened,
                state=TrialState.STOPPED,
                reason=stop.reason,
                attributes={**screened.attributes, **stop.attributes},
            )
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
    trained = _count_trained(finished)
    idle = _count_last(not _is_trained(trial) for trial in finished)
    return idle >= _IDLE_PROPOSALS_BEFORE_STOP or (candidates is not None and trained >= candidates)


def _finished_trials(record: Record) -> list[Trial]:
    return [trial for trial in record.trials() if trial.is_finished]


def _first_trials(finished: Iterable[Trial]) -> dict[Architecture, Trial]:
    return {trial.architecture: trial for trial in finished if trial.repeat_of is None}


def _repeat(trial: Trial, earlier: Trial) -> Trial:
    return replace(earlier, number=trial.number, repeat_of=earlier.number, cost_s=0.0)


def _only_repeats(finished: Sequence[Trial]) -> bool:
    repeats = _count_last(trial.repeat_of is not None for trial in finished)
    return repeats >= _REPEATS_BEFORE_DRAW


def _count_trained(finished: Sequence[Trial]) -> int:
    return sum(_is_trained(trial) for trial in finished)


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
