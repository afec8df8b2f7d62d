"""Layer maps: does a search find a better one than the rules, and does evolution beat chance at it?

Teacher all-MiniLM-L6-v2 (6 layers), students of 3 layers of 384 that begin as its slices. Every one
of the 138 maps in order is judged once, in the way of `search layer-map` with tasks and sizes of
its own: a short distillation on English Wikipedia, fine-tuning on small proxy tasks. Some are
judged with another seed, which tells how much of the table is noise. On the table the genetic
search and chance are replayed. At a larger budget and over several seeds the map that a search
found is compared with the rules, with the best that chance found among as many, and with a map of
the middle of the table, on sentences that chose nothing.

    python -m benchmarks.layer_map --small    # about an hour on one core; resumes
    python -m benchmarks.layer_map --full     # resumes
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from benchmarks.common import (
    Records,
    enwiki_folder,
    glue_folder,
    heading,
    interval_over_both,
    minilm_folder,
    print_stages,
)
from stillhouse.data.encoding import encode
from stillhouse.distill.layer_maps import Genes, LayerMapName
from stillhouse.distill.loop import train
from stillhouse.distill.terms import LabelTerm
from stillhouse.evaluate.agreement import rank_agreement
from stillhouse.model.anatomy import usable_positions
from stillhouse.model.predict import predict
from stillhouse.recipe.general import TextBench, distil_on_text, fresh_student, open_text_bench
from stillhouse.recipe.layer_map_search import map_space, named_maps
from stillhouse.recipe.proxy_tasks import (
    ProxyTask,
    encode_proxy_task,
    load_proxy_tasks,
    proxy_training,
    with_fresh_head,
)
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, settings_from_dict
from stillhouse.search.genetic import Evolution, GeneticMaps, RandomMaps
from stillhouse.search.map_search import MapStrategy
from stillhouse.search.map_space import MapSpace
from stillhouse.space.architecture import parse_architecture

SHAPE = "layers=3"
STAGES = (10, 20, 40)
SEEDS = 20
READ = ("glue/sst2", "glue/stsb")
"""Tasks whose search-validation parts the fitness reads."""
REPORTED = ("glue/cola", "glue/mrpc", "glue/sst2")
"""Tasks whose dev sets are reported; the fitness never saw the first two."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What one map is trained and scored on.

    Attributes:
        sequences: Of 32 or 128 tokens, distilled on once or more.
        epochs: Passes over them.
        tasks: Fine-tuned on afterwards.
        examples: Training examples of each, at most.
        validation: Search-validation examples of each that are scored, at most.
        task_epochs: Passes over the training examples.
    """

    sequences: int
    epochs: float
    tasks: tuple[str, ...]
    examples: int
    validation: int
    task_epochs: float


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained.

    Attributes:
        length: Tokens of a sequence of the corpus.
        held_out: Sequences that are not learnt from.
        table: What judges every map once.
        again: Maps that are judged with a second seed.
        final: What compares a few of them.
        seeds: Of that comparison.
    """

    length: int
    held_out: int
    table: Budget
    again: int
    final: Budget
    seeds: int


SMALL = Size(
    length=32,
    held_out=32,
    table=Budget(
        sequences=256, epochs=1.0, tasks=READ, examples=256, validation=256, task_epochs=2.0
    ),
    again=24,
    final=Budget(
        sequences=1_536, epochs=1.0, tasks=REPORTED, examples=512, validation=64, task_epochs=2.0
    ),
    seeds=3,
)
FULL = Size(
    length=128,
    held_out=500,
    table=Budget(
        sequences=32_000, epochs=1.0, tasks=READ, examples=4_000, validation=1_000, task_epochs=3.0
    ),
    again=138,
    final=Budget(
        sequences=320_000,
        epochs=1.0,
        tasks=REPORTED,
        examples=70_000,
        validation=64,
        task_epochs=4.0,
    ),
    seeds=5,
)

LayerMap = Genes | LayerMapName
Right = dict[str, NDArray[np.float64]]
"""By task, 1 for every dev example that is answered right, else 0."""


def bench_settings(size: Size, budget: Budget) -> RunSettings:
    """Settings of the text, the distillation and the proxy tasks of a budget."""
    sequences = max(size.table.sequences, size.final.sequences) + size.held_out
    return settings_from_dict(
        {
            "recipe": "layer-map",
            "teacher": {"model": minilm_folder()},
            "student": SHAPE,
            "corpus": {
                "name": str(enwiki_folder()),
                "length": size.length,
                "held_out": size.held_out,
                "max_tokens": sequences * (size.length - 2),
            },
            "layer_map": {
                "sequences": budget.sequences,
                "epochs": budget.epochs,
                "tasks": list(budget.tasks),
                "directory": str(glue_folder()),
                "task_examples": budget.examples,
                "task_validation": budget.validation,
                "task_epochs": budget.task_epochs,
                "task_learning_rate": 2e-4,
                "task_batch_size": 16,
            },
            # As the table was recorded; the default now suits the uniform map alone.
            "distill": {"batch_size": 16, "kept_layers": "spread"},
            "device": {"threads": 1},
        }
    )


class Trainings:
    """Trains students by layer maps; what was trained before is read.

    Args:
        bench: The open text.
        size: Decides the folder of the records.
        records: Of all trainings of a size.
    """

    def __init__(self, bench: TextBench, size: Size, records: Records) -> None:
        self.bench, self.size, self.records = bench, size, records
        self._tasks: dict[Budget, list[ProxyTask]] = {}

    def judged(self, layer_map: LayerMap, seed: int) -> float:
        """The fitness: mean score of the tasks on search-validation, at the table's budget."""
        return float(
            np.mean(list(self._record(layer_map, seed, self.size.table)["scores"].values()))
        )

    def right(self, layer_map: LayerMap, seed: int) -> Right:
        """Which dev examples are answered right, at the final budget."""
        told = self._record(layer_map, seed, self.size.final)["right"]
        return {task: np.array(list(marks), dtype=float) for task, marks in told.items()}

    def seconds(self, layer_map: LayerMap, seed: int, budget: Budget) -> float:
        """Time of a training."""
        return float(self._record(layer_map, seed, budget)["cost_s"])

    def _record(self, layer_map: LayerMap, seed: int, budget: Budget) -> dict[str, Any]:
        spelt = layer_map if isinstance(layer_map, str) else list(layer_map)
        job = {"map": spelt, "seed": seed, "is_final": budget is self.size.final}
        return self.records.find(job) or self.records.add(job, self._train(layer_map, seed, budget))

    def _train(self, layer_map: LayerMap, seed: int, budget: Budget) -> dict[str, Any]:
        start_s, bench = time.monotonic(), self.bench
        architecture = parse_architecture(SHAPE, like=bench.teacher_architecture)
        student, _ = fresh_student(bench, architecture, seed=seed)
        total = len(bench.examples)
        chosen = np.arange(budget.sequences, dtype=np.int64) * total // budget.sequences
        distil_on_text(
            bench,
            student,
            bench.examples.select(chosen),
            layer_map=layer_map,
            epochs=budget.epochs,
            seed=seed,
        )
        scores, right = {}, {}
        for task in self._encoded(budget):
            model = with_fresh_head(student, task.task, seed=seed)
            train(
                model,
                task.train,
                [LabelTerm(kind=task.task.kind)],
                proxy_training(
                    bench_settings(self.size, budget).layer_map,
                    precision=bench.precision,
                    seed=seed,
                ),
                accelerator=bench.accelerator,
            )
            if budget is self.size.table:
                scores[task.name] = task.score(model, precision=bench.precision)
            else:
                right[task.name] = "".join(map(str, self._marks(task, model)))
        cost_s = round(time.monotonic() - start_s, 2)
        return {"scores": scores, "right": right, "cost_s": cost_s}

    def _marks(self, task: ProxyTask, model: Any) -> list[int]:
        dev = encode(task.task.dev, self.bench.source.tokenizer, max_length=128)
        answers = predict(model, dev, precision=self.bench.precision).argmax(axis=1)
        return (answers == np.asarray(dev.gold)).astype(int).tolist()

    def _encoded(self, budget: Budget) -> list[ProxyTask]:
        if budget not in self._tasks:
            settings = bench_settings(self.size, budget).layer_map
            self._tasks[budget] = [
                encode_proxy_task(
                    name,
                    task,
                    self.bench.source.tokenizer,
                    settings,
                    longest=usable_positions(self.bench.teacher.config),
                    seed=0,
                )
                for name, task in load_proxy_tasks(settings).items()
            ]
        return self._tasks[budget]


@contextmanager
def opened(size: Size, records: Records) -> Iterator[TextBench]:
    """Opens the text, the teacher and the cache of its signals that all maps share."""
    settings = bench_settings(size, size.table)
    with open_run(records.folder / "text", settings) as run:
        yield open_text_bench(settings, run, LoggingNarrator(), Accelerator(cpu=True))


def make_table(trainings: Trainings, space: MapSpace) -> dict[Genes, float]:
    """Judges every map of the space once."""
    table: dict[Genes, float] = {}
    for place, genes in enumerate(space.enumerate(), start=1):
        table[genes] = trainings.judged(genes, 0)
        if place % 20 == 0:
            print(f"  {place} of {space.size()} maps judged", flush=True)
    return table


def print_table(
    trainings: Trainings, table: Mapping[Genes, float], ranked: Sequence[Genes], space: MapSpace
) -> None:
    """Prints the best and the worst maps, the places of the rules, and the noise."""
    values = np.array(list(table.values()))
    costs = [trainings.seconds(genes, 0, trainings.size.table) for genes in table]
    print(
        f"\nfitness of {len(table)} maps: mean {values.mean():.4f}, standard deviation "
        f"{values.std():.4f}, {values.min():.4f} to {values.max():.4f}; "
        f"{np.mean(costs):.1f} s a map"
    )
    for title, few in (("best", ranked[:5]), ("worst", ranked[-3:])):
        print(f"{title}: " + ", ".join(f"{list(genes)} {table[genes]:.4f}" for genes in few))
    for name, genes in named_maps(space).items():
        print(f"{name} {list(genes)}: {table[genes]:.4f}, place {ranked.index(genes) + 1}")
    both = trainings.judged("uniform_last", 0)
    place = 1 + sum(value > both for value in table.values())
    print(f"uniform_last (two teacher layers a layer): {both:.4f}, would be place {place}")
    print(f"supervised layers   maps   mean fitness\n{_by_supervised(table)}")
    drawn = np.random.default_rng(0).permutation(len(ranked))[: trainings.size.again]
    again = [ranked[int(place)] for place in sorted(drawn)]
    found = rank_agreement(
        [table[genes] for genes in again],
        [trainings.judged(genes, 1) for genes in again],
        seed=0,
    )
    told = "none"
    if found.spearman is not None:
        one = found.spearman
        told = f"{one.value:+.2f} (95 % interval {one.low:+.2f} to {one.high:+.2f})"
        told += "; small: not evidence" if one.low <= 0 else ""
    print(f"rank correlation of two seeds, n = {found.count}: {told}")


def _by_supervised(table: Mapping[Genes, float]) -> str:
    lines = []
    for count in range(4):
        found = [value for genes, value in table.items() if sum(map(bool, genes)) == count]
        lines.append(f"{count:>17}   {len(found):>4}   {np.mean(found):.4f}")
    return "\n".join(lines)


def replay(strategy: MapStrategy, table: Mapping[Genes, float], count: int) -> list[Genes]:
    """Asks and tells from the table; gives the maps in their order."""
    asked: list[Genes] = []
    while len(asked) < count and (proposed := strategy.ask(1)):
        strategy.tell({genes: table[genes] for genes in proposed})
        asked += proposed
    return asked


def print_replays(table: Mapping[Genes, float], ranked: Sequence[Genes], space: MapSpace) -> None:
    """Prints what strategies reach, over 20 seeds, at the same numbers of judged maps."""
    small = Evolution(population=8)
    first = tuple(named_maps(space).values())  # as `search layer-map` begins
    ways = {
        "random": lambda seed: RandomMaps(space, seed, first=first),
        "genetic, population 20": lambda seed: GeneticMaps(space, seed, first=first),
        "genetic, population 8": lambda seed: GeneticMaps(
            space, seed, evolution=small, first=first
        ),
    }
    fitness: dict[str, list[list[float]]] = {name: [] for name in ways}
    places: dict[str, list[list[float]]] = {name: [] for name in ways}
    for name, make in ways.items():
        for seed in range(SEEDS):
            asked = replay(make(seed), table, STAGES[-1])
            best = [max(asked[:stage], key=table.__getitem__) for stage in STAGES]
            fitness[name].append([table[genes] for genes in best])
            places[name].append([1 + sum(v > table[g] for v in table.values()) for g in best])
    print(f"\nreplayed on the table, {SEEDS} seeds; the optimum is {table[ranked[0]]:.4f}")
    for title, found in (("fitness of the best", fitness), ("its place", places)):
        print()
        print_stages(title, {name: np.array(rows) for name, rows in found.items()}, STAGES)


def gap(ours: Sequence[Right], theirs: Sequence[Right], tasks: Sequence[str]) -> str:
    """Mean difference of accuracies over tasks; seeds and sentences were both drawn by chance."""
    found = []
    for task in tasks:
        gaps_SN = np.stack([a[task] - b[task] for a, b in zip(ours, theirs, strict=True)])
        mean, low, _ = interval_over_both(gaps_SN)
        found.append((mean, mean - low))
    mean = float(np.mean([one for one, _ in found]))
    reach = float(np.sqrt(np.square([one for _, one in found]).sum()) / len(found))
    verdict = "" if abs(mean) > reach else "; small: not evidence"
    return f"{mean:+.4f} ({mean - reach:+.4f} to {mean + reach:+.4f}){verdict}"


def print_final(
    trainings: Trainings, table: Mapping[Genes, float], ranked: Sequence[Genes], space: MapSpace
) -> None:
    """Trains the searched map, the rules and a middling map longer, and compares them on dev."""
    first = tuple(named_maps(space).values())
    asked = replay(GeneticMaps(space, 0, first=first), table, STAGES[-1])
    searched = max(asked, key=table.__getitem__)
    by_chance = replay(RandomMaps(space, 0), table, STAGES[-1])
    rivals: dict[str, LayerMap] = {
        "searched": searched,
        "best by chance": max(by_chance, key=table.__getitem__),
        **named_maps(space),
        "uniform_last": "uniform_last",
        "median": ranked[len(ranked) // 2],
    }
    budget, seeds = trainings.size.final, range(trainings.size.seeds)
    print(
        f"\nlarger budget: {budget.sequences:,} sequences, then at most {budget.examples:,} "
        f"examples a task; {len(seeds)} seeds; accuracy on dev, of which the fitness read none"
    )
    found = {name: [trainings.right(one, seed) for seed in seeds] for name, one in rivals.items()}
    for name, rows in found.items():
        told = [
            f"{task.removeprefix('glue/')} {np.mean([row[task].mean() for row in rows]):.4f} "
            f"(n = {len(rows[0][task]):,})"
            for task in REPORTED
        ]
        print(f"  {name} {rivals[name]}: {', '.join(told)}")
    unread = [task for task in REPORTED if task not in READ]
    for title, tasks in (("all tasks", REPORTED), ("tasks that the fitness never saw", unread)):
        print(f"searched less another, mean of {title} (95 % interval)")
        for name in list(found)[1:]:
            print(f"  {name}: {gap(found['searched'], found[name], tasks)}")


def main() -> None:
    """Judges, replays, compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="size", action="store_const", const=SMALL, default=SMALL)
    parser.add_argument("--full", dest="size", action="store_const", const=FULL)
    size = parser.parse_args().size
    heading("benchmarks.layer_map")
    run(size, "small" if size is SMALL else "full")


def run(size: Size, name: str, space: MapSpace | None = None) -> None:
    """Does all of it; what was trained under the same name before is read."""
    records = Records(f"layer_map/{name}")
    with opened(size, records) as bench:
        trainings = Trainings(bench, size, records)
        shape = parse_architecture(SHAPE, like=bench.teacher_architecture)
        space = space or map_space(bench.settings, shape, bench.teacher.config.num_hidden_layers)
        table = make_table(trainings, space)
        ranked = sorted(table, key=lambda genes: -table[genes])
        print_table(trainings, table, ranked, space)
        print_replays(table, ranked, space)
        print_final(trainings, table, ranked, space)


if __name__ == "__main__":
    main()
