"""What controller.json tells of the learnt controller, and whether it learnt anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stillhouse.evaluate.agreement import Estimate
from stillhouse.report.fields import (
    Fields,
    finite,
    integer,
    mapping,
    mappings,
    number,
    read_json,
    sequence,
    text,
    truth,
)

CONTROLLER_FILE = "controller.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One episode; `predictions` are (predicted, true) rewards, made before it was learnt from."""

    number: int
    epsilon: float | None
    trials: int
    last_trial: int | None
    random: int | None
    exploited: int | None
    failed: int | None
    infeasible: int | None
    best_reward: float | None
    predictions: tuple[tuple[float, float], ...]
    correlation: float | None
    trained_on: int | None

    @property
    def is_learnt(self) -> bool:
        """Whether the model that predicted had been trained at all."""
        return bool(self.trained_on)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerRecord:
    """The controller's constants, episodes and verdict; `has_learnt` is None if too few to say."""

    constants: str
    planned: int | None
    per_episode: int | None
    learning_rate: float | None
    passes: int | None
    episodes: tuple[Episode, ...]
    random_share: float | None
    correlation: Estimate | None
    correlation_count: int | None
    has_learnt: bool | None
    verdict: str
    target_ms: float | None
    alpha: float | None
    quality: str

    @property
    def learnt_episodes(self) -> tuple[Episode, ...]:
        """Episodes whose predictions come from a trained model."""
        return tuple(e for e in self.episodes if e.is_learnt and e.predictions)


def read_controller(run: Path, notes: list[str]) -> ControllerRecord | None:
    """Read controller.json; None for a run without a controller."""
    fields = read_json(run / CONTROLLER_FILE, notes)
    if not fields:
        return None
    settings, reward = mapping(fields, "settings"), mapping(fields, "reward")
    correlation = mapping(fields, "correlation")
    return ControllerRecord(
        constants=text(settings, "name"),
        planned=integer(settings, "episodes"),
        per_episode=integer(settings, "per_episode"),
        learning_rate=number(settings, "learning_rate"),
        passes=integer(settings, "passes"),
        episodes=tuple(
            _episode(place, episode) for place, episode in enumerate(mappings(fields, "episodes"))
        ),
        random_share=number(fields, "random_share"),
        correlation=_estimate(correlation),
        correlation_count=integer(correlation, "count"),
        has_learnt=truth(fields, "has_learnt"),
        verdict=text(fields, "verdict"),
        target_ms=number(reward, "target_ms"),
        alpha=number(reward, "alpha"),
        quality=text(reward, "quality"),
    )


def _episode(place: int, fields: Fields) -> Episode:
    told = integer(fields, "number")
    return Episode(
        number=place if told is None else told,
        epsilon=number(fields, "epsilon"),
        trials=len(sequence(fields, "trials")),
        last_trial=_last(sequence(fields, "trials")),
        random=integer(fields, "random"),
        exploited=integer(fields, "exploited"),
        failed=integer(fields, "failed"),
        infeasible=integer(fields, "infeasible"),
        best_reward=number(fields, "best_reward"),
        predictions=_predictions(fields),
        correlation=number(fields, "correlation"),
        trained_on=integer(fields, "trained_on"),
    )


def _last(trials: list[object]) -> int | None:
    """The highest number of a trial."""
    known = [found for trial in trials if (found := finite(trial)) is not None]
    return int(max(known)) if known else None


def _predictions(fields: Fields) -> tuple[tuple[float, float], ...]:
    """Pairs of finite numbers; none if the lists do not belong together."""
    predicted, rewards = sequence(fields, "predicted"), sequence(fields, "rewards")
    if len(predicted) != len(rewards):
        return ()
    pairs = [(finite(p), finite(r)) for p, r in zip(predicted, rewards, strict=True)]
    return tuple((p, r) for p, r in pairs if p is not None and r is not None)


def _estimate(fields: Fields) -> Estimate | None:
    value, low, high = (number(fields, key) for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return None
    return Estimate(value=value, low=low, high=high)
