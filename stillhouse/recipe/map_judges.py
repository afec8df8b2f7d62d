"""What judges a layer map: a short distillation with it, on a corpus or on the run's own task.

Every map has the same first weights, examples, order of examples, seeds and schedules.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.loop import train
from stillhouse.evaluate.metrics import constant_quality
from stillhouse.model.anatomy import usable_positions
from stillhouse.recipe.candidates import failing_alone
from stillhouse.recipe.general import distil_on_text, fresh_student, text_terms
from stillhouse.recipe.kept_scores import KeptScores
from stillhouse.recipe.logbook import watched
from stillhouse.recipe.objective import distillation_terms
from stillhouse.recipe.proxy_tasks import (
    ProxyTask,
    encode_proxy_task,
    finetuned_score,
    load_proxy_tasks,
    proxy_training,
)
from stillhouse.search.map_search import MapJudgement

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.distill.layer_maps import Genes
    from stillhouse.distill.steps import TrainReport, Watch
    from stillhouse.distill.teacher import TeacherSignals
    from stillhouse.distill.terms import Term
    from stillhouse.recipe.general import TextBench
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.settings import RunSettings
    from stillhouse.space.architecture import Architecture, BertArchitecture

CORPUS_PER_PROXY = 10
"""One of so many sequences is in the proxy corpus, where the settings do not say how many."""


def map_name(genes: Genes) -> str:
    """Spells a map for the names of files, such as `0-2-5`."""
    return "-".join(map(str, genes))


def seeds_of(settings: RunSettings) -> range:
    """Returns the seeds that every map is judged with."""
    return range(settings.seed, settings.seed + settings.layer_map.seeds)


@dataclass(frozen=True, kw_only=True)
class TextJudge:
    """Distils a student on a part of the corpus and fine-tunes it on every proxy task.

    The fitness is the mean of the tasks' scores on search-validation, and over the seeds of the
    fine-tunings. There is one distillation: heads on small sets are what a seed changes most.

    Attributes:
        bench: The run's bench of text.
        architecture: The student's shape.
    """

    bench: TextBench
    architecture: BertArchitecture

    @property
    def told(self) -> str:
        """What judges, for a person."""
        wanted = self.bench.settings.layer_map
        tasks = ", ".join(wanted.tasks)
        return (
            f"distilling on {len(self.examples):,} sequences of the corpus and fine-tuning on "
            f"{tasks}"
        )

    @cached_property
    def examples(self) -> EncodedSet:
        """The proxy corpus, spread evenly over the whole one."""
        everything = self.bench.examples
        total = len(everything)
        wanted = self.bench.settings.layer_map.sequences or max(1, total // CORPUS_PER_PROXY)
        count = min(wanted, total)
        return everything.select(np.arange(count, dtype=np.int64) * total // count)

    @cached_property
    def tasks(self) -> list[ProxyTask]:
        """The proxy tasks, encoded once for all maps."""
        bench = self.bench
        return [
            encode_proxy_task(
                name,
                task,
                bench.source.tokenizer,
                bench.settings.layer_map,
                longest=usable_positions(bench.teacher.config),
                seed=bench.settings.seed,
            )
            for name, task in load_proxy_tasks(bench.settings.layer_map).items()
        ]

    def __call__(self, genes: Genes) -> MapJudgement:
        """Judges a map.

        Raises:
            CandidateFailed: If it runs out of memory or time, or its loss is not finite.
        """
        name, fingerprint = self._name(genes), self._fingerprint(genes)
        kept = KeptScores(self.bench.run.work / "layer-map" / f"{name}.json", fingerprint)
        with kept.until_judged(), failing_alone():
            return self._judge(genes, kept)

    def _name(self, genes: Genes) -> str:
        return f"{self.architecture.layers}/{map_name(genes)}"

    def _fingerprint(self, genes: Genes) -> str:
        return f"{self.bench.teacher_hash} {self.architecture.key} {genes}"

    def _judge(self, genes: Genes, kept: KeptScores) -> MapJudgement:
        bench, tasks = self.bench, self.tasks
        settings = bench.settings
        student, _ = fresh_student(bench, self.architecture, seed=settings.seed)
        terms = text_terms(bench, student, genes, seed=settings.seed)
        bench.signals(self.examples, terms, "Teacher over the proxy corpus")
        # What was made until here is kept for all maps, and so the time of none.
        deadline, name = _deadline(settings), self._name(genes)
        checkpoint = CheckpointFolder(
            path=bench.run.work / "layer-map" / name, fingerprint=self._fingerprint(genes)
        )
        with self._watched(name, f"Layer map {list(genes)}", deadline, checkpoint) as watch:
            report = distil_on_text(
                bench,
                student,
                self.examples,
                layer_map=genes,
                epochs=settings.layer_map.epochs,
                seed=settings.seed,
                watch=watch,
            )
        scores = {
            task.name: [
                kept.score(
                    f"{task.fingerprint} {seed}",
                    partial(self._score, task, student, f"{name}/{place}-{seed}", seed, deadline),
                )
                for seed in seeds_of(settings)
            ]
            for place, task in enumerate(tasks)
        }
        checkpoint.clear()
        means = {task: statistics.fmean(found) for task, found in scores.items()}
        return MapJudgement(
            fitness=statistics.fmean(means.values()),
            attributes={
                "scores": means,
                "by_seed": scores,
                "constants": {task.name: task.constant for task in tasks},
                "proxy_loss": report.loss,
                "seed": settings.seed,
            },
        )

    def _score(
        self,
        task: ProxyTask,
        student: PreTrainedModel,
        name: str,
        seed: int,
        deadline: float | None,
    ) -> float:
        bench = self.bench
        with self._watched(name, f"Fine-tuning on {task.name}", deadline) as watch:
            return finetuned_score(
                task,
                student,
                proxy_training(bench.settings.layer_map, precision=bench.precision, seed=seed),
                accelerator=bench.accelerator,
                watch=watch,
            )

    @contextmanager
    def _watched(
        self,
        name: str,
        title: str,
        deadline: float | None,
        checkpoint: CheckpointFolder | None = None,
    ) -> Iterator[Watch]:
        bench = self.bench
        logs = bench.run.tensorboard / "layer-map" / name
        with watched(
            bench.narrator, logs, title, checkpoint=checkpoint, deadline=deadline
        ) as watch:
            yield watch


@dataclass(frozen=True, kw_only=True)
class TaskJudge:
    """Distils a student on the proxy set of the run's task, as candidates of a search are.

    The fitness is the task's score on search-validation, the mean over the seeds of distillations.

    Attributes:
        bench: The run's prepared workbench.
        architecture: The student's shape.
    """

    bench: Workbench
    architecture: Architecture

    @property
    def told(self) -> str:
        """What judges, for a person."""
        return f"distilling on {len(self.bench.proxy):,} examples of {self.bench.task.name}"

    @cached_property
    def constant(self) -> float:
        """Score of the best answer that is the same for every example of search-validation."""
        task, gold = self.bench.task, self.bench.data.validation.gold
        return constant_quality(task.metrics[0], gold, classes=task.output_count)

    def __call__(self, genes: Genes) -> MapJudgement:
        """Judges a map.

        Raises:
            CandidateFailed: If it runs out of memory or time, its loss is not finite, or it cannot
                be quantised for a device of 8 bits.
        """
        name = f"{self.architecture.layers}-{map_name(genes)}.json"
        fingerprint = f"{self.bench.teacher_hash} {self.architecture.key} {genes}"
        kept = KeptScores(self.bench.run.work / "layer-map" / name, fingerprint)
        with kept.until_judged(), failing_alone():
            return self._judge(genes, kept)

    def _judge(self, genes: Genes, kept: KeptScores) -> MapJudgement:
        bench = self.bench
        self._begun(genes, bench.settings.seed)  # what it makes for all maps is the time of none
        deadline = _deadline(bench.settings)
        scores, losses = [], []
        for seed in seeds_of(bench.settings):
            score, loss = kept.several(
                f"seed {seed}", partial(self._score_and_loss, genes, seed, deadline)
            )
            scores.append(score)
            losses.append(loss)
        mean = statistics.fmean(scores)
        return MapJudgement(
            fitness=mean,
            attributes={
                "scores": {bench.task.name: mean},
                "by_seed": {bench.task.name: scores},
                "constants": {bench.task.name: self.constant},
                "proxy_loss": statistics.fmean(losses),
                "seed": bench.settings.seed,
            },
        )

    def _score_and_loss(
        self, genes: Genes, seed: int, deadline: float | None
    ) -> tuple[float, float]:
        bench, validation = self.bench, self.bench.data.validation
        student, report = self._distil(genes, seed, deadline)
        scores = bench.score(bench.student_logits(student, validation), validation)
        return scores[bench.task.metrics[0]], report.loss

    def _distil(
        self, genes: Genes, seed: int, deadline: float | None
    ) -> tuple[PreTrainedModel, TrainReport]:
        bench = self.bench
        student, terms, teacher = self._begun(genes, seed)
        name = f"{self.architecture.layers}/{map_name(genes)}/{seed}"
        logs = bench.run.tensorboard / "layer-map" / name
        title = f"Layer map {list(genes)}"
        with watched(bench.narrator, logs, title, deadline=deadline) as watch:
            report = train(
                student,
                bench.proxy,
                terms,
                bench.train_settings(bench.proxy_epochs, seed=seed),
                accelerator=bench.accelerator,
                teacher=teacher,
                watch=watch,
            )
        return student, report

    def _begun(self, genes: Genes, seed: int) -> tuple[PreTrainedModel, list[Term], TeacherSignals]:
        """A student with its first weights, what it learns by, and the teacher's signals for it."""
        bench, distill = self.bench, self.bench.settings.distill
        student = bench.build(self.architecture, seed=seed).to(bench.accelerator.device)
        bench.initialise(student)
        terms = distillation_terms(
            replace(distill, layer_map=genes),
            student.config,
            bench.teacher.config,
            kind=bench.task.kind,
            seed=seed,
        )
        return student, terms, bench.signals(bench.proxy, terms, "Teacher over the proxy set")


def _deadline(settings: RunSettings) -> float | None:
    seconds = settings.search.candidate_seconds
    return None if seconds is None else time.monotonic() + seconds
