"""Extract, then distil (ETD): what do first weights save of a distillation on plain text?

Teacher all-MiniLM-L6-v2, English Wikipedia; students of 3 layers of 192 with 12 heads learn the
teacher's attention and states under the uniform map. They begin as the teacher's most important
neurons (ETD-Impt), as neurons drawn by chance (ETD-Rand), as leading slices of the layers of the
uniform map (`leading`) or of spread layers (`slices`), or from scratch.
Each beginning has the better of two learning rates, by its own loss with the first seed on one half
of the held-out text. Told are the loss on the other half along the way, the steps until a beginning
is as good as scratch is at its end, and SST-2 after fine-tuning alike. A curve's rate is still high
before its end, so the steps saved are rather too few. The teacher has no head for masked words, so
importance is of the loss of its last states (`extract.loss` states).

    python -m benchmarks.extract --small    # about an hour on one core; resumes
    python -m benchmarks.extract --full     # resumes
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from benchmarks.common import (
    WORK,
    Records,
    enwiki_folder,
    glue_folder,
    heading,
    interval,
    minilm_folder,
)
from stillhouse.api import run_finetune_job
from stillhouse.distill.measure import mean_loss
from stillhouse.distill.steps import Evaluations, Watch
from stillhouse.export.checkpoint import save_checkpoint
from stillhouse.recipe.first_weights import kept_importance
from stillhouse.recipe.general import (
    TextBench,
    fresh_student,
    learn_terms,
    open_text_bench,
    text_terms,
)
from stillhouse.recipe.general_student import bare_encoder
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, settings_from_dict
from stillhouse.space.architecture import parse_architecture

SHAPE = "layers=3,hidden_size=192,heads=12,ffn_size=768"
BEGINNINGS: dict[str, dict[str, dict[str, Any]]] = {
    "importance": {"distill": {"initialisation": "extract"}, "extract": {"indices": "importance"}},
    "random": {"distill": {"initialisation": "extract"}, "extract": {"indices": "random"}},
    "leading": {"distill": {"kept_layers": "uniform"}, "extract": {}},
    "slices": {"distill": {"kept_layers": "spread"}, "extract": {}},
    "scratch": {"distill": {"initialisation": "scratch"}, "extract": {}},
}
RATES = (5e-4, 2e-3)
LOOKS = 12
"""Evaluations along a training."""
SHOWN = (1, 3, 6, 12)
"""Of these, which are printed."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained.

    Attributes:
        steps: Of a distillation.
        batch: Sequences a step.
        length: Tokens of a sequence.
        sequences: To learn from; passed over as often as the steps take.
        held_out: Sequences that losses are told on.
        measured: Sequences that importance is measured on.
        most_train: Most training examples of SST-2.
        epochs: Of fine-tuning.
    """

    steps: int
    batch: int
    length: int
    sequences: int
    held_out: int
    measured: int
    seeds: int
    most_train: int
    epochs: float


SMALL = Size(
    steps=300,
    batch=32,
    length=64,
    sequences=4_000,
    held_out=128,
    measured=128,
    seeds=3,
    most_train=2_000,
    epochs=3.0,
)
FULL = Size(
    steps=24_000,
    batch=64,
    length=128,
    sequences=320_000,
    held_out=1_000,
    measured=512,
    seeds=5,
    most_train=70_000,
    epochs=4.0,
)


def bench_settings(size: Size, name: str, *, seed: int, rate: float) -> RunSettings:
    """Settings of one distillation."""
    beginning = BEGINNINGS[name]
    measured = {"examples": size.measured} if beginning["extract"] else {}
    return settings_from_dict(
        {
            "recipe": "general",
            "teacher": {"model": minilm_folder()},
            "student": SHAPE,
            "corpus": {
                "name": str(enwiki_folder()),
                "length": size.length,
                "held_out": size.held_out,
                "max_tokens": (size.sequences + size.held_out) * (size.length - 2),
            },
            "distill": {
                "learning_rate": rate,
                "batch_size": size.batch,
                **beginning["distill"],
            },
            "extract": {**beginning["extract"], **measured},
            "device": {"threads": 1},
            "seed": seed,
        }
    )


@contextmanager
def opened(size: Size) -> Iterator[TextBench]:
    """Opens the text, the teacher and the cache of its signals that all students share."""
    settings = bench_settings(size, "scratch", seed=0, rate=RATES[0])
    path = WORK / "extract" / f"text-{size.sequences}x{size.length}"
    with open_run(path, settings) as run:
        yield open_text_bench(settings, run, LoggingNarrator(), Accelerator(cpu=True))


def distilled(
    records: Records, bench: TextBench, size: Size, job: Mapping[str, Any]
) -> dict[str, Any]:
    """Distils a student, or takes what is known of it from the records.

    Returns:
        `curve`, the loss on the reported half of the held-out text by steps, 0 among them;
        `chosen_by`, that on the other half at the end; `step_s`, seconds of a step, and
        `measured_s`, what the importance took.
    """
    known = records.find(job)
    if known is not None:
        return known
    name, seed = str(job["start"]), int(job["seed"])
    settings = bench_settings(size, name, seed=seed, rate=float(job["rate"]))
    bench = replace(bench, settings=settings)
    measured_s = measuring_s(records, bench) if name == "importance" else 0.0
    student, start = fresh_student(bench, architecture(bench), seed=seed)
    terms = text_terms(bench, student, "uniform", seed=seed)
    halves = [bench.held_out.select(numbers) for numbers in half_numbers(len(bench.held_out))]
    signals = [bench.signals(half, terms, "Teacher over held-out text") for half in halves]
    looked_s = 0.0

    def loss(half: int = 1) -> float:
        return sum(
            term.weight
            * mean_loss(student, halves[half], term, signals[half], precision=bench.precision)
            for term in terms
        )

    def look(_done: int) -> float:
        nonlocal looked_s
        start_s = time.monotonic()
        told = -loss()
        looked_s += time.monotonic() - start_s
        return told

    before = loss()
    report = learn_terms(
        bench,
        student,
        bench.examples,
        terms,
        epochs=size.steps / -(-len(bench.examples) // size.batch),  # the last batch may be small
        seed=seed,
        watch=Watch(evaluations=Evaluations(score=look, every_steps=max(1, size.steps // LOOKS))),
    )
    curve = {0: before} | {step: -score for step, score in report.scores.items()}
    folder = checkpoint_of(records, job)
    save_checkpoint(folder, bare_encoder(student), bench.source.tokenizer, metrics={}, card="")
    print(f"  {dict(job)}: held-out loss {before:.3f} to {min(curve.values()):.4f}", flush=True)
    return records.add(
        job,
        {
            "curve": {str(step): value for step, value in curve.items()},
            "chosen_by": loss(0),
            "initialisation": start.to_dict(),
            "step_s": (report.wall_s - looked_s) / report.steps,
            "measured_s": measured_s,
        },
    )


def half_numbers(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Numbers of the held-out sequences whose loss chooses a rate, and of those it is told on."""
    return np.arange(0, count, 2), np.arange(1, count, 2)


def architecture(bench: TextBench) -> Any:
    """Shape of every student."""
    return parse_architecture(SHAPE, like=bench.teacher_architecture)


def measuring_s(records: Records, bench: TextBench) -> float:
    """Tells how long the importance of a seed takes to measure, which is done apart for that."""
    settings = bench.settings
    job = {"measuring": settings.seed, "examples": settings.extract.examples}
    known = records.find(job)
    if known is None:
        with tempfile.TemporaryDirectory() as folder:
            start_s = time.monotonic()
            kept_importance(bench.source, settings, bench.examples, Path(folder))
            known = records.add(job, {"wall_s": time.monotonic() - start_s})
    return float(known["wall_s"])


def checkpoint_of(records: Records, job: Mapping[str, Any]) -> Path:
    """Where a student is kept for fine-tuning."""
    return records.folder / "students" / "_".join(str(value) for value in job.values())


def best_rates(records: Records, bench: TextBench, size: Size) -> dict[str, float]:
    """Chooses the rate of each beginning by its loss at the end, with the first seed."""
    chosen = {}
    for name in BEGINNINGS:
        ends = {}
        for rate in RATES:
            job = job_of(size, name, seed=0, rate=rate)
            ends[rate] = float(distilled(records, bench, size, job)["chosen_by"])
        chosen[name] = min(ends, key=lambda rate: ends[rate])
        tried = ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in ends.items())
        print(
            f"{name}: rate {chosen[name]:g} (loss on the choosing half by rate, seed 0: {tried})",
            flush=True,
        )
    return chosen


def job_of(size: Size, name: str, *, seed: int, rate: float) -> dict[str, Any]:
    """Names one distillation."""
    return {
        "start": name,
        "seed": seed,
        "rate": rate,
        "steps": size.steps,
        "sequences": size.sequences,
        "halves": 2,
    }


def losses_of(record: Mapping[str, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Steps and held-out losses of a curve."""
    curve: dict[str, float] = record["curve"]
    steps = np.array(sorted(map(int, curve)))
    return steps, np.array([curve[str(step)] for step in steps])


def end(record: Mapping[str, Any]) -> float:
    """Held-out loss after the last step."""
    return float(losses_of(record)[1][-1])


def steps_until(record: Mapping[str, Any], wanted: float) -> float | None:
    """Tells after how many steps a curve is at a loss, between evaluations by a straight line."""
    steps, losses = losses_of(record)
    reached = np.flatnonzero(losses <= wanted)
    if not len(reached):
        return None
    last = int(reached[0])
    if last == 0:
        return 0.0
    drop = losses[last - 1] - losses[last]
    share = (losses[last - 1] - wanted) / drop
    return float(steps[last - 1] + share * (steps[last] - steps[last - 1]))


def told(values: list[float], unit: str = "", form: str = "+.4f") -> str:
    """Writes a difference with its interval over seeds, and whether that tells anything."""
    mean, low, high = interval(values)
    text = f"{mean:{form}}{unit} ({low:{form}} to {high:{form}}, n = {len(values)} seeds)"
    return text + ("" if low > 0 or high < 0 else ": not resolved; small: not evidence")


def print_losses(found: Mapping[str, list[dict[str, Any]]], size: Size) -> None:
    """Prints the curves, and the paired gaps at their end."""
    print("\nloss on held-out text (hidden states and attention), mean (95 % interval over seeds)")
    for name, records in found.items():
        curves = np.array([losses_of(record)[1] for record in records])
        cells = []
        for look in (0, *SHOWN):
            mean, low, high = interval(curves[:, look])
            cells.append(f"{look * (size.steps // LOOKS)}: {mean:.4f} ({low:.4f} to {high:.4f})")
        print(f"  {name:<11}{'; '.join(cells)}")
    for name in found:
        if name != "importance":
            gaps = [
                end(ours) - end(theirs)
                for ours, theirs in zip(found["importance"], found[name], strict=True)
            ]
            print(f"  at the end, importance less {name}: {told(gaps)}")


def saving(
    record: Mapping[str, Any], scratch: Mapping[str, Any], most: int
) -> tuple[float | None, float, float]:
    """Compares a beginning with scratch of the same seed.

    Args:
        record: Of the beginning.
        scratch: Of the one from scratch.
        most: Steps of either.

    Returns:
        Steps until the beginning is where scratch ends, `None` if it never is; the steps that fit
        in the time of measuring importance; and the percentage of scratch's compute that both
        together save. One that never arrives counts as one that arrives with the last step.
    """
    steps = steps_until(record, end(scratch))
    extra = record["measured_s"] / record["step_s"]
    return steps, extra, 100 * (1 - ((most if steps is None else steps) + extra) / most)


def print_savings(found: Mapping[str, list[dict[str, Any]]], size: Size) -> None:
    """Prints after how many steps each beginning is where scratch ends with the same seed."""
    print(f"\nsteps until as good as scratch after {size.steps}, share of compute saved")
    for name, records in found.items():
        if name == "scratch":
            continue
        pairs = zip(records, found["scratch"], strict=True)
        needed, extras, saved = zip(*(saving(*pair, size.steps) for pair in pairs), strict=True)
        mean, low, high = interval([size.steps if steps is None else steps for steps in needed])
        print(
            f"  {name:<11}{mean:.0f} steps ({low:.0f} to {high:.0f}), not reached with "
            f"{needed.count(None)} of {len(records)} seeds; measuring took as long as "
            f"{np.mean(extras):.0f} steps; saved, with that: {told(list(saved), ' %', '+.1f')}"
        )


def tuned(records: Records, size: Size, job: Mapping[str, Any]) -> float:
    """Fine-tunes a student on SST-2, or takes it from the records; its accuracy on dev."""
    asked = {**job, "task": "sst2", "examples": size.most_train}
    known = records.find(asked)
    if known is None:
        settings = settings_from_dict(
            {
                "task": {
                    "name": "glue/sst2",
                    "directory": str(glue_folder()),
                    "max_train": size.most_train,
                },
                "finetune": {
                    "model": str(checkpoint_of(records, job)),
                    "learning_rates": [3e-4],
                    "epochs": size.epochs,
                },
                "seed": int(job["seed"]),
            }
        )
        path = records.folder / "runs" / "_".join(str(value) for value in asked.values())
        metrics = run_finetune_job(settings, path, LoggingNarrator()).metrics
        names = ("quality", "quality_search", "quality_count")
        known = records.add(asked, {name: metrics[name] for name in names})
        print(f"  {asked}: dev {known['quality']:.4f}", flush=True)
    return float(known["quality"])


def print_tuned(found: Mapping[str, list[float]]) -> None:
    """Prints accuracies after fine-tuning, and paired gaps to scratch."""
    print("\nSST-2 dev accuracy after fine-tuning (n = 872 sentences; the dev set chose nothing)")
    for name, values in found.items():
        mean, low, high = interval(values)
        gap = ""
        if name != "scratch":
            gaps = [100 * (a - b) for a, b in zip(values, found["scratch"], strict=True)]
            gap = f"; less scratch: {told(gaps, ' points', '+.2f')}"
        print(f"  {name:<11}{mean:.4f} ({low:.4f} to {high:.4f}){gap}")
    for name in [one for one in found if one not in ("importance", "scratch")]:
        gaps = [100 * (a - b) for a, b in zip(found["importance"], found[name], strict=True)]
        print(f"  importance less {name}: {told(gaps, ' points', '+.2f')}")


def main() -> None:
    """Runs what is missing and prints everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--small", action="store_true")
    group.add_argument("--full", action="store_true")
    size = SMALL if parser.parse_args().small else FULL
    heading("benchmarks.extract")
    run(size)


def run(size: Size) -> None:
    """Does one size."""
    records = Records("extract")
    with opened(size) as bench:
        rates = best_rates(records, bench, size)
        jobs = {
            name: [job_of(size, name, seed=seed, rate=rate) for seed in range(size.seeds)]
            for name, rate in rates.items()
        }
        found = {
            name: [distilled(records, bench, size, job) for job in listed]
            for name, listed in jobs.items()
        }
    print_losses(found, size)
    print_savings(found, size)
    print_tuned(
        {name: [tuned(records, size, job) for job in listed] for name, listed in jobs.items()}
    )


if __name__ == "__main__":
    main()
