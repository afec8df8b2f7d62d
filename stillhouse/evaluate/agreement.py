"""Whether two scorings of the same models rank them alike, and what trusting one of them costs.

Shapes: N models, each scored twice: by a proxy (a short training) and in the end (a full one).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from stillhouse.errors import DataError, SettingsError

FEWEST_PAIRS = 8
"""With fewer, the interval of a rank correlation covers nearly everything that it could."""
INTERVAL_QUANTILES = (0.025, 0.975)

Fields = Mapping[str, object]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A statistic and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How alike two scorings rank the same `count` models; without estimates, `reason` says why.

    Attributes:
        kendall: Kendall's tau-b, -1..1, or None.
        spearman: Spearman's rho, -1..1, or None.
        count: Number of pairs.
        reason: Why there are no estimates; empty where there are.
    """

    kendall: Estimate | None
    spearman: Estimate | None
    count: int
    reason: str = ""

    def to_dict(self) -> dict[str, object]:
        """Gives the agreement as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Fields) -> Agreement:
        """Reads what `to_dict` wrote.

        Raises:
            DataError: If the fields are not those of an agreement.
        """
        count = fields.get("count")
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise DataError(f"an agreement's count is a number from 0, but is {count!r}")
        return cls(
            kendall=_estimate(fields, "kendall"),
            spearman=_estimate(fields, "spearman"),
            count=count,
            reason=str(fields.get("reason") or ""),
        )


def rank_agreement(
    proxy: Sequence[float], final: Sequence[float], *, seed: int, resamples: int = 2_000
) -> Agreement:
    """Tells how alike two scorings rank the same models.

    The intervals are 95 % percentile intervals over pairs drawn with replacement. Resamples in
    which one side is constant have no rank correlation and are left out. Where the two orders are
    the same (or opposite), so are those of every resample, and the interval has no width: read it
    with the number of pairs.

    Args:
        proxy: `[N]` scores of the models, higher better.
        final: `[N]` scores of the same models in the same order.
        seed: Decides the resamples.
        resamples: How many times N pairs are drawn.

    Returns:
        The agreement; without estimates under `FEWEST_PAIRS` pairs or if one side is constant.

    Raises:
        DataError: If the scores are not pairs of finite numbers.
        SettingsError: If there are no resamples.
    """
    if resamples < 1:
        raise SettingsError(f"a bootstrap has at least one resample, but resamples is {resamples}")
    proxy_N, final_N = _paired(proxy, final)
    if reason := _silent_because(proxy_N, final_N):
        return Agreement(kendall=None, spearman=None, count=len(proxy_N), reason=reason)
    drawn = np.random.default_rng(seed).integers(len(proxy_N), size=(resamples, len(proxy_N)))
    pairs = [(proxy_N[chosen], final_N[chosen]) for chosen in drawn]
    told = [(first, second) for first, second in pairs if np.ptp(first) and np.ptp(second)]
    if not told:
        reason = f"one side is constant in each of {resamples} resamples"
        return Agreement(kendall=None, spearman=None, count=len(proxy_N), reason=reason)
    return Agreement(
        kendall=_with_interval(_kendall, (proxy_N, final_N), told),
        spearman=_with_interval(_spearman, (proxy_N, final_N), told),
        count=len(proxy_N),
    )


def regret(proxy: Sequence[float], final: Sequence[float]) -> float:
    """Tells what trusting the proxy costs among the models that have a final score.

    Args:
        proxy: `[N]` scores of the models, higher better.
        final: `[N]` scores of the same models in the same order.

    Returns:
        Final score of the model that is best in the end, less the final score of the one that is
        best by proxy (the mean of those that share that place); never negative.

    Raises:
        DataError: If the scores are not pairs of finite numbers, or there are none.
    """
    proxy_N, final_N = _paired(proxy, final)
    if not len(proxy_N):
        raise DataError("a regret needs at least one model with both scores, but there are none")
    lost_N = final_N.max() - final_N[proxy_N == proxy_N.max()]  # differences: exact 0 for equals
    return float(lost_N.mean())


def _paired(proxy: Sequence[float], final: Sequence[float]) -> tuple[Scores, Scores]:
    proxy_N, final_N = np.asarray(proxy, dtype=np.float64), np.asarray(final, dtype=np.float64)
    if proxy_N.ndim != 1 or proxy_N.shape != final_N.shape:
        raise DataError(
            "each model has one proxy score and one final score, but their shapes are "
            f"{list(proxy_N.shape)} and {list(final_N.shape)}"
        )
    if not (np.isfinite(proxy_N).all() and np.isfinite(final_N).all()):
        raise DataError("scores to compare are finite, but these hold NaN or infinity")
    return proxy_N, final_N


def _silent_because(proxy_N: Scores, final_N: Scores) -> str:
    """Says why nothing can be said of these pairs; empty where something can."""
    if (count := len(proxy_N)) < FEWEST_PAIRS:
        return f"too few to say (n = {count}, at least {FEWEST_PAIRS} needed)"
    if not np.ptp(proxy_N):
        return "all proxy scores are equal"
    return "" if np.ptp(final_N) else "all final scores are equal"


def _with_interval(
    statistic: Callable[[Scores, Scores], float],
    pairs: tuple[Scores, Scores],
    resampled: Sequence[tuple[Scores, Scores]],
) -> Estimate:
    spread = [statistic(first, second) for first, second in resampled]
    low, high = np.quantile(spread, INTERVAL_QUANTILES)
    return Estimate(value=statistic(*pairs), low=float(low), high=float(high))


def _kendall(first_N: Scores, second_N: Scores) -> float:
    # "asymptotic" concerns the p-value, unused here: the exact one is slow
    return float(stats.kendalltau(first_N, second_N, variant="b", method="asymptotic").statistic)


def _spearman(first_N: Scores, second_N: Scores) -> float:
    """Gives Spearman's rho, from ranks: scores that are close stay distinct."""
    return float(stats.spearmanr(stats.rankdata(first_N), stats.rankdata(second_N)).statistic)


def _estimate(fields: Fields, key: str) -> Estimate | None:
    written = fields.get(key)
    if written is None:
        return None
    if not isinstance(written, Mapping):
        raise DataError(f"an agreement's {key} is an estimate or null, but is {written!r}")
    value, low, high = (_finite(written, name, of=key) for name in ("value", "low", "high"))
    return Estimate(value=value, low=low, high=high)


def _finite(fields: Fields, name: str, *, of: str) -> float:
    number = fields.get(name)
    if isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number):
        return number
    raise DataError(f"the {name} of an agreement's {of} is a finite number, but is {number!r}")
