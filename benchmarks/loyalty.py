"""Loyalty of distilled and of fine-tuned students of one shape to their teacher, on SST-2.

Both begin with the same slices of the teacher and see the same examples as often; one learns from
the teacher's outputs, the other from labels alone. What is compared are answers on sentences that
chose nothing (dev and labelled test, n = 2,693), with the paired difference of each seed and its
95 % interval over sentences and seeds together.

    python -m benchmarks.loyalty --small    # 8,192 training sentences, 2 epochs, 3 seeds
    python -m benchmarks.loyalty --full     # all training sentences, 3 epochs, 5 seeds
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax

from benchmarks.common import (
    WORK,
    glue_folder,
    heading,
    interval_over_both,
    read_report_set,
    tuned_teacher,
)
from stillhouse.api import run_distill_job
from stillhouse.data.encoding import EncodedSet, encode
from stillhouse.data.examples import Examples
from stillhouse.evaluate.loyalty import label_loyalty, probability_loyalty
from stillhouse.model.predict import predict
from stillhouse.model.teachers import load_model, load_tokenizer
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import settings_from_dict

CLOSE = 1e-6
SHAPE = "layers=3,hidden_size=384,heads=12,ffn_size=1536"
WAYS = {
    "distilled": {"logit_weight": 1.0, "label_weight": 0.0, "hidden_weight": 0.0},
    "fine-tuned": {"logit_weight": 0.0, "label_weight": 1.0, "hidden_weight": 0.0},
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained."""

    examples: int | None
    epochs: float
    seeds: int


SMALL = Size(examples=8_192, epochs=2.0, seeds=3)
FULL = Size(examples=None, epochs=3.0, seeds=5)


def student_folder(size: Size, way: str, seed: int, teacher: Path) -> Path:
    """Trains one student, or finds it trained."""
    settings = settings_from_dict(
        {
            "teacher": {"model": str(teacher), "finetune": "never"},
            "task": {
                "name": "glue/sst2",
                "directory": str(glue_folder()),
                "max_train": size.examples,
            },
            "student": SHAPE,
            "distill": WAYS[way],
            "final": {"epochs": size.epochs},
            "device": {"length": 64, "threads": 1},
            "seed": seed,
        }
    )
    name = f"loyalty-{size.examples or 'all'}-{size.epochs:g}/{way}-{seed}"
    return run_distill_job(settings, WORK / name, LoggingNarrator()).path


def answers(folder: Path, encoded: EncodedSet) -> NDArray[np.float32]:
    """Logits of a checkpoint; outputs are in the task's order of labels."""
    model, _ = load_model(str(folder))
    return predict(model, encoded)


def figures(
    student: NDArray[np.float32], teacher: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Figures of each sentence, whose means are accuracy and the two loyalties (SciPy's)."""
    ours_NC, theirs_NC = (softmax(logits.astype(float), axis=1) for logits in (student, teacher))
    with np.errstate(invalid="ignore"):
        distance_N = jensenshannon(ours_NC, theirs_NC, axis=1)
    # SciPy's is the root of a rounding error below 0, hence NaN, where both are nearly equal.
    are_equal_N = np.abs(ours_NC - theirs_NC).max(axis=1) < CLOSE
    distance_N = np.where(np.isnan(distance_N) & are_equal_N, 0.0, distance_N)
    return {
        "accuracy": (student.argmax(axis=1) == labels).astype(float),
        "label loyalty": (student.argmax(axis=1) == teacher.argmax(axis=1)).astype(float),
        "probability loyalty": 1 - distance_N,
    }


def check(theirs: NDArray[np.float64], ours: float | None) -> None:
    """Stops where SciPy's figure and ours differ."""
    if ours is None or not abs(ours - theirs.mean()) <= CLOSE:
        raise SystemExit(f"loyalty {ours} is not SciPy's {theirs.mean()}")


def difference(gaps_SN: NDArray[np.float64]) -> str:
    """Writes a difference with its interval; says where that does not tell its sign."""
    mean, low, high = interval_over_both(gaps_SN)
    verdict = "" if low > 0 or high < 0 else "; small: not evidence"
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f}){verdict}"


def main() -> None:
    """Trains and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="size", action="store_const", const=SMALL, default=SMALL)
    parser.add_argument("--full", dest="size", action="store_const", const=FULL)
    size = parser.parse_args().size
    heading("benchmarks.loyalty")
    teacher = tuned_teacher()
    texts, labels = read_report_set()
    dataset = Examples(text_a=texts).to_dataset(())
    encoded = encode(dataset, load_tokenizer(str(teacher)), max_length=128)
    theirs = answers(teacher, encoded)
    print(
        f"{SHAPE}; {size.examples or 'all'} training sentences, {size.epochs:g} epochs; "
        f"teacher's accuracy {(theirs.argmax(axis=1) == labels).mean():.4f}, n = {len(labels):,}\n"
    )
    found: dict[str, list[dict[str, NDArray[Any]]]] = {way: [] for way in WAYS}
    for seed in range(size.seeds):
        for way in WAYS:
            ours = answers(student_folder(size, way, seed, teacher), encoded)
            told = figures(ours, theirs, labels)
            check(told["label loyalty"], label_loyalty(ours, theirs, labels))
            check(told["probability loyalty"], probability_loyalty(ours, theirs, labels))
            found[way].append(told)
            means = ", ".join(f"{name} {values.mean():.4f}" for name, values in told.items())
            print(f"seed {seed}, {way}: {means}", flush=True)
    print("\ndistilled less fine-tuned, mean over seeds (95 % interval)")
    for name in found["distilled"][0]:
        gaps_SN = np.stack(
            [
                one[name] - other[name]
                for one, other in zip(found["distilled"], found["fine-tuned"], strict=True)
            ]
        )
        print(f"  {name}: {difference(gaps_SN)}")


if __name__ == "__main__":
    main()
