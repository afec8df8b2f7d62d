"""A teacher of SST-2 in 8, 4 and 2 bits: trained so (KDLSQ) against quantised alone.

Both have the same first ranges; one learns from the model in full precision, the other is left as
it is. What is compared are answers on sentences that chose nothing (dev and labelled test,
n = 2,693), with the paired difference and its 95 % interval over sentences and seeds together. A
seed decides the examples that set ranges and their order in the training.

In 8 bits there is a rival that trains nothing: ONNX Runtime's static quantisation of the teacher
(`export --precision int8-static`), its scales fixed on as many training sentences as set the ranges
of the others, the same ones, and once more on 256, as an export does it.

    python -m benchmarks.kdlsq --small    # 2,048 training sentences, 3 seeds
    python -m benchmarks.kdlsq --full     # all training sentences, 3 seeds
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from stillhouse.device.latency import Workload
from stillhouse.model.lsq import load_quantised
from stillhouse.model.predict import predict
from stillhouse.model.teachers import hash_weights, load_model, load_tokenizer
from stillhouse.recipe.quantise_bench import QuantiseBench, open_quantise_bench
from stillhouse.recipe.quantising import quantised_copy, range_order
from stillhouse.recipe.served import predict_served
from stillhouse.run.device_settings import DeviceSettings
from stillhouse.run.directory import RunDirectory, open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, settings_from_dict

BITS = (8, 4, 2)
SEEDS = 3
LENGTH = 64
STATIC_BITS = 8
STATIC_SENTENCES = 256
"""That an export fixes scales on."""

Answers = Mapping[str, NDArray[np.float32]]
"""Logits of the sentences by how the model was quantised."""


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


def kept(file: Path, teacher: str, compute: Callable[[], Answers]) -> Answers:
    """Reads answers that were computed once for a teacher, or computes them.

    The SHA-256 of the teacher's weights stands beside them; where it does not, they are taken for
    answers of the present one.
    """
    told = file.with_suffix(".teacher")
    if told.exists() and told.read_text() != teacher:
        file.unlink(missing_ok=True)
    told.write_text(teacher)
    if not file.exists():
        part = file.with_suffix(".part.npz")
        np.savez(part, **compute())
        part.replace(file)
    with np.load(file) as found:
        return {name: found[name] for name in found.files}


def answers(
    settings: RunSettings, path: Path, encoded: EncodedSet, *, bits: int, teacher: str
) -> Answers:
    """Logits after the training, before it, and in 8 bits those of the rivals."""

    def trained() -> Answers:
        with open_run(aside, settings) as run:
            bench = open_quantise_bench(settings, run, LoggingNarrator())
            untrained = bench.logits(quantised_copy(bench), encoded)
        return {
            "untrained": untrained,
            "trained": predict(load_quantised(path / "model"), encoded),
        }

    def static() -> Answers:
        with open_run(aside, settings) as run:
            bench = open_quantise_bench(settings, run, LoggingNarrator())
            few = bench.wanted.batch_size
            return {
                f"int8-static of {count} sentences": static_answers(bench, encoded, count)
                for count in (few, STATIC_SENTENCES)
            }

    aside = path.with_name(f"{path.name}-ranges")
    found = dict(kept(path / "answers.npz", teacher, trained))
    if bits == STATIC_BITS:
        found |= kept(path / "static.npz", teacher, static)
    return found


def static_answers(bench: QuantiseBench, encoded: EncodedSet, count: int) -> NDArray[np.float32]:
    """Logits of the model quantised by ONNX Runtime, with scales fixed on training examples."""
    drawn = np.sort(range_order(bench)[:count])
    return predict_served(
        bench.model,
        encoded,
        settings=DeviceSettings(kind="onnxruntime-cpu", precision="int8-static"),
        workload=Workload(length=LENGTH, batch=32, threads=torch.get_num_threads()),
        calibration=bench.data.train.select(drawn),
    )


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
    full = load_model(str(teacher))[0]
    fingerprint, exact = hash_weights(full), predict(full, encoded).argmax(axis=1)
    of_sentences = np.tile((exact == labels).astype(float), (SEEDS, 1))  # it has no seed
    print(
        f"{size.examples or 'all'} training sentences, {size.epochs:g} epochs, {SEEDS} seeds, "
        f"first ranges {parsed.ranges}; n = {len(labels):,}\nfloat32: accuracy "
        f"{spread(of_sentences)}\n"
    )
    folder = WORK / f"kdlsq-{parsed.ranges}-{size.examples or 'all'}-{size.epochs:g}"
    for bits in BITS:
        right: dict[str, list[NDArray[Any]]] = {}
        same: dict[str, list[NDArray[Any]]] = {}
        for seed in range(SEEDS):
            settings = run_settings(teacher, size, ranges=parsed.ranges, bits=bits, seed=seed)
            path = folder / f"{bits}-bits-{seed}"
            metrics = run_quantise_job(settings, path, LoggingNarrator()).metrics
            RunDirectory(path=path).refuse_other_model(fingerprint, str(teacher))
            told = answers(settings, path, encoded, bits=bits, teacher=fingerprint)
            for way, logits in told.items():
                right.setdefault(way, []).append((logits.argmax(axis=1) == labels).astype(float))
                same.setdefault(way, []).append((logits.argmax(axis=1) == exact).astype(float))
        print(
            f"{bits} bits: {metrics['size_mb']:.2f} MB, {metrics['compression']:.2f} times smaller "
            f"than {metrics['float_size_mb']:.2f} MB"
        )
        print_ways(right, same, of_sentences)


def print_ways(
    right: Mapping[str, list[NDArray[Any]]],
    same: Mapping[str, list[NDArray[Any]]],
    of_full: NDArray[Any],
) -> None:
    """Prints every way of quantising, and what the trained model is better or worse by.

    Args:
        right: By way, whether each sentence is told right, for each seed.
        same: Whether the answer is that of the model in full precision.
        of_full: Whether that one is right, a row for each seed.
    """
    found = {way: np.stack(rows) for way, rows in right.items()}
    for way, rows in found.items():
        print(
            f"  {way}: accuracy {spread(rows)}, same answer as float32 "
            f"{spread(np.stack(same[way]))}"
        )
    for way, rows in found.items():
        if way != "trained":
            print(f"  trained less {way}: {verdict(found['trained'] - rows)}")
    print(f"  trained less float32: {verdict(found['trained'] - of_full)}\n", flush=True)


if __name__ == "__main__":
    main()
