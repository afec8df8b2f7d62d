"""Proxy against final: whether the search's short trainings rank students as full ones do.

Winners alone cannot tell, for they are all good ones: controls from all over the ranking are
trained to the end beside them. How well any ranking could agree is told by judging some trials
again with another seed: the same proxy disagrees with itself by that much.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.evaluate.agreement import rank_agreement, regret
from stillhouse.export.checkpoint import METRICS_FILE, read_metrics
from stillhouse.files import folder_written_aside, write_text_atomically
from stillhouse.recipe.candidates import judge_candidate
from stillhouse.search.trial import CandidateFailed, Trial, TrialState

if TYPE_CHECKING:
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.progress import Narrator

PROXY_FINAL_FILE = "proxy_final.json"

LEAST_LEARNT = 0.1
"""Share of the teacher's lead over a constant answer that the middle candidate should have."""


def trained_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trials that were trained and judged, each architecture once, by number."""
    return [t for t in trials if t.state is TrialState.COMPLETE and t.repeat_of is None]


def warn_of_little_learning(
    trials: Sequence[Trial], *, constant: float, teacher: float, narrator: Narrator
) -> None:
    """Says so where the short trainings left most candidates at the level of a constant answer.

    Such candidates are ranked by chance, whatever proposes them. It happens where the training set
    is small: a pass over few examples is few steps.

    Args:
        trials: Of a search that judges by the task.
        constant: Quality of the best answer that is the same for every example.
        teacher: Quality of the teacher on the same examples.
        narrator: Told of it.
    """
    qualities = [trial.quality for trial in trained_trials(trials) if trial.quality is not None]
    if not qualities or teacher <= constant:
        return
    middle = float(np.median(qualities))
    if middle < constant + LEAST_LEARNT * (teacher - constant):
        narrator.say(
            f"The candidates have hardly learnt the task: half of them score {middle:.4f} or less, "
            f"a constant answer {constant:.4f}, the teacher {teacher:.4f}. Their ranking is mostly "
            "chance; train them longer with --set search.epochs=... or more search.proxy_examples."
        )


def spread_over_ranking(trials: Sequence[Trial], count: int) -> list[Trial]:
    """Chooses trials at evenly spaced places of the quality ranking, both ends included.

    Args:
        trials: Trained ones.
        count: How many; all of them where there are no more.

    Returns:
        The chosen ones, best first.
    """
    ranked = sorted(trials, key=lambda trial: (-(trial.quality or 0.0), trial.number))
    if count >= len(ranked):
        return ranked
    places = np.linspace(0, len(ranked) - 1, count).round()
    return [ranked[int(place)] for place in places]


def choose_controls(trials: Sequence[Trial], winners: Sequence[Trial], count: int) -> list[Trial]:
    """Chooses the trials that check the proxy: spread over the ranking, no winner among them."""
    taken = {winner.number for winner in winners}
    return spread_over_ranking([t for t in trained_trials(trials) if t.number not in taken], count)


def keep_controls(bench: Workbench, finished: Mapping[int, Path]) -> None:
    """Copies the finished controls to `controls/<trial>`: one may be the student somebody wants."""
    for number, folder in finished.items():
        target = bench.run.path / "controls" / str(number)
        if not (target / METRICS_FILE).exists():
            with folder_written_aside(target) as aside:
                shutil.copytree(folder, aside, dirs_exist_ok=True)


def check_against_final(
    bench: Workbench,
    trials: Sequence[Trial],
    *,
    winners: Mapping[int, Path],
    controls: Mapping[int, Path],
) -> None:
    """Writes how well the proxy's ranking agrees with the final one, and says it.

    Args:
        bench: The run's workbench.
        trials: All trials of the search.
        winners: Folder of each winner's finished student, by the number of its trial.
        controls: Likewise of the controls.
    """
    by_number = {trial.number: trial for trial in trials}
    points = [
        _point(by_number[number], folder, role)
        for role, folders in (("winner", winners), ("control", controls))
        for number, folder in folders.items()
    ]
    proxy = [float(point["proxy"]) for point in points]
    final = [float(point["final"]) for point in points]
    agreement = rank_agreement(proxy, final, seed=bench.settings.seed)
    content = {
        "metric": bench.task.metrics[0],
        "set": "search-validation",
        "points": points,
        "agreement": agreement.to_dict(),
        "regret": regret(proxy, final),
        "noise": _noise(bench, trials),
    }
    write_text_atomically(bench.run.path / PROXY_FINAL_FILE, json.dumps(content, indent=2) + "\n")
    found = agreement.spearman
    bench.narrator.say(
        f"Proxy against final, {agreement.count} students: "
        + (
            agreement.reason
            if found is None
            else f"rank correlation {found.value:.2f} (95 % interval {found.low:.2f} to "
            f"{found.high:.2f})"
        )
        + "."
    )


def _point(trial: Trial, folder: Path, role: str) -> dict[str, Any]:
    metrics = read_metrics(folder)
    return {
        "trial": trial.number,
        "label": trial.architecture.label,
        "role": role,
        "proxy": trial.quality,
        "final": metrics["quality_search"],
        "latency_ms": trial.latency_ms,
    }


def _noise(bench: Workbench, trials: Sequence[Trial]) -> dict[str, Any] | None:
    """Judges some trials again with the next seed; what is known of an earlier start is kept."""
    count = bench.settings.final.noise_candidates
    seeds = [bench.settings.seed, bench.settings.seed + 1]
    ledger = bench.run.work / "noise.json"
    known = json.loads(ledger.read_text()) if ledger.exists() else {}
    pairs = []
    for trial in spread_over_ranking(trained_trials(trials), count):
        key = str(trial.number)
        if key not in known:
            name = f"again-{trial.number:04d}"
            try:
                judged = judge_candidate(bench, name, trial.architecture, seed=seeds[1])
                known[key] = judged.quality
            except CandidateFailed as error:
                bench.narrator.say(f"Judging trial {trial.number} again failed: {error}")
                known[key] = None
            ledger.parent.mkdir(parents=True, exist_ok=True)
            write_text_atomically(ledger, json.dumps(known))
        if known[key] is not None:
            pairs.append([trial.quality, known[key]])
    if not pairs:
        return None
    first, second = zip(*pairs, strict=True)
    agreement = rank_agreement(first, second, seed=bench.settings.seed)
    return {"seeds": seeds, "pairs": pairs, "agreement": agreement.to_dict()}
