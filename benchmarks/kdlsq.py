"""A teacher of SST-2 in 8, 4 and 2 bits: trained so (KDLSQ) against quantised alone.

Both have the same first ranges; one learns from the model in full precision, the other is left as
it is. What is compared are answers on sentences that chose nothing (dev and labelled test,
n = 2,693), with the paired difference and its 95 % interval over sentences and seeds together. A
seed decides the examples that set ranges and their order in the training.

    python -m benchmarks.kdlsq --small    # 2,048 training sentences, 3 seeds
    python -m benchmarks.kdlsq --full     # all training sentences, 3 seeds
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import (
    WORK,
    glue_folder,
    heading,
    interval_over_both,
    read_report_set,
    tuned_teacher,
)
from stillhouse.api import run_quantise_job
from stillhouse.data.encoding import EncodedSet, encode
from stillhouse.data.examples import Examples
from stillhouse.model.lsq import load_quantised
from stillhouse.model.predict import predict
from stillhouse.model.teachers import load_model, load_tokenizer
from stillhouse.recipe.quantise_bench import open_quantise_bench
from stillhouse.recipe.quantising import quantised_copy
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, settings_from_dict

BITS = (8, 4, 2)
SEEDS = 3
LENGTH = 64


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained."""

    examples: int | None
    epochs: float


SMALL = Size(examples=2_048, epochs=3.0)
FULL = Size(examples=None, epochs=3.0)


def run_settings(teacher: Path, size: Size, *, ranges: str, bits: int, seed: int) -> RunSettings:
    """Settings of one quantisation."""
    return settings_from_dict(
        {
            "quantise": {
                "model": str(teacher),
                "weight_bits": bits,
                "ranges": ranges,
                "epochs": size.epochs,
            },
            "task": {
                "name": "glue/sst2",
                "directory": str(glue_folder()),
                "max_train": size.examples,
                "max_length": LENGTH,
            },
            "seed": seed,
        }
    )


def untrained_answers(
    settings: RunSettings, path: Path, encoded: EncodedSet
) -> NDArray[np.float32]:
    """Logits of the model as it is before its training in few bits."""
    narrator = LoggingNarrator()
    with open_run(path, settings) as run:
        bench = open_quantise_bench(settings, run, narrator)
        return bench.logits(quantised_copy(bench), encoded)


def answers(
    settings: RunSettings, path: Path, encoded: EncodedSet
) -> dict[str, NDArray[np.float32]]:
    """Logits after the training and before it, computed once and kept in the run's folder."""
    file = path / "answers.npz"
    if not file.exists():
        aside = path.with_name(f"{path.name}-ranges")
        found = {
            "untrained": untrained_answers(settings, aside, encoded),
            "trained": predict(load_quantised(path / "model"), encoded),
        }
        np.savez(file.with_suffix(".part.npz"), **found)
        file.with_suffix(".part.npz").replace(file)
    with np.load(file) as kept:
        return {name: kept[name] for name in kept.files}


def spread(values_SN: NDArray[Any], form: str = ".4f") -> str:
    """Writes mean and interval."""
    mean, low, high = interval_over_both(values_SN)
    return f"{mean:{form}} ({low:{form}} to {high:{form}})"


def verdict(gaps_SN: NDArray[Any]) -> str:
    """Writes a difference; says where its interval does not tell its sign."""
    _, low, high = interval_over_both(gaps_SN)
    said = "" if low > 0 or high < 0 else "; small: not evidence"
    return f"{spread(gaps_SN, '+.4f')}{said}"


def main() -> None:
    """Quantises and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="size", action="store_const", const=SMALL, default=SMALL)
    parser.add_argument("--full", dest="size", action="store_const", const=FULL)
    parser.add_argument("--ranges", choices=("error", "kl", "quantile"), default="error")
    parser.add_argument("--examples", type=int, help="Other number of training sentences.")
    parsed = parser.parse_args()
    size: Size = parsed.size
    if parsed.examples is not None:
        size = Size(examples=parsed.examples, epochs=size.epochs)
    heading("benchmarks.kdlsq")
    teacher = tuned_teacher()
    texts, labels = read_report_set()
    dataset = Examples(text_a=texts).to_dataset(())
    encoded = encode(dataset, load_tokenizer(str(teacher)), max_length=LENGTH)
    exact = predict(load_model(str(teacher))[0], encoded).argmax(axis=1)
    print(
        f"{size.examples or 'all'} training sentences, {size.epochs:g} epochs, {SEEDS} seeds, "
        f"first ranges {parsed.ranges}; n = {len(labels):,}\nfloat32: accuracy "
        f"{spread((exact == labels)[None].astype(float))}\n"
    )
    folder = WORK / f"kdlsq-{parsed.ranges}-{size.examples or 'all'}-{size.epochs:g}"
    for bits in BITS:
        right: dict[str, list[NDArray[Any]]] = {"untrained": [], "trained": []}
        same: dict[str, list[NDArray[Any]]] = {"untrained": [], "trained": []}
        for seed in range(SEEDS):
            settings = run_settings(teacher, size, ranges=parsed.ranges, bits=bits, seed=seed)
            path = folder / f"{bits}-bits-{seed}"
            metrics = run_quantise_job(settings, path, LoggingNarrator()).metrics
            for way, logits in answers(settings, path, encoded).items():
                right[way].append((logits.argmax(axis=1) == labels).astype(float))
                same[way].append((logits.argmax(axis=1) == exact).astype(float))
        trained, untrained = (np.stack(right[way]) for way in ("trained", "untrained"))
        print(
            f"{bits} bits: {metrics['size_mb']:.2f} MB, {metrics['compression']:.2f} times smaller "
            f"than {metrics['float_size_mb']:.2f} MB"
        )
        for way, found in (("untrained", untrained), ("trained", trained)):
            print(
                f"  {way}: accuracy {spread(found)}, same answer as float32 "
                f"{spread(np.stack(same[way]))}"
            )
        print(f"  trained less untrained: {verdict(trained - untrained)}")
        print(f"  trained less float32: {verdict(trained - (exact == labels))}\n", flush=True)


if __name__ == "__main__":
    main()
