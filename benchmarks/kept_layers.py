"""Which layers of the teacher a student should begin as: spread ones or those of the uniform map.

Slices keep the first and the last layer and spread the others between them (`distill.kept_layers`
spread), or they keep those that the uniform map compares with (uniform). Teacher all-MiniLM-L6-v2,
fine-tuned on each task; students of 3 of its 6 layers, as wide as it or half as wide, are distilled
from its outputs alone and from its outputs, states and attention under the uniform map, at two
learning rates. Both beginnings have the same seed, rate, examples and order; scores are on
sentences that chose nothing.

    python -m benchmarks.kept_layers --small    # 2,000 examples a task; resumes
    python -m benchmarks.kept_layers --full     # all examples; resumes
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.common import WORK, Records, glue_folder, heading, interval, minilm_folder, spread
from stillhouse.api import run_distill_job, run_finetune_job
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import settings_from_dict

SHAPES = {
    "as wide": "layers=3",
    "half as wide": "layers=3,hidden_size=192,heads=12,ffn_size=768",
}
TERMS: dict[str, dict[str, float]] = {
    "outputs": {},
    "outputs, states, attention": {"hidden_weight": 1.0, "attention_weight": 1.0},
}
RULES = ("spread", "uniform")
RATES = (3e-4, 1e-3)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained; the examples of the teacher and of the student are of each task."""

    teacher_examples: int | None
    most_train: int | None
    teacher_epochs: float
    epochs: float
    seeds: int


SMALL = Size(teacher_examples=6_000, most_train=2_000, teacher_epochs=2.0, epochs=3.0, seeds=3)
FULL = Size(teacher_examples=None, most_train=None, teacher_epochs=3.0, epochs=5.0, seeds=5)


def tasks(size: Size) -> dict[str, dict[str, Any]]:
    """Settings of the tasks by the name that is printed."""
    tagging = glue_folder().parent / "tagging" / "conll2000"
    return {
        "SST-2 (accuracy, dev, n = 872)": {
            "name": "glue/sst2",
            "directory": str(glue_folder()),
            "max_train": size.most_train,
            "max_length": 64,
        },
        "CoNLL-2000 chunks (entity F1, test, n = 2,012)": {
            "name": f"conll:{tagging / 'train.txt'}",
            "dev": f"conll:{tagging / 'test.txt'}",
            "max_train": size.most_train,
            "max_length": 64,
        },
    }


def teacher_of(title: str, size: Size) -> Path:
    """Fine-tunes the teacher of a task, or finds it tuned."""
    settings = settings_from_dict(
        {
            "finetune": {
                "model": minilm_folder(),
                "epochs": size.teacher_epochs,
                "learning_rates": [1.2e-4],
            },
            "task": tasks(size)[title] | {"max_train": size.teacher_examples},
        }
    )
    name = f"teacher-{title.split(maxsplit=1)[0].lower()}-{size.teacher_examples or 'all'}"
    return run_finetune_job(settings, WORK / "kept_layers" / name, LoggingNarrator()).path


def quality(records: Records, size: Size, job: dict[str, Any]) -> dict[str, Any]:
    """Distils a student, or takes what is known of it; its quality, and what it began as."""
    known = records.find(job)
    if known is None:
        settings = settings_from_dict(
            {
                "teacher": {"model": str(teacher_of(job["task"], size)), "finetune": "never"},
                "task": tasks(size)[job["task"]],
                "student": SHAPES[job["shape"]],
                "distill": {
                    "learning_rate": job["rate"],
                    "kept_layers": job["rule"],
                    **TERMS[job["terms"]],
                },
                "device": {"kind": "analytic", "chip": "tpu-v4i", "length": 32},
                "final": {"epochs": size.epochs},
                "seed": job["seed"],
            }
        )
        name = "_".join(str(value) for value in job.values()).replace("/", "-")
        student = run_distill_job(settings, records.folder / "runs" / name, LoggingNarrator())
        told = student.metrics
        known = records.add(
            job,
            {
                "quality": told["quality"],
                "initialisation": told["initialisation"],
            },
        )
        print(f"  {job}: {known['quality']:.4f}", flush=True)
    return known


def main() -> None:
    """Runs what is missing and prints the scores and their paired differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--small", dest="size", action="store_const", const=SMALL)
    group.add_argument("--full", dest="size", action="store_const", const=FULL)
    size: Size = parser.parse_args().size
    heading("benchmarks.kept_layers")
    records = Records("kept_layers")
    for title, shape, terms, rate in product(tasks(size), SHAPES, TERMS, RATES):
        found = {
            rule: [
                quality(
                    records,
                    size,
                    {
                        "task": title,
                        "shape": shape,
                        "terms": terms,
                        "examples": size.most_train,
                        "rule": rule,
                        "rate": rate,
                        "seed": seed,
                    },
                )
                for seed in range(size.seeds)
            ]
            for rule in RULES
        }
        print(f"\n{title}; {shape}; {terms}; rate {rate:g}")
        for rule, told in found.items():
            layers = ", ".join(str(layer + 1) for layer in told[0]["initialisation"]["layers"])
            print(f"  {rule} ({layers}): {spread([one['quality'] for one in told])}")
        gaps = [
            100 * (ours["quality"] - theirs["quality"])
            for ours, theirs in zip(found["uniform"], found["spread"], strict=True)
        ]
        _, low, high = interval(gaps)
        unresolved = "" if low > 0 or high < 0 else ": not resolved; small: not evidence"
        print(
            f"  uniform less spread: {spread(gaps, '+.2f')} points, "
            f"n = {size.seeds} seeds{unresolved}",
            flush=True,
        )


if __name__ == "__main__":
    main()
