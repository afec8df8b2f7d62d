"""The trials that no other beats in both quality and latency."""

from collections.abc import Iterable, Sequence

from stillhouse.search.trial import Trial, TrialState


def pareto_front(trials: Iterable[Trial]) -> list[Trial]:
    """Return the complete trials that are not dominated, fastest first.

    A trial is dominated if another is at least as good in quality and latency and better in one.

    Args:
        trials: Any; repeats and unfinished, infeasible or failed ones are passed over.

    Returns:
        The front by increasing latency, hence by increasing quality; ties by number.
    """
    points = [
        (trial.latency_ms, -trial.quality, trial.number, trial)
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.repeat_of is None
        # a complete trial has both; said again for the type checker
        if trial.quality is not None and trial.latency_ms is not None
    ]
    front: list[Trial] = []
    best = (float("inf"), float("inf"))
    for latency_ms, loss, _, trial in sorted(points, key=lambda point: point[:3]):
        if loss < best[1] or (latency_ms, loss) == best:
            front.append(trial)
            best = (latency_ms, loss)
    return front


def dominated_area(trials: Iterable[Trial], *, within: Sequence[Trial]) -> float:
    """Return the area that trials dominate, as a fraction of the box around a front.

    Args:
        trials: Trials of the front, in any order.
        within: The whole front; its slowest latency and lowest quality are the reference point,
            its fastest latency and highest quality the opposite corner.

    Returns:
        Hypervolume in two objectives, 0..1; 0 where the box is empty.
    """
    slowest, fastest = _ends(trial.latency_ms for trial in within)
    highest, lowest = _ends(trial.quality for trial in within)
    box = (slowest - fastest) * (highest - lowest)
    area, best = 0.0, lowest
    for trial in pareto_front(trials):
        assert trial.latency_ms is not None
        assert trial.quality is not None
        area += (slowest - trial.latency_ms) * max(0.0, trial.quality - best)
        best = max(best, trial.quality)
    return area / box if box else 0.0


def hypervolume(trials: Iterable[Trial], *, slowest_ms: float) -> float:
    """Return what trials dominate of the box between a reference and the ideal point.

    The reference is quality 0 at `slowest_ms`, as a rule the teacher's latency: what is slower
    counts nothing. The ideal is quality 1 at 0 ms.

    Args:
        trials: Any; only complete ones count.
        slowest_ms: Above 0.

    Returns:
        Hypervolume in two objectives, 0..1 where quality is.
    """
    area, best = 0.0, 0.0
    for trial in pareto_front(trials):
        assert trial.latency_ms is not None
        assert trial.quality is not None
        area += max(0.0, slowest_ms - trial.latency_ms) * max(0.0, trial.quality - best)
        best = max(best, trial.quality)
    return area / slowest_ms


def _ends(values: Iterable[float | None]) -> tuple[float, float]:
    known = [value for value in values if value is not None]
    return max(known), min(known)
