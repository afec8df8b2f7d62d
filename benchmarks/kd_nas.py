"""KD-NAS on a GLUE task against hand-crafted shapes, with the fine-tuned all-MiniLM-L6-v2.

Everything is chosen on search-validation, learning rates included; the figures are of a report set
that chose nothing: SST-2's dev + test_gold (n = 2,693), MRPC's dev + labelled test (n = 2,133). All
shapes get the same first weights' rule, losses, order of the data, epochs and three learning rates;
the best rate on search-validation is then trained with two more seeds. Goes on where it stopped.

    python -m benchmarks.kd_nas --small           # SST-2; final training of half an epoch
    python -m benchmarks.kd_nas --full            # three epochs
    python -m benchmarks.kd_nas --small --task mrpc
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from benchmarks.common import WORK, Records, glue_folder, heading, minilm_folder, teacher_run
from stillhouse.api import SearchResult, run_search_job
from stillhouse.data.encoding import EncodedSet, encode
from stillhouse.distill.loop import train
from stillhouse.model.predict import predict
from stillhouse.model.slicing import copy_slices
from stillhouse.model.students import initialise_student
from stillhouse.recipe.objective import distillation_terms, teacher_layers
from stillhouse.recipe.open_workbench import open_workbench
from stillhouse.recipe.workbench import Workbench
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, apply_overrides, settings_from_dict
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.architecture import Architecture, BertArchitecture, parse_architecture

TaskName = Literal["sst2", "mrpc"]
RATES = (1.5e-4, 3e-4, 6e-4)
SEEDS = (0, 1, 2)
SPEEDUPS = (2, 4, 8)
HAND = {
    "hand: 3 layers": "layers=3,hidden_size=384,heads=12,ffn_size=1536",
    "hand: 2 layers": "layers=2,hidden_size=384,heads=12,ffn_size=1536",
    "hand: TinyBERT-like": "layers=4,hidden_size=160,heads=5,ffn_size=640",
}
FIXED_LAYERS = {"bert-3x384-a12-f1536-gelu": (0, 2, 4)}
"""Teacher layers of the shape that was fixed with its layers; all others take the common rule."""
BATCH = 64
RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained.

    Attributes:
        epochs: Of the final training, by task.
        candidates: Of the search.
        proxy: Examples that each candidate sees.
    """

    epochs: dict[TaskName, float]
    candidates: int
    proxy: int


SMALL = Size(epochs={"sst2": 0.5, "mrpc": 4.0}, candidates=60, proxy=8192)
FULL = Size(epochs={"sst2": 3.0, "mrpc": 12.0}, candidates=100, proxy=16384)


def report_texts(task: TaskName) -> tuple[dict[str, list[str]], np.ndarray[Any, Any]]:
    """Reads the labelled sentences that chose nothing."""
    files: list[tuple[Path, tuple[str, ...], str]]
    if task == "sst2":
        folder = glue_folder() / "SST-2"
        files = [(folder / n, ("sentence",), "label") for n in ("dev.tsv", "test_gold.tsv")]
    else:
        folder = glue_folder() / "MRPC"
        names = ("#1 String", "#2 String")
        files = [(folder / n, names, "Quality") for n in ("dev.tsv", "msr_paraphrase_test.txt")]
    texts: list[list[str]] = [[] for _ in files[0][1]]
    labels: list[int] = []
    for path, columns, label in files:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                for column, column_texts in zip(columns, texts, strict=True):
                    column_texts.append(row[column])
                labels.append(int(row[label]))
    return dict(zip(("text_a", "text_b"), texts, strict=False)), np.array(labels)


def base_settings(task: TaskName, size: Size) -> dict[str, Any]:
    """Settings that the search and all other trainings share."""
    teacher: dict[str, Any] = {"model": minilm_folder(), "epochs": 5.0}
    if task == "sst2":
        teacher = {"model": str(teacher_run())}
    return {
        "recipe": "kd-nas",
        "teacher": teacher,
        "task": {"name": f"glue/{task}", "directory": str(glue_folder())},
        "search": {"candidates": size.candidates, "proxy_examples": size.proxy},
        "limit": {"speedup": 2},
        "final": {"epochs": size.epochs[task], "controls": 8, "noise_candidates": 8},
        # One thread: what else the machine does then disturbs the timing least.
        "device": {"threads": 1},
    }


class Trainer:
    """Trains shapes to the end, all alike, and keeps their answers on the report set."""

    def __init__(self, bench: Workbench, records: Records, task: TaskName) -> None:
        self.bench = bench
        self.records = records
        texts, self.labels = report_texts(task)
        self.report_set = encode(
            Dataset.from_dict(texts), bench.tokenizer, max_length=bench.settings.task.max_length
        )

    def answers(self, model: Any, encoded: EncodedSet) -> np.ndarray[Any, Any]:
        """Names the class of every example."""
        return predict(model, encoded, precision=self.bench.precision).argmax(axis=1)

    def run(self, shape: Architecture, rate: float, seed: int, epochs: float) -> dict[str, Any]:
        """Trains one student, or takes it from the records."""
        job = {"shape": shape.key, "rate": rate, "seed": seed, "epochs": epochs}
        known = self.records.find(job)
        return known if known is not None else self._train(job, shape, rate, seed, epochs)

    def _train(
        self, job: dict[str, Any], shape: Architecture, rate: float, seed: int, epochs: float
    ) -> dict[str, Any]:
        start_s = time.monotonic()
        distill = replace(self.bench.settings.distill, learning_rate=rate, batch_size=BATCH)
        bench = replace(self.bench, settings=replace(self.bench.settings, distill=distill))
        student = bench.build(shape, seed=seed)
        if shape.key in FIXED_LAYERS:
            copy_slices(student, bench.teacher, FIXED_LAYERS[shape.key])
        else:
            initialise_student(student, bench.teacher, distill.initialisation)
        terms = distillation_terms(
            distill, student.config, bench.teacher.config, kind=bench.task.kind, seed=seed
        )
        signals = bench.signals(bench.data.transfer, teacher_layers(terms), "Teacher")
        train(
            student,
            bench.data.transfer,
            terms,
            bench.train_settings(epochs, seed=seed),
            accelerator=bench.accelerator,
            teacher=signals,
        )
        wall_s = time.monotonic() - start_s
        quality = bench.quality(student, bench.data.validation)[bench.task.metrics[0]]
        right = self.answers(student, self.report_set) == self.labels
        name = "_".join(str(value) for value in job.values()).replace("/", "-")
        np.save(self.records.folder / f"{name}.npy", right)
        found = {"quality": quality, "accuracy": float(right.mean()), "file": name}
        print(
            f"  {shape.label:<40} rate {rate:g} seed {seed} epochs {epochs:g}: "
            f"search-validation {quality:.4f}, {wall_s:.0f} s",
            flush=True,
        )
        return self.records.add(job, {**found, "wall_s": wall_s})

    def right(self, record: dict[str, Any]) -> np.ndarray[Any, Any]:
        """Which examples of the report set a student got right."""
        return np.load(self.records.folder / f"{record['file']}.npy")

    def seeds_of(self, shape: Architecture, epochs: float) -> list[dict[str, Any]]:
        """The best of three rates on search-validation, with all seeds."""
        tried = [self.run(shape, rate, SEEDS[0], epochs) for rate in RATES]
        best = RATES[int(np.argmax([record["quality"] for record in tried]))]
        return [self.run(shape, best, seed, epochs) for seed in SEEDS]


def interval(rows: Sequence[np.ndarray[Any, Any]], seed: int = 0) -> tuple[float, float, float]:
    """Mean over seeds and examples with its 95 % bootstrap interval over both, in points."""
    table = np.stack(rows).astype(float)
    generator = np.random.default_rng(seed)
    seeds, examples = table.shape
    means = [
        table[generator.integers(seeds, size=seeds)][:, generator.integers(examples, size=examples)]
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile([part.mean() for part in means], (0.025, 0.975))
    return 100 * float(table.mean()), 100 * float(low), 100 * float(high)


def verdict(low: float, high: float) -> str:
    """Names a difference in the words of the project."""
    if low > 0:
        return "beats"
    if high < 0:
        return "is beaten"
    return "as good" if low > -1 else "not resolved"


def trained(result: SearchResult) -> list[Trial]:
    """Trials with a quality of their own."""
    return [t for t in result.trials if t.state is TrialState.COMPLETE and t.repeat_of is None]


def speedup_of(trial: Trial) -> float:
    value = trial.attributes["speedup"]
    assert isinstance(value, int | float)
    return float(value)


def found_shapes(result: SearchResult) -> dict[str, Architecture]:
    """The best proxy quality at least 2, 4 and 8 times as fast as the teacher."""
    shapes = {}
    for speedup in SPEEDUPS:
        fast = [trial for trial in trained(result) if speedup_of(trial) >= speedup]
        if fast:
            best = max(fast, key=lambda trial: trial.quality or 0.0)
            shapes[f"found: {speedup}x"] = best.architecture
    return shapes


def best_random(result: SearchResult) -> Architecture:
    """The best of the first episode's candidates, which are drawn by chance, among the 4x ones."""
    first = trained(result)[:5]
    fast = [trial for trial in first if speedup_of(trial) >= 4] or first
    return max(fast, key=lambda trial: trial.quality or 0.0).architecture


def narrowed(bench: Workbench, target_ms: float) -> Architecture:
    """The teacher's shape, as narrow as gives the latency that is nearest to the target."""
    teacher = bench.teacher_architecture
    shapes = [
        BertArchitecture(
            layers=teacher.layers, hidden_size=width, heads=width // 32, ffn_size=4 * width
        )
        for width in range(32, teacher.hidden_size, 32)
    ]
    return min(shapes, key=lambda shape: abs(bench.compare(shape).student.median_ms - target_ms))


def front_at(
    hand: dict[str, tuple[float, list[np.ndarray[Any, Any]]]], latency_ms: float
) -> tuple[str, list[np.ndarray[Any, Any]]]:
    """Interpolates the hand-crafted front at a latency.

    Returns:
        What was interpolated, and for each seed the expected share right of every example.
    """
    points = sorted((ms, name) for name, (ms, _) in hand.items())
    front: list[tuple[float, str]] = []
    for ms, name in points:
        mean = np.mean(hand[name][1])
        if not front or mean > np.mean(hand[front[-1][1]][1]):
            front.append((ms, name))
    if latency_ms <= front[0][0]:
        return f"{front[0][1]} (the fastest)", hand[front[0][1]][1]
    for (ms_a, a), (ms_b, b) in pairwise(front):
        if ms_a <= latency_ms <= ms_b:
            share = (latency_ms - ms_a) / (ms_b - ms_a)
            mixed = [
                (1 - share) * one.astype(float) + share * two.astype(float)
                for one, two in zip(hand[a][1], hand[b][1], strict=True)
            ]
            return f"{1 - share:.0%} {a} + {share:.0%} {b}", mixed
    return f"{front[-1][1]} (the slowest)", hand[front[-1][1]][1]


def times(bench: Workbench, shape: Architecture) -> dict[str, float]:
    """Latency at the task's own length and at 128, and with two threads."""
    own, long = bench.compare(shape), bench.compare(shape, length=128)
    both = bench.device.compare(shape, replace(bench.workload, threads=2))
    return {
        "ms": own.student.median_ms,
        "speedup": own.speedup,
        "speedup_128": long.speedup,
        "speedup_2_threads": both.speedup,
    }


def print_search(result: SearchResult, wall_s: float) -> None:
    """Tells what the search did."""
    costs = [trial.cost_s for trial in trained(result)]
    print(
        f"search: {len(costs)} candidates trained, {sum(costs) / 60:.1f} min; with winners, "
        f"controls and noise {wall_s / 60:.1f} min; a candidate {np.median(costs):.1f} s (median)"
    )
    print("front on search-validation:")
    for trial in result.front:
        print(
            f"  {trial.architecture.label:<40} {trial.quality:.4f} {trial.latency_ms:6.2f} ms "
            f"{speedup_of(trial):5.2f}x"
        )


def compare(bench: Workbench, result: SearchResult, task: TaskName, size: Size) -> None:
    """Trains every shape alike and compares."""
    epochs = size.epochs[task]
    trainer = Trainer(bench, Records(f"kd_nas_{task}_{epochs:g}"), task)
    teacher = trainer.answers(bench.teacher, trainer.report_set) == trainer.labels
    found = found_shapes(result)
    hand = {
        name: parse_architecture(text, like=bench.teacher_architecture)
        for name, text in HAND.items()
    }
    target = found.get("found: 4x") or next(iter(found.values()))
    hand["hand: narrowed teacher"] = narrowed(bench, bench.compare(target).student.median_ms)
    shapes = {**found, **hand}
    clocks = {name: times(bench, shape) for name, shape in shapes.items()}
    rights, cost_s = {}, {}
    for name, shape in shapes.items():
        records = trainer.seeds_of(shape, epochs)
        rights[name] = [trainer.right(record) for record in records]
        cost_s[name] = sum(record["wall_s"] for record in records)
        cost_s[name] += sum(trainer.run(shape, r, SEEDS[0], epochs)["wall_s"] for r in RATES)
    search_s = sum(trial.cost_s for trial in trained(result))
    lucky = best_random(result)
    quick_s = trainer.run(lucky, RATES[1], SEEDS[0], epochs)["wall_s"]
    longer = trainer.run(lucky, RATES[1], SEEDS[0], round(epochs * (1 + search_s / quick_s), 1))

    mean, low, high = interval([teacher])
    print(f"\nteacher: accuracy {mean:.2f} ({low:.2f} to {high:.2f}), n = {len(teacher)}\n")
    print(
        f"{'':<24}{'shape':<40}{'ms':>7}{'speed':>7}{'at 128':>7}{'2 thr.':>7}  "
        f"accuracy, {len(SEEDS)} seeds"
    )
    for name, shape in shapes.items():
        mean, low, high = interval(rights[name])
        clock = clocks[name]
        print(
            f"{name:<24}{shape.label:<40}{clock['ms']:>7.2f}{clock['speedup']:>6.2f}x"
            f"{clock['speedup_128']:>6.2f}x{clock['speedup_2_threads']:>6.2f}x  "
            f"{mean:.2f} ({low:.2f} to {high:.2f}), "
            f"{mean / (100 * teacher.mean()):.1%} of the teacher, "
            f"{cost_s[name] / 60:.1f} min of training"
        )
    print(
        f"{'random, longer':<24}{lucky.label:<40}{'':>28}  {100 * longer['accuracy']:.2f}, one "
        f"seed, {longer['wall_s'] / 60:.1f} min (the search took {search_s / 60:.1f} min)"
    )
    by_hand = {name: (clocks[name]["ms"], rights[name]) for name in hand}
    print("\nfound less the hand-crafted front at the same latency, in points:")
    for name in found:
        what, front = front_at(by_hand, clocks[name]["ms"])
        differences = [
            one.astype(float) - two for one, two in zip(rights[name], front, strict=True)
        ]
        mean, low, high = interval(differences)
        print(f"  {name}: {mean:+.2f} ({low:+.2f} to {high:+.2f}): {verdict(low, high)}; {what}")
    differences = [one.astype(float) - trainer.right(longer) for one in rights["found: 4x"]]
    mean, low, high = interval(differences)
    print(
        f"  found: 4x less the random shape trained longer: {mean:+.2f} "
        f"({low:+.2f} to {high:+.2f}): {verdict(low, high)}"
    )


def train_by_hand(settings: RunSettings, path: Path, task: TaskName, size: Size) -> None:
    """Trains the given shapes into the records; on a second core, while the search runs."""
    with open_run(path.with_name(f"{path.name}_hand"), settings) as run:
        bench = open_workbench(settings, run, LoggingNarrator())
        epochs = size.epochs[task]
        trainer = Trainer(bench, Records(f"kd_nas_{task}_{epochs:g}"), task)
        for text in HAND.values():
            trainer.seeds_of(parse_architecture(text, like=bench.teacher_architecture), epochs)


def main() -> None:
    """Searches, then compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--task", choices=["sst2", "mrpc"], default="sst2")
    parser.add_argument("--search-only", action="store_true", help="stop before the comparison")
    parser.add_argument("--hand-only", action="store_true", help="only train what a hand crafted")
    parser.add_argument("--alpha", type=float, help="exponent of the latency in the reward")
    given = parser.parse_args()
    size = FULL if given.full else SMALL
    heading("benchmarks.kd_nas")
    chosen = apply_overrides(base_settings(given.task, size), {"search.alpha": given.alpha})
    settings: RunSettings = settings_from_dict(chosen)
    alpha = "" if given.alpha is None else f"_alpha{given.alpha:g}"
    path = WORK / f"kd_nas_{given.task}_{'full' if given.full else 'small'}{alpha}"
    if given.hand_only:
        train_by_hand(settings, path, given.task, size)
        return
    start_s = time.monotonic()
    result = run_search_job(settings, path, LoggingNarrator())
    print_search(result, time.monotonic() - start_s)
    if given.search_only:
        return
    settings = replace(settings, teacher=replace(settings.teacher, model=str(path / "teacher")))
    with open_run(path.with_name(f"{path.name}_compared"), settings) as run:
        compare(open_workbench(settings, run, LoggingNarrator()), result, given.task, size)


if __name__ == "__main__":
    main()
