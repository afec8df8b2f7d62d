"""The trials that no other beats in both quality and latency."""

from collections.abc import Iterable

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
