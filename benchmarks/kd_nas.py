"""KD-NAS on a GLUE task against hand-crafted shapes, with the fine-tuned all-MiniLM-L6-v2.

Everything is chosen on search-validation, learning rates included; the figures are of a report set
that chose nothing: SST-2's dev + test_gold (n = 2,693), MRPC's dev + labelled test (n = 2,133),
STS-B's dev + labelled test (n = 2,879). All shapes get the same first weights' rule, losses, order
of the data, epochs and three learning rates; the best rate on search-validation is then trained
with two more seeds. Goes on where it stopped.

    python -m benchmarks.kd_nas --small           # SST-2; final training of 0.75 epochs
    python -m benchmarks.kd_nas --full            # three epochs
    python -m benchmarks.kd_nas --small --task stsb
    python -m benchmarks.kd_nas --small --keep 3  # what was found at 4x, after three epochs
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
from scipy.stats import spearmanr

from benchmarks.common import WORK, Records, glue_folder, heading, minilm_folder, teacher_run
from stillhouse.api import SearchResult, run_search_job
from stillhouse.data.encoding import encode
from stillhouse.distill.loop import train
from stillhouse.model.predict import predict
from stillhouse.model.slicing import copy_slices
from stillhouse.recipe.objective import distillation_terms
from stillhouse.recipe.open_workbench import open_workbench
from stillhouse.recipe.workbench import Workbench
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, settings_from_dict
from stillhouse.run.settings_file import apply_overrides
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.architecture import Architecture, BertArchitecture, parse_architecture

TaskName = Literal["sst2", "mrpc", "stsb"]
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
        finals: Winners and controls that the search itself trains to the end.
        longer: Whether a random shape is trained as long as the search took, by task.
    """

    epochs: dict[TaskName, float]
    candidates: int
    proxy: int
    finals: tuple[int, int]
    longer: dict[TaskName, bool]


SMALL = Size(
    epochs={"sst2": 0.75, "mrpc": 2.0, "stsb": 2.0},
    candidates=60,
    proxy=6144,
    finals=(1, 0),
    longer={"sst2": True, "mrpc": False, "stsb": False},
)
FULL = Size(
    epochs={"sst2": 3.0, "mrpc": 12.0, "stsb": 8.0},
    candidates=100,
    proxy=16384,
    finals=(4, 8),
    longer={"sst2": True, "mrpc": True, "stsb": True},
)


def report_texts(task: TaskName) -> tuple[dict[str, list[str]], np.ndarray[Any, Any]]:
    """Reads the labelled examples that chose nothing."""
    folder = glue_folder() / {"sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B"}[task]
    match task:
        case "sst2":
            files = {"dev.tsv": ("sentence", "label"), "test_gold.tsv": ("sentence", "label")}
        case "mrpc":
            columns = ("#1 String", "#2 String", "Quality")
            files = {"dev.tsv": columns, "msr_paraphrase_test.txt": columns}
        case "stsb":  # the second file has no header, and columns at the end may be missing
            files = {
                "dev.tsv": ("sentence1", "sentence2", "score"),
                "sts-test-labeled.tsv": (5, 6, 4),
            }
    rows = [row for name, columns in files.items() for row in _cells(folder / name, columns)]
    *texts, labels = zip(*rows, strict=True)
    named = {name: list(column) for name, column in zip(("text_a", "text_b"), texts, strict=False)}
    return named, np.array(labels, dtype=float if task == "stsb" else int)


def _cells(path: Path, columns: Sequence[str | int]) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    if isinstance(columns[0], str):
        header, *rows = rows
        columns = [header.index(str(column)) for column in columns]
    return [[row[int(column)] for column in columns] for row in rows]


def base_settings(task: TaskName, size: Size) -> dict[str, Any]:
    """Settings that the search and all other trainings share."""
    teacher: dict[str, Any] = {"model": minilm_folder(), "epochs": 5.0}
    if task == "sst2":
        teacher = {"model": str(teacher_run())}
    return {
        "recipe": "kd-nas",
        "teacher": teacher,
        # SST-2's training set holds phrases, its report set sentences: what has fewer than 10
        # tokens (1 in 20 of its dev set) is neither learnt from nor chosen on. MRPC has no such.
        "task": {"name": f"glue/{task}", "directory": str(glue_folder()), "min_length": 10},
        "search": {"candidates": size.candidates, "proxy_examples": size.proxy},
        "limit": {"speedup": 2},
        "final": {
            "epochs": size.epochs[task],
            "students": size.finals[0],
            "controls": size.finals[1],
            "noise_candidates": size.finals[1],
        },
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

    def outcome(self, model: Any) -> np.ndarray[Any, Any]:
        """Tells of every report example whether its class was right, or its score."""
        logits = predict(model, self.report_set, precision=self.bench.precision)
        if self.bench.task.is_regression:
            return logits[:, 0]
        return logits.argmax(axis=1) == self.labels

    @property
    def measure(self) -> Measure:
        """What the report set measures."""
        return Measure(self.labels if self.bench.task.is_regression else None)

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
            bench.initialise(student)
        terms = distillation_terms(
            distill, student.config, bench.teacher.config, kind=bench.task.kind, seed=seed
        )
        signals = bench.signals(bench.data.transfer, terms, "Teacher")
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
        outcome = self.outcome(student)
        name = "_".join(str(value) for value in job.values()).replace("/", "-")
        np.save(self.records.folder / f"{name}.npy", outcome)
        found = {"quality": quality, "file": name}
        print(
            f"  {shape.label:<40} rate {rate:g} seed {seed} epochs {epochs:g}: "
            f"search-validation {quality:.4f}, {wall_s:.0f} s",
            flush=True,
        )
        return self.records.add(job, {**found, "wall_s": wall_s})

    def right(self, record: dict[str, Any]) -> np.ndarray[Any, Any]:
        """The outcome of a student on the report set."""
        return np.load(self.records.folder / f"{record['file']}.npy")

    def seeds_of(self, shape: Architecture, epochs: float) -> list[dict[str, Any]]:
        """The best of three rates on search-validation, with all seeds."""
        tried = [self.run(shape, rate, SEEDS[0], epochs) for rate in RATES]
        best = RATES[int(np.argmax([record["quality"] for record in tried]))]
        return [self.run(shape, best, seed, epochs) for seed in SEEDS]


Row = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Measure:
    """Accuracy of classes, or Spearman's correlation with gold scores; in points.

    Attributes:
        scores: Gold scores, or `None` where outcomes tell whether a class was right.
    """

    scores: Row | None

    @property
    def name(self) -> str:
        return "accuracy" if self.scores is None else "Spearman"

    def of(self, rows: Sequence[Row], chosen: Row | slice = slice(None)) -> float:
        """Mean over seeds of the measure on the chosen examples."""
        if self.scores is None:
            return float(np.mean([100 * row[chosen].mean() for row in rows]))
        gold = self.scores[chosen]
        return float(np.mean([100 * spearmanr(row[chosen], gold).statistic for row in rows]))

    def interval(self, *mixed: tuple[float, Sequence[Row]]) -> tuple[float, float, float]:
        """A weighted sum of models' measures, with its 95 % bootstrap interval.

        Seeds and examples are drawn anew, the same ones for all models; a model with one seed has
        it always.

        Args:
            mixed: Weight and outcomes by seed of each model.
        """

        def total(seeds: Row | None, chosen: Row | slice) -> float:
            parts = []
            for weight, rows in mixed:
                drawn = rows if seeds is None or len(rows) == 1 else [rows[i] for i in seeds]
                parts.append(weight * self.of(drawn, chosen))
            return sum(parts)

        generator = np.random.default_rng(0)
        most, examples = max(len(rows) for _, rows in mixed), len(mixed[0][1][0])
        spread = [
            total(generator.integers(most, size=most), generator.integers(examples, size=examples))
            for _ in range(RESAMPLES)
        ]
        low, high = np.quantile(spread, (0.025, 0.975))
        return total(None, slice(None)), float(low), float(high)

    def ratio(self, rows: Sequence[Row], teacher: Row) -> tuple[float, float, float]:
        """The students' measure as a share of the teacher's, with its 95 % bootstrap interval."""
        generator = np.random.default_rng(0)
        spread = []
        for _ in range(RESAMPLES):
            chosen = generator.integers(len(teacher), size=len(teacher))
            drawn = [rows[i] for i in generator.integers(len(rows), size=len(rows))]
            spread.append(self.of(drawn, chosen) / self.of([teacher], chosen))
        low, high = np.quantile(spread, (0.025, 0.975))
        return self.of(rows) / self.of([teacher]), float(low), float(high)


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
    hand: dict[str, tuple[float, list[Row]]], measure: Measure, latency_ms: float
) -> list[tuple[float, str]]:
    """Interpolates the hand-crafted front at a latency: shares and names, which add up to 1."""
    front: list[tuple[float, str]] = []
    for ms, name in sorted((ms, name) for name, (ms, _) in hand.items()):
        if not front or measure.of(hand[name][1]) > measure.of(hand[front[-1][1]][1]):
            front.append((ms, name))
    if latency_ms <= front[0][0]:
        return [(1.0, front[0][1])]
    for (ms_a, a), (ms_b, b) in pairwise(front):
        if ms_a <= latency_ms <= ms_b:
            share = (latency_ms - ms_a) / (ms_b - ms_a)
            return [(1 - share, a), (share, b)]
    return [(1.0, front[-1][1])]


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
    measure, teacher = trainer.measure, trainer.outcome(bench.teacher)
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
        tried = [trainer.run(shape, rate, SEEDS[0], epochs) for rate in RATES]
        cost_s[name] = sum(record["wall_s"] for record in [*tried, *records[1:]])
    mean, low, high = measure.interval((1.0, [teacher]))
    print(
        f"\nteacher: {measure.name} {mean:.2f} ({low:.2f} to {high:.2f}), n = {len(teacher)}\n\n"
        f"{'':<24}{'shape':<40}{'ms':>7}{'speed':>7}{'at 128':>7}{'2 thr.':>7}  "
        f"{measure.name}, {len(SEEDS)} seeds"
    )
    for name, shape in shapes.items():
        mean, low, high = measure.interval((1.0, rights[name]))
        clock = clocks[name]
        print(
            f"{name:<24}{shape.label:<40}{clock['ms']:>7.2f}{clock['speedup']:>6.2f}x"
            f"{clock['speedup_128']:>6.2f}x{clock['speedup_2_threads']:>6.2f}x  "
            f"{mean:.2f} ({low:.2f} to {high:.2f}), {mean / measure.of([teacher]):.1%} of the "
            f"teacher, {cost_s[name] / 60:.1f} min of training"
        )
    by_hand = {name: (clocks[name]["ms"], rights[name]) for name in hand}
    print("\nfound less the hand-crafted front at the same latency, in points:")
    for name in found:
        front = front_at(by_hand, measure, clocks[name]["ms"])
        less = [(-share, rights[other]) for share, other in front]
        mean, low, high = measure.interval((1.0, rights[name]), *less)
        what = " + ".join(f"{share:.0%} {other}" for share, other in front)
        print(f"  {name}: {mean:+.2f} ({low:+.2f} to {high:+.2f}): {verdict(low, high)}; {what}")
    if size.longer[task] and "found: 4x" in found:
        compare_with_longer(trainer, result, rights["found: 4x"], epochs)


def compare_with_longer(
    trainer: Trainer, result: SearchResult, found: list[Row], epochs: float
) -> None:
    """Gives a random shape the time of the search as longer training, and compares."""
    search_s = sum(trial.cost_s for trial in trained(result))
    lucky = best_random(result)
    quick_s = trainer.run(lucky, RATES[1], SEEDS[0], epochs)["wall_s"]
    longer = trainer.run(lucky, RATES[1], SEEDS[0], round(epochs * (1 + search_s / quick_s), 1))
    row = trainer.right(longer)
    mean, low, high = trainer.measure.interval((1.0, found), (-1.0, [row]))
    print(
        f"  found: 4x less {lucky.label}, the best random one, trained {longer['job']['epochs']:g} "
        f"epochs (one seed, {longer['wall_s'] / 60:.1f} min; the search took {search_s / 60:.1f} "
        f"min), {trainer.measure.name} {trainer.measure.of([row]):.2f}: {mean:+.2f} ({low:+.2f} to "
        f"{high:+.2f}): {verdict(low, high)}"
    )


def keep_accuracy(bench: Workbench, result: SearchResult, task: TaskName, epochs: float) -> None:
    """Trains the best shape that is 4x as fast for longer, with three seeds, and tells its share.

    It is the best of the search on search-validation that is as fast when it is timed again, at the
    task's length and at 128. The rate is that which search-validation chose after the short final
    training.
    """
    short = SMALL.epochs[task]
    trainer = Trainer(bench, Records(f"kd_nas_{task}_{short:g}"), task)
    measure, teacher = trainer.measure, trainer.outcome(bench.teacher)
    fast = [trial for trial in trained(result) if speedup_of(trial) >= 4]
    for trial in sorted(fast, key=lambda trial: -(trial.quality or 0.0)):
        shape, clock = trial.architecture, times(bench, trial.architecture)
        if min(clock["speedup"], clock["speedup_128"]) >= 4:
            break
    tried = [trainer.run(shape, rate, SEEDS[0], short) for rate in RATES]
    rate = RATES[int(np.argmax([record["quality"] for record in tried]))]
    rights = [trainer.right(trainer.run(shape, rate, seed, epochs)) for seed in SEEDS]
    mean, low, high = measure.interval((1.0, rights))
    share, least, most = measure.ratio(rights, teacher)
    print(
        f"\n{shape.label}, {epochs:g} epochs, rate {rate:g}: {measure.name} {mean:.2f} ({low:.2f} "
        f"to {high:.2f}), teacher {measure.of([teacher]):.2f}: {share:.1%} of it ({least:.1%} to "
        f"{most:.1%}), n = {len(teacher)}, {len(SEEDS)} seeds; {clock['speedup']:.2f}x at its own "
        f"length, {clock['speedup_128']:.2f}x at 128, {clock['speedup_2_threads']:.2f}x with two "
        "threads"
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
    parser.add_argument("--task", choices=["sst2", "mrpc", "stsb"], default="sst2")
    parser.add_argument("--search-only", action="store_true", help="stop before the comparison")
    parser.add_argument("--hand-only", action="store_true", help="only train what a hand crafted")
    parser.add_argument("--keep", type=float, help="train what was found at 4x for these epochs")
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
    purpose = "compared" if given.keep is None else "kept"  # so that both may run side by side
    with open_run(path.with_name(f"{path.name}_{purpose}"), settings) as run:
        bench = open_workbench(settings, run, LoggingNarrator())
        if given.keep is not None:
            keep_accuracy(bench, result, given.task, given.keep)
        else:
            compare(bench, result, given.task, size)


if __name__ == "__main__":
    main()
