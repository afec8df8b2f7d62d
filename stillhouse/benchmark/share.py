"""How much of a table's front a search has found."""

from collections.abc import Sequence

from stillhouse.errors import DataError
from stillhouse.search.pareto import dominated_area
from stillhouse.search.recorded import RecordedTable
from stillhouse.search.trial import Trial


def front_shares(table: RecordedTable, trials: Sequence[Trial]) -> list[float]:
    """Return the hypervolume found after each tried architecture, as a share of the table's.

    What a search saw is noisy, so what counts of an architecture is its mean over the recorded
    seeds: the hypervolume is that of all tried architectures' means, which can only grow. The
    reference point is the lowest mean quality and the highest mean latency of the table.

    Args:
        table: What the search was replayed on.
        trials: Of the replay, by number; repeats count nothing.

    Returns:
        For each trial that is no repeat, what it and those before it dominate: 0..1, and 1 once
        the whole front is found.

    Raises:
        DataError: A trial's architecture is not in the table, the table's architectures are all
            equally good or all equally fast, or none is between the extremes.
    """
    everything = table.trials()
    for name in ("quality", "latency_ms"):
        if len({getattr(trial, name) for trial in everything}) == 1:
            raise DataError(
                f"shares of a front need a table of different qualities and latencies, but "
                f"{name} is the same everywhere"
            )
    true = {trial.architecture: trial for trial in everything}
    first = [trial.architecture for trial in trials if trial.repeat_of is None]
    for architecture in first:
        if architecture not in true:
            raise DataError(f"{architecture.label} is not recorded; give trials of this table")
    tried = [true[architecture] for architecture in first]
    whole = dominated_area(everything, within=everything)
    if not whole:
        raise DataError(
            "shares of a front need a table in which one architecture is both better than the "
            "worst and faster than the slowest; here none is"
        )
    return [
        dominated_area(tried[:count], within=everything) / whole
        for count in range(1, len(tried) + 1)
    ]
