"""The trials that no other beats in every objective, and how much they dominate."""

from collections.abc import Iterable, Mapping, Sequence

import moocore
import numpy as np
from numpy.typing import NDArray

from stillhouse.search.objectives import LATENCY, TWO_OBJECTIVES, Objective
from stillhouse.search.trial import Trial, TrialState


def pareto_front(
    trials: Iterable[Trial], objectives: Sequence[Objective] = TWO_OBJECTIVES
) -> list[Trial]:
    """Return the complete trials that are not dominated, fastest first.

    A trial is dominated if another is at least as good in every objective and better in one.

    Args:
        trials: Any; repeats and unfinished, infeasible, stopped or failed ones are passed over.
        objectives: What counts; a trial that lacks one of the values is passed over.

    Returns:
        The front by increasing latency, in two objectives hence by increasing quality; ties by
        number.
    """
    known = [trial for trial in trials if _is_compared(trial, objectives)]
    if not known:
        return []
    kept = moocore.is_nondominated(_losses(known, objectives), keep_weakly=True)
    front = [trial for trial, is_kept in zip(known, kept, strict=True) if is_kept]
    return sorted(front, key=lambda trial: (LATENCY.loss_of(trial), trial.number))


def dominated_area(
    trials: Sequence[Trial],
    *,
    within: Sequence[Trial],
    objectives: Sequence[Objective] = TWO_OBJECTIVES,
) -> float:
    """Return the hypervolume that trials dominate, as a fraction of the box around a front.

    What is equal for the whole front does not count.

    Args:
        trials: Trials of the front, in any order.
        within: The whole front; its worst values are the reference point, its best ones the
            opposite corner.
        objectives: What counts.

    Returns:
        Hypervolume, 0..1; 0 where the box is empty.
    """
    if not trials:
        return 0.0
    corners = _losses(within, objectives)
    best, worst = corners.min(axis=0), corners.max(axis=0)
    varies = worst > best
    if not varies.any():
        return 0.0
    losses = ((_losses(trials, objectives) - best)[:, varies]) / (worst - best)[varies]
    return float(moocore.hypervolume(losses, ref=np.ones(losses.shape[1])))


def hypervolume(
    trials: Iterable[Trial],
    *,
    reference: Mapping[str, float],
    objectives: Sequence[Objective] = TWO_OBJECTIVES,
) -> float:
    """Return what trials dominate of the box between a reference and the ideal point.

    The ideal is quality 1 and nothing of everything that is made low.

    Args:
        trials: Any; only those count that could be on a front.
        reference: Worst value that counts of each objective by name: quality, as a rule 0, and
            above 0 all others, as a rule the teacher's.
        objectives: What counts.

    Returns:
        Hypervolume as a fraction of the box: 0..1 where quality is.
    """
    known = [trial for trial in trials if _is_compared(trial, objectives)]
    if not known:
        return 0.0
    worst = np.array([reference[one.name] for one in objectives])
    is_high = np.array([one.is_higher_better for one in objectives])
    # From the reference to the ideal is 1 in each objective: 1 - worst up, worst itself down.
    lengths = np.where(is_high, 1 - worst, worst)
    losses = (_losses(known, objectives) - np.where(is_high, -worst, worst)) / lengths
    return float(moocore.hypervolume(losses, ref=np.zeros(len(objectives))))


def _is_compared(trial: Trial, objectives: Sequence[Objective]) -> bool:
    return (
        trial.state is TrialState.COMPLETE
        and trial.repeat_of is None
        and all(one.value_of(trial) is not None for one in objectives)
    )


def _losses(trials: Sequence[Trial], objectives: Sequence[Objective]) -> NDArray[np.float64]:
    return np.array([[one.loss_of(trial) for one in objectives] for trial in trials])
