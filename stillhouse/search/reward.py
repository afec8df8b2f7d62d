"""One number per trial, from quality and latency: what a single-objective strategy maximises."""

import math
from dataclasses import dataclass

from stillhouse.errors import SettingsError
from stillhouse.search.trial import Trial, TrialState

ALPHA = -0.06
"""Exponent of the latency in KD-NAS (arXiv 2303.09639), as its re-implementations quote it."""

BETA = 0.6
"""Share of the teacher's latency at which the factor is 1 in KD-NAS; the same sources."""

_LEAST_QUALITY = 0.01  # the re-implementations clip here, so that no quality turns the sign


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """Quality times a power of the latency: `max(quality, 0.01) · (latency_ms / target_ms)^alpha`.

    Source: KD-NAS (Trivedi et al., arXiv 2303.09639); the form is MnasNet's. With alpha below 0 a
    student faster than the target gets a factor above 1.

    Args:
        target_ms: Latency of factor 1: `BETA` times the teacher's, or the user's limit; above 0.
        alpha: Exponent, 0 or below; 0 leaves the quality alone.

    Raises:
        SettingsError: A value breaks its rule.
    """

    target_ms: float
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        """Check both rules once."""
        if not 0 < self.target_ms < math.inf:
            raise SettingsError(
                f"the latency target of the reward must be finite and above 0 ms, "
                f"got {self.target_ms}"
            )
        if not -math.inf < self.alpha <= 0:
            raise SettingsError(
                f"alpha of the reward must be finite and at most 0, got {self.alpha}; "
                "above 0 it would favour slow students"
            )

    def __call__(self, quality: float, latency_ms: float) -> float:
        """Return the reward.

        Args:
            quality: Score, higher is better.
            latency_ms: Latency on the device of the search, above 0.

        Raises:
            ValueError: The latency is not above 0.
        """
        if latency_ms <= 0:
            raise ValueError(f"a latency must be above 0 ms, got {latency_ms}")
        return float(max(quality, _LEAST_QUALITY) * (latency_ms / self.target_ms) ** self.alpha)

    def of(self, trial: Trial) -> float | None:
        """Return the reward of a trial, or None unless it is complete."""
        if trial.state is not TrialState.COMPLETE:
            return None
        assert trial.quality is not None
        assert trial.latency_ms is not None
        return self(trial.quality, trial.latency_ms)
