"""KD-NAS: a controller that learns to predict a candidate's reward, over the shared search.

Source: Trivedi et al., "Neural Architecture Search for Effective Teacher-Student Knowledge Transfer
in Language Models", arXiv 2303.09639. What differs here: the limits are hard (a candidate over one
is never trained and counts as the lowest reward so far), and beside the trial of highest reward the
front's knees are trained to the end.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stillhouse.files import write_text_atomically
from stillhouse.search.controller import Controller
from stillhouse.search.controller_settings import (
    ControllerSettings,
    default_controller,
    published_controller,
)
from stillhouse.search.episodes import controller_summary
from stillhouse.search.reward import ALPHA, Reward
from stillhouse.search.reward_lstm import reward_lstm
from stillhouse.search.trial import Trial, TrialState

if TYPE_CHECKING:
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.device_settings import LimitSettings
    from stillhouse.run.settings import SearchSettings
    from stillhouse.search.loop import Judgement
    from stillhouse.space.search_space import SearchSpace

CONTROLLER_FILE = "controller.json"
DEFAULT_ALPHA = -0.02


def controller_settings(search: SearchSettings) -> ControllerSettings:
    """Returns the constants that the settings name."""
    if search.controller == "published":
        return published_controller()
    assert search.most_candidates is not None  # settings give the controller a number always
    return default_controller(search.most_candidates)


def make_controller(bench: Workbench, space: SearchSpace) -> Controller:
    """Builds the controller over a space; it reads the rewards that `with_reward` recorded."""
    settings = controller_settings(bench.settings.search)
    return Controller(space, settings, reward_of, reward_lstm(space), seed=bench.settings.seed)


def reward_of(trial: Trial) -> float | None:
    """Returns the recorded reward of a trial, or `None` of one that was not judged."""
    reward = trial.attributes.get("reward")
    return float(reward) if isinstance(reward, int | float) else None


def with_reward(
    settings: SearchSettings, limits: LimitSettings, trial: Trial, judgement: Judgement
) -> Judgement:
    """Adds the reward to a judgement, for a trial whose latency is known.

    The latency is set against the teacher's of the same interleaved measurement, so that a noisy
    machine cancels out, or against the limit on it where there is one.
    """
    teacher_ms = trial.attributes["teacher_latency_ms"]
    assert isinstance(teacher_ms, int | float)
    assert trial.latency_ms is not None
    reward = Reward(target_ms=target_ms(settings, limits, teacher_ms), alpha=alpha_of(settings))
    value = reward(judgement.quality, trial.latency_ms)
    return replace(judgement, attributes={**judgement.attributes, "reward": value})


def alpha_of(search: SearchSettings) -> float:
    """Returns the exponent of the latency: the user's, the paper's, or ours.

    The paper's says that half the latency is worth 4 % of the quality. Among short distillations on
    SST-2 the best students of twice the latency are only 1.7 % better (benchmarks/tables), so that
    a search with it ends at the fastest students of the space, whatever the limit.
    """
    if search.alpha is not None:
        return search.alpha
    return ALPHA if search.controller == "published" else DEFAULT_ALPHA


def target_ms(settings: SearchSettings, limits: LimitSettings, teacher_ms: float) -> float:
    """Returns the latency at which the reward is the quality itself: a limit, or β · teacher."""
    allowed = [] if limits.latency_ms is None else [limits.latency_ms]
    if limits.speedup is not None:
        allowed.append(teacher_ms / limits.speedup)
    return min(allowed, default=settings.beta * teacher_ms)


def best_by_reward(trials: Sequence[Trial]) -> Trial | None:
    """Returns the trained trial of highest reward, the earliest of equals."""
    complete = (trial for trial in trials if trial.state is TrialState.COMPLETE)
    judged = [(reward_of(trial), trial) for trial in complete if trial.repeat_of is None]
    known = [(reward, -trial.number, trial) for reward, trial in judged if reward is not None]
    return max(known, key=lambda item: item[:2])[2] if known else None


def write_controller(
    bench: Workbench, limits: LimitSettings, controller: Controller, trials: Sequence[Trial]
) -> str:
    """Writes what the controller did and learnt into the run directory.

    Args:
        bench: The run's workbench.
        limits: The limits of the search.
        controller: Told all of the trials.
        trials: Give the teacher's latency, the median over its measurements.

    Returns:
        The verdict on it, for people.
    """
    search = bench.settings.search
    settings = controller_settings(search)
    summary = controller_summary(controller.episodes())
    timed = [trial.attributes.get("teacher_latency_ms") for trial in trials]
    known_ms = [ms for ms in timed if isinstance(ms, int | float)]
    reference_ms = statistics.median(known_ms) if known_ms else None
    content = {
        "settings": {
            "name": search.controller,
            "episodes": settings.episodes,
            "per_episode": settings.per_episode,
            "learning_rate": settings.learning_rate,
            "passes": settings.passes,
        },
        "reward": {
            "target_ms": None if reference_ms is None else target_ms(search, limits, reference_ms),
            "alpha": alpha_of(search),
            "quality": search.quality,
        },
        **summary,
    }
    write_text_atomically(bench.run.path / CONTROLLER_FILE, json.dumps(content, indent=2) + "\n")
    return str(summary["verdict"])
