"""AutoDistil at small scale: is its loss a judge, does few-shot pay, and what does training give?

Teacher all-MiniLM-L6-v2, English Wikipedia. Five questions, each resumable:

    python -m benchmarks.autodistil --small --part rates    # learning rates of a supernet
    python -m benchmarks.autodistil --small --part shots    # K = 3 supernets against one, 3 seeds
    python -m benchmarks.autodistil --small --part tuned    # the same after fine-tuning, after it
    python -m benchmarks.autodistil --small --part judge    # relation loss against quality after
    python -m benchmarks.autodistil --small --part student  # found, sliced and fresh, on five tasks

Students are fine-tuned alike; search-validation chooses among the evaluations, and quality is on
dev, which chose nothing. Intervals are over seeds and architectures (bootstrap).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from benchmarks.common import WORK, Records, enwiki_folder, glue_folder, heading, minilm_folder
from stillhouse.api import run_finetune_job
from stillhouse.evaluate.agreement import rank_agreement
from stillhouse.export.checkpoint import save_checkpoint
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.encoders import build_encoder, load_encoder
from stillhouse.model.students import student_config
from stillhouse.recipe.autodistil import open_nursery, sub_spaces
from stillhouse.recipe.supernets import Nursery, train_supernet
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, settings_from_dict
from stillhouse.space.architecture import Architecture
from stillhouse.space.search_space import SearchSpace
from stillhouse.supernet.sandwich import held_out_losses
from stillhouse.supernet.subnets import Supernet

SPACES = ("tiny", "small", "base")
SEEDS = (0, 1, 2)
FIXED_A_SPACE = 8
FINETUNE_RATE = 1e-4
FINETUNE_RATES = {"sst2": 3e-4}
"""By task, where it is another. On search-validation 3e-4 was better than 1e-4 for each of three
students on SST-2 and worse on MRPC; RTE, STS-B and CoLA stayed at chance with it."""
SUPERNET_RATE = 3e-4
SUPERNET_RATES = (4e-5, 1e-4, 3e-4, 1e-3)
RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained.

    Attributes:
        steps: Of a supernet.
        judge_tasks: On which the judge is checked.
        shots_task: On which few-shot and one-shot are compared, one student of each space.
        student_tasks: On which the found student is compared, with the seeds of each.
        most_train: Most training examples of a task.
    """

    steps: int
    batch: int
    length: int
    held_out: int
    judge_tasks: tuple[str, ...]
    shots_task: str
    student_tasks: Mapping[str, int]
    most_train: int
    epochs: float


SMALL = Size(
    steps=400,
    batch=16,
    length=64,
    held_out=128,
    judge_tasks=("mrpc", "sst2", "stsb"),
    shots_task="sst2",
    student_tasks={"sst2": 3, "mrpc": 3, "rte": 3, "stsb": 3, "cola": 3},
    most_train=4000,
    epochs=3.0,
)
FULL = Size(
    steps=20_000,
    batch=64,
    length=128,
    held_out=1000,
    judge_tasks=("mrpc", "stsb"),
    shots_task="sst2",
    student_tasks={"sst2": 3, "mrpc": 3, "rte": 3, "stsb": 3, "cola": 3},
    most_train=70_000,
    epochs=5.0,
)


def family_settings(
    size: Size, *, seed: int, one_shot: bool, steps: int, rate: float = SUPERNET_RATE
) -> RunSettings:
    """Settings of one set of supernets."""
    return settings_from_dict(
        {
            "recipe": "autodistil",
            "teacher": {"model": minilm_folder()},
            "corpus": {
                "name": str(enwiki_folder()),
                "length": size.length,
                "held_out": size.held_out,
                "max_tokens": 4 * size.steps * size.batch * size.length,
            },
            "supernet": {
                "one_shot": one_shot,
                "steps": steps,
                "batch_size": size.batch,
                "learning_rate": rate,
                "warmup_fraction": 0.05,
                "dropout": 0.0,
            },
            "device": {"threads": 1},
            "seed": seed,
        }
    )


class Family:
    """The supernets of one setting, trained or loaded."""

    def __init__(self, name: str, settings: RunSettings) -> None:
        path = WORK / "autodistil" / name
        with open_run(path, settings, asks=("limit",)) as run:
            teacher = load_encoder(settings.teacher.model)
            self.nursery: Nursery = open_nursery(
                settings, run, LoggingNarrator(), teacher, Accelerator(cpu=True)
            )
            self.spaces = sub_spaces(settings, architecture_of(teacher.model.config))
            self.supernets: dict[str, Supernet] = {
                name: train_supernet(self.nursery, name, space)
                for name, space in self.spaces.items()
            }

    def supernet_of(self, space: str) -> Supernet:
        """The supernet that holds a sub-space's students."""
        return self.supernets.get(space) or next(iter(self.supernets.values()))

    def losses(self, space: str, architectures: Sequence[Architecture]) -> list[float]:
        """Held-out relation losses of given students."""
        supernet = self.supernet_of(space)
        return held_out_losses(
            supernet,
            self.nursery.lesson,
            self.nursery.corpus.held_out,
            architectures,
            batch_size=self.nursery.settings.supernet.batch_size,
        )


def small_family(size: Size, name: str, rate: float) -> Family:
    """The supernet of the middle space alone."""
    settings = family_settings(size, seed=0, one_shot=False, steps=size.steps, rate=rate)
    return Family(name, replace(settings, supernet=replace(settings.supernet, spaces=("small",))))


def compare_rates(size: Size) -> None:
    """Learning rates of the supernet of the middle space, by the loss on held-out text."""
    for rate in SUPERNET_RATES:
        family = small_family(size, f"rate-{rate:g}-{size.steps}", rate)
        chosen = fixed(family.spaces["small"])
        losses = family.losses("small", chosen)
        print(
            f"  rate {rate:g}: mean held-out relation loss {np.mean(losses):.4f} "
            f"({min(losses):.4f} to {max(losses):.4f}, {len(chosen)} students, {size.steps} steps)",
            flush=True,
        )
        if rate == SUPERNET_RATES[-1]:
            untrained = Supernet(family.nursery.teacher.model, list(family.spaces["small"]))
            family.supernets["small"] = untrained
            losses = family.losses("small", chosen)
            print(f"  the teacher's slices, untrained: {np.mean(losses):.4f}", flush=True)


def families(size: Size, seed: int) -> dict[str, Family]:
    """Few-shot, and one-shot with equal total steps and with equal steps each."""
    kinds = {
        "few-shot": (False, size.steps),
        "one-shot, equal total": (True, len(SPACES) * size.steps),
        "one-shot, equal each": (True, size.steps),
    }
    return {
        name: Family(
            f"{name.replace(', ', '-').replace(' ', '-')}-{size.steps}-{seed}",
            family_settings(size, seed=seed, one_shot=one_shot, steps=steps),
        )
        for name, (one_shot, steps) in kinds.items()
    }


def fixed(space: SearchSpace, count: int = FIXED_A_SPACE) -> list[Architecture]:
    """Architectures spread over a space, the same whatever is trained."""
    everything = list(space)
    return [everything[round(i * (len(everything) - 1) / (count - 1))] for i in range(count)]


def finetuned(
    records: Records, job: Mapping[str, Any], checkpoint: Path, task: str, size: Size
) -> dict[str, Any]:
    """Fine-tunes a checkpoint on a task, or takes it from the records."""
    known = records.find(job)
    if known is not None:
        return known
    settings = settings_from_dict(
        {
            "task": {
                "name": f"glue/{task}",
                "directory": str(glue_folder()),
                "max_train": size.most_train,
            },
            "finetune": {
                "model": str(checkpoint),
                "learning_rates": [FINETUNE_RATES.get(task, FINETUNE_RATE)],
                "epochs": size.epochs,
                "evaluate_every": size.epochs / 3,
            },
            "seed": int(job["seed"]),
        }
    )
    name = "_".join(str(value) for value in job.values()).replace("/", "-").replace(" ", "-")
    result = run_finetune_job(settings, records.folder / "runs" / name, LoggingNarrator())
    metrics = result.metrics
    print(f"  {name}: {metrics['metric']} {metrics['quality']:.4f}", flush=True)
    return records.add(
        job,
        {"quality": metrics["quality"], "metric": metrics["metric"], "n": metrics["quality_count"]},
    )


def extracted(
    records: Records, family: Family, name: str, space: str, architecture: Architecture
) -> Path:
    """Writes a student's checkpoint once."""
    folder = records.folder / "students" / name / architecture.key
    if not folder.exists():
        model = family.supernet_of(space).extract(architecture)
        tokenizer = family.nursery.teacher.tokenizer
        save_checkpoint(folder, model, tokenizer, metrics={}, card="")
    return folder


def spread(values: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Mean of `[seeds, architectures]` and its 95 % bootstrap interval over both."""
    generator = np.random.default_rng(0)
    seeds, columns = values.shape
    means = [
        values[generator.integers(seeds, size=seeds)][
            :, generator.integers(columns, size=columns)
        ].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def compare_shots(size: Size) -> None:
    """Few-shot against one-shot on fixed students."""
    by_kind: dict[str, list[list[float]]] = {}
    for seed in SEEDS:
        for name, family in families(size, seed).items():
            spaces = sub_spaces(
                family_settings(size, seed=seed, one_shot=False, steps=size.steps),
                architecture_of(family.nursery.teacher.model.config),
            )
            row = [loss for space in SPACES for loss in family.losses(space, fixed(spaces[space]))]
            by_kind.setdefault(name, []).append(row)
            print(
                f"  seed {seed} {name}: mean held-out relation loss {np.mean(row):.4f}", flush=True
            )
    few = np.array(by_kind.pop("few-shot"))
    print(f"\nfew-shot: held-out relation loss {few.mean():.4f}, {len(SEEDS)} seeds, 24 students")
    for name, rows in by_kind.items():
        for place, space in enumerate((*SPACES, "all")):
            chosen = slice(None) if space == "all" else slice(8 * place, 8 * place + 8)
            relative = few[:, chosen] / np.array(rows)[:, chosen] - 1
            mean, low, high = spread(100 * relative)
            told = "not resolved" if low <= 0 <= high else "lower" if high < 0 else "higher"
            print(
                f"  few-shot's loss less that of {name} on {space}: {mean:+.1f} % "
                f"({low:+.1f} to {high:+.1f}): {told}"
            )


def compare_shots_tuned(size: Size) -> None:
    """Few-shot against one-shot after fine-tuning, on the middle student of each space."""
    records = Records(f"autodistil_tuned_{size.steps}")
    by_kind: dict[str, list[list[float]]] = {}
    for seed in SEEDS:
        few, *ones = families(size, seed).items()
        for name, family in (few, *ones):
            row = []
            for space in SPACES:
                [middle] = fixed(few[1].spaces[space], 3)[1:2]
                folder = extracted(records, family, f"{name}-{seed}", space, middle)
                job = {"kind": name, "space": space, "task": size.shots_task, "seed": seed}
                row.append(float(finetuned(records, job, folder, size.shots_task, size)["quality"]))
            by_kind.setdefault(name, []).append(row)
    few_shot = np.array(by_kind.pop("few-shot"))
    print(f"\n{size.shots_task} after fine-tuning, few-shot: {few_shot.mean():.4f}")
    for name, rows in by_kind.items():
        mean, low, high = spread(100 * (few_shot - np.array(rows)))
        told = "not resolved" if low <= 0 <= high else "better" if low > 0 else "worse"
        print(
            f"  few-shot less {name}: {mean:+.2f} points ({low:+.2f} to {high:+.2f}, "
            f"{len(SEEDS)} seeds, {len(SPACES)} students): {told}"
        )


def check_judge(size: Size) -> None:
    """Rank agreement of relation loss and fine-tuned quality."""
    records = Records(f"autodistil_judge_{size.steps}")
    settings = family_settings(size, seed=0, one_shot=False, steps=size.steps)
    family = Family(f"few-shot-{size.steps}-0", settings)
    chosen = [
        (space, architecture)
        for space, count in (("tiny", 6), ("small", 5), ("base", 5))
        for architecture in fixed(family.spaces[space], count)
    ]
    losses = [family.losses(space, [architecture])[0] for space, architecture in chosen]
    for task in size.judge_tasks:
        qualities = []
        for space, architecture in chosen:
            folder = extracted(records, family, "few-shot-0", space, architecture)
            job = {"task": task, "space": space, "shape": architecture.key, "seed": 0}
            qualities.append(float(finetuned(records, job, folder, task, size)["quality"]))
        agreement = rank_agreement([-loss for loss in losses], qualities, seed=0)
        print(f"\n{task}: {agreement}")


def compare_student(size: Size) -> None:
    """The found Small student, the teacher's slices, and fresh weights, fine-tuned alike."""
    records = Records(f"autodistil_student_{size.steps}")
    family = small_family(size, f"small-{size.steps}", SUPERNET_RATE)
    space = list(family.spaces["small"])
    losses = family.losses("small", space)
    best = space[int(np.argmin(losses))]
    print(f"found in small: {best.label}, relation loss {min(losses):.4f}")
    teacher = family.nursery.teacher
    sliced = Supernet(teacher.model, space).extract(best)
    fresh = build_encoder(student_config(best, teacher.model.config), seed=0)
    for name, model in (("sliced", sliced), ("fresh", fresh)):
        folder = records.folder / "students" / name / best.key
        if not folder.exists():
            save_checkpoint(folder, model, teacher.tokenizer, metrics={}, card="")
    extracted(records, family, "found", "small", best)
    for task, seeds in size.student_tasks.items():
        rows = {}
        for name in ("found", "sliced", "fresh"):
            folder = records.folder / "students" / name / best.key
            rows[name] = [
                float(
                    finetuned(
                        records, {"task": task, "from": name, "seed": seed}, folder, task, size
                    )["quality"]
                )
                for seed in range(seeds)
            ]
        told = ", ".join(
            f"{name} {np.mean(row):.4f} ({min(row):.4f} to {max(row):.4f})"
            for name, row in rows.items()
        )
        print(f"{task}: {told}; {seeds} seeds, least to most in brackets", flush=True)


PARTS = {
    "rates": compare_rates,
    "shots": compare_shots,
    "tuned": compare_shots_tuned,
    "judge": check_judge,
    "student": compare_student,
}


def main() -> None:
    """Answers one question, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="size", action="store_const", const=SMALL, default=SMALL)
    parser.add_argument("--full", dest="size", action="store_const", const=FULL)
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--steps", type=int, help="of a supernet, instead of the size's")
    given = parser.parse_args()
    size = given.size if given.steps is None else replace(given.size, steps=given.steps)
    heading("benchmarks.autodistil")
    for name, part in PARTS.items():
        if given.part in (name, "all"):
            part(size)


if __name__ == "__main__":
    main()
