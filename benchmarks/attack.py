"""The TextFooler attack on SST-2: its throughput, and how a teacher and its students stand it.

Throughput is in examples a minute on the same dev sentences, the ways in turn: one text after the
other with every query computed, as the official code does it; one text after the other without
the queries that decide nothing; and 64 texts at once. Every decision, and every count of queries,
must be the same.

Then teacher and students are attacked on more dev sentences, with the counter-fitted neighbours as
synonyms and WordNet's parts of speech, without and with a similarity by all-MiniLM-L6-v2; and
evaluated on AdvGLUE.

    python -m benchmarks.attack --small    # throughput on 50 sentences, attack on 200
    python -m benchmarks.attack --full     # throughput on 200, attack on all 872

Models are those of `int8_student` unless --models names others, teacher first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeAlias

import numpy as np
import torch

from benchmarks.common import WORK, Records, glue_folder, heading, minilm_folder
from stillhouse.data.task import Task, TaskSettings, load_task
from stillhouse.evaluate.attack import TEXTS_AT_ONCE, Attack, Target, attack_targets
from stillhouse.evaluate.attack_constraints import ListedParts, Swap
from stillhouse.evaluate.attack_scores import Figure
from stillhouse.evaluate.synonyms import read_synonyms
from stillhouse.recipe.attack_report import AttackReport
from stillhouse.recipe.attacking import (
    AttackJob,
    ConstraintSettings,
    attack_checkpoints,
    choose_targets,
)
from stillhouse.recipe.victims import Victim, load_victim
from stillhouse.run.progress import LoggingNarrator

ROUNDS = 3
AT_ONCE = {"alone": 1, "together": TEXTS_AT_ONCE}
WAYS = {
    "plain": "one by one, all queries computed",
    "alone": "one by one",
    "together": f"{TEXTS_AT_ONCE} at once",
}
Found: TypeAlias = tuple[tuple[str, ...], int, int]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How many dev sentences."""

    timed: int
    attacked: int


SMALL = Size(timed=50, attacked=200)
FULL = Size(timed=200, attacked=872)


def robustness_folder() -> Path:
    """Finds the folder of synonym files and of AdvGLUE."""
    folder = glue_folder().parent / "robustness"
    if (folder / "synonyms" / "counterfitted_neighbors.json").exists():
        return folder
    raise SystemExit(f"no synonyms found: there is no {folder}/synonyms")


def default_models() -> list[str]:
    """Finds the teacher and the students of `int8_student`."""
    run = WORK / "int8-student-12-1"
    students = sorted(path.parent for path in run.glob("students/*/config.json"))
    if not (run / "teacher" / "config.json").exists() or not students:
        raise SystemExit(
            "no models found: run python -m benchmarks.int8_student --small first, or name some "
            "with --models"
        )
    return [str(path) for path in (run / "teacher", *students)]


def attack_plainly(target: Target, victim: Victim, attack: Attack) -> Found:
    """Attacks one text with every query computed; gives words, last answer and queries."""
    words, label = target.words, target.label
    first = victim.answer([target.with_words(words)])[0]
    if first.argmax() != label:
        return words, int(first.argmax()), 1
    blanked = [(*words[:i], attack.unknown, *words[i + 1 :]) for i in range(len(words))]
    without = victim.answer([target.with_words(one) for one in blanked])
    costs = first[label] - without[:, label]
    new = without.argmax(axis=1)
    costs += np.where(new != label, without.max(axis=1) - first[new], 0)
    queries, now = 1 + len(words), words
    for place in sorted(range(len(words)), key=lambda one: -costs[one]):
        synonyms = attack.synonyms_of(words[place])
        if not synonyms:
            continue
        queries += len(synonyms)
        swaps = [Swap(original=words, words=now, position=place, synonym=one) for one in synonyms]
        answers = victim.answer([target.with_words(one.swapped) for one in swaps])
        allowed = attack.constraints[0].judge(swaps).allowed
        flips = (answers.argmax(axis=1) != label) & allowed
        if flips.any():
            best = int(flips.argmax())
            return swaps[best].swapped, int(answers[best].argmax()), queries
        left = answers[:, label] + ~allowed
        if left.min() < first[label]:
            now = swaps[int(left.argmin())].swapped
    return now, label, queries


def timed(victim: Victim, targets: Sequence[Target], way: str) -> tuple[float, dict[int, Found]]:
    """Attacks sentences in one of the ways; gives seconds, and what was found by example."""
    files = robustness_folder() / "synonyms"
    attack = Attack(
        synonyms=read_synonyms(files / "counterfitted_neighbors.json"),
        unknown=victim.unknown,
        constraints=(ListedParts(files / "wordnet_synonyms.tsv"),),
    )
    victim.answer([targets[0].texts])
    start_s = time.monotonic()
    if way == "plain":
        found = {one.key: attack_plainly(one, victim, attack) for one in targets}
    else:
        outcomes = attack_targets(targets, victim.answer, attack, at_once=AT_ONCE[way])
        found = {one.key: (one.words, one.final, one.queries) for one in outcomes}
    return time.monotonic() - start_s, found


def throughput(models: Sequence[str], task: Task, size: Size) -> None:
    """Prints examples a minute of each way, and how many times that of the plain one it is."""
    records = Records("attack")
    print(
        f"examples a minute, {size.timed} dev sentences, median of {ROUNDS} rounds in turn\n"
        f"{'model':<40}" + "".join(f"{WAYS[way]:>38}" for way in WAYS)
    )
    for model in models:
        job = {
            "model": model,
            "sentences": size.timed,
            "threads": torch.get_num_threads(),
        }
        record = records.find(job) or records.add(job, {"cost_s": rounds(model, task, size.timed)})
        costs_s = {way: median(record["cost_s"][way]) for way in WAYS}
        told = [
            f"{60 * size.timed / cost_s:.1f} ({costs_s['plain'] / cost_s:.2f} times)"
            for cost_s in costs_s.values()
        ]
        name = "/".join(Path(model).parts[-2:])
        print(f"{name:<40}" + "".join(f"{one:>38}" for one in told), flush=True)


def rounds(model: str, task: Task, count: int) -> dict[str, list[float]]:
    """Times all ways in turn; what they find must be the same."""
    victim = load_victim(model, task.label_names, max_length=128)
    targets = choose_targets(task, most=count, seed=0)
    costs_s: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        outcomes = []
        for way in WAYS:
            cost_s, found = timed(victim, targets, way)
            costs_s[way].append(cost_s)
            outcomes.append(found)
        if any(found != outcomes[0] for found in outcomes):
            raise SystemExit(f"{model}: the ways of attacking decide differently")
    return costs_s


def attacked(models: Sequence[str], size: Size, *, similar: bool) -> AttackReport:
    """Attacks all models on the same sentences, or finds them attacked."""
    folder = robustness_folder()
    job = AttackJob(
        models=tuple(models),
        task=TaskSettings(name="glue/sst2", directory=str(glue_folder())),
        synonyms=folder / "synonyms" / "counterfitted_neighbors.json",
        constraints=ConstraintSettings(
            parts_of_speech=folder / "synonyms" / "wordnet_synonyms.tsv",
            similarity=minilm_folder() if similar else None,
        ),
        examples=size.attacked,
        adv_glue=folder / "adv_glue" / "dev_ann.json",
    )
    names = "-".join("_".join(Path(model).parts[-2:]) for model in models)
    name = f"attack/{names}{'-similar' if similar else ''}"
    return attack_checkpoints(job, WORK / name, LoggingNarrator())


def percent(figure: Figure | None) -> str:
    """Writes a share and its interval."""
    if figure is None:
        return "-"
    return f"{100 * figure.value:.1f} ({100 * figure.low:.1f} to {100 * figure.high:.1f})"


def plain(figure: Figure | None, sign: str = "") -> str:
    """Writes a mean and its interval."""
    if figure is None:
        return "-"
    return f"{figure.value:{sign}.1f} ({figure.low:{sign}.1f} to {figure.high:{sign}.1f})"


def print_attack(report: AttackReport) -> None:
    """Prints figures of the attack, differences and what the attack was."""
    print(
        f"\n{'model':<40}{'accuracy %':>22}{'after attack %':>22}{'queries':>24}"
        f"{'words changed %':>22}   n = {report.texts}"
    )
    for one in report.models:
        scores, name = one.scores, "/".join(Path(one.model).parts[-2:])
        print(
            f"{name:<40}{percent(scores.original_accuracy):>22}"
            f"{percent(scores.after_attack_accuracy):>22}{plain(scores.queries):>24}"
            f"{percent(scores.changed_fraction):>22}"
        )
    for pair in report.differences:
        left = pair.difference.after_attack_accuracy
        print(
            f"{'/'.join(Path(pair.model).parts[-2:])} less {'/'.join(Path(pair.less).parts[-2:])}: "
            f"after attack {100 * left.value:+.1f} points ({100 * left.low:+.1f} to "
            f"{100 * left.high:+.1f}), queries {plain(pair.difference.queries, '+')}"
        )
    print(f"{report.without_synonyms} of {report.texts} texts have no word with a synonym")
    for line in report.conditions:
        print(f"  {line}")


def print_adv_glue(report: AttackReport) -> None:
    """Prints accuracy on AdvGLUE beside the originals."""
    print(f"\nAdvGLUE dev\n{'model':<40}{'perturbed %':>28}{'of those with original %':>34}"
          f"{'originals %':>34}")  # fmt: skip
    for row in report.adv_glue:
        counts = [
            f"{percent(figure)}, n = {figure.count}" if figure else "-"
            for figure in (row.perturbed, row.perturbed_with_original, row.originals)
        ]
        name = "/".join(Path(row.model).parts[-2:])
        print(f"{name:<40}{counts[0]:>28}{counts[1]:>34}{counts[2]:>34}")


def main() -> None:
    """Times and attacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="size", action="store_const", const=SMALL, default=SMALL)
    parser.add_argument("--full", dest="size", action="store_const", const=FULL)
    parser.add_argument("--models", nargs="+", help="checkpoint folders, teacher first")
    parser.add_argument("--sentences", type=int, help="of both parts, for a trial")
    given = parser.parse_args()
    count = given.sentences
    size = given.size if count is None else Size(timed=count, attacked=count)
    models = given.models or default_models()
    heading("benchmarks.attack")
    task = load_task(TaskSettings(name="glue/sst2", directory=str(glue_folder())))
    throughput(models, task, size)
    for similar in (False, True):
        report = attacked(models, size, similar=similar)
        print_attack(report)
    print_adv_glue(report)


if __name__ == "__main__":
    main()
