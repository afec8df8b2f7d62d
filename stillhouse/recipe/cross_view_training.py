"""The training of a job of cross-view training: rules from the settings, targets, evaluations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.tensorboard.writer import SummaryWriter

from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.cross_view import (
    CrossViewRule,
    Movement,
    TrainingPlace,
    drawn_sentences,
    train_cross_view,
)
from stillhouse.distill.steps import Evaluations
from stillhouse.distill.teacher import cached_teacher
from stillhouse.evaluate.metrics import score
from stillhouse.export.word_tagger import SentenceTagger
from stillhouse.model.teachers import hash_weights
from stillhouse.model.word_tagger import PUBLISHED, SMALL, CrossViewTagger, set_word_vectors
from stillhouse.recipe.cross_view_teacher import TaggingTargets, TaggingTeacher
from stillhouse.recipe.logbook import watched

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.distill.steps import TrainReport, Watch
    from stillhouse.distill.teacher import TeacherSignals
    from stillhouse.model.word_tagger import TaggerSizes
    from stillhouse.recipe.cross_view_data import TaggerData
    from stillhouse.run.cross_view_settings import CrossViewSettings
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings

PUBLISHED_WARMUP = 5_000
WARMUP_FRACTION = 0.1


@dataclass(frozen=True, kw_only=True)
class TaggerBench:
    """What a training starts from.

    Attributes:
        sizes: Widths of the tagger.
        teacher: Tells tags of text without them, where it is not the tagger itself.
    """

    settings: RunSettings
    run: RunDirectory
    narrator: Narrator
    accelerator: Accelerator
    data: TaggerData
    sizes: TaggerSizes
    teacher: TaggingTeacher | None

    @property
    def wanted(self) -> CrossViewSettings:
        """The settings of the training."""
        return self.settings.cross_view

    @property
    def metric(self) -> str:
        """Name of the task's primary metric."""
        return self.data.metrics[0]

    def tagger(self, model: CrossViewTagger) -> SentenceTagger:
        """Puts what is served of a model together."""
        return SentenceTagger(
            network=model.tagger,
            sizes=self.sizes,
            lexicon=self.data.lexicon,
            code=self.data.code,
        )


def cross_view_rule(settings: RunSettings) -> CrossViewRule:
    """Returns what a step of a run computes."""
    wanted = settings.cross_view
    return CrossViewRule(
        label_smoothing=wanted.label_smoothing,
        dropout=wanted.dropout,
        unlabelled_dropout=wanted.unlabelled_dropout,
        batch_size=wanted.batch_size,
        unlabelled_batch_size=wanted.unlabelled_batch_size,
        unlabelled_weight=wanted.unlabelled_weight,
        seed=settings.seed,
    )


def movement(wanted: CrossViewSettings) -> Movement:
    """Returns how weights are moved; without a word on it, the warm-up ends in a tenth of a run."""
    usual = min(PUBLISHED_WARMUP, round(WARMUP_FRACTION * wanted.steps))
    return Movement(
        steps=wanted.steps,
        learning_rate=wanted.learning_rate,
        warmup_steps=usual if wanted.warmup_steps is None else wanted.warmup_steps,
        decay=wanted.decay,
        momentum=wanted.momentum,
        clip_norm=wanted.clip_norm,
        average=wanted.average,
    )


def tagger_sizes(wanted: CrossViewSettings) -> TaggerSizes:
    """Returns the widths that the settings name."""
    sizes = PUBLISHED if wanted.size == "published" else SMALL
    return sizes if wanted.word_size is None else replace(sizes, word=wanted.word_size)


def train_tagger(bench: TaggerBench) -> tuple[CrossViewTagger, TrainReport]:
    """Trains a tagger; resumes what the run directory holds.

    Returns:
        The tagger, with the averaged weights that were best on held-out training sentences, and
        what the training did.

    Raises:
        TrainingError: If training diverges.
    """
    data, run = bench.data, bench.run
    model = CrossViewTagger(
        bench.sizes,
        words=data.lexicon.word_count,
        characters=data.lexicon.character_count,
        tags=len(data.code.names),
        seed=bench.settings.seed,
    )
    if data.vectors:
        set_word_vectors(model.tagger, *data.vector_rows())
    targets = None if bench.teacher is None else _targets(bench, bench.teacher)
    checkpoint = CheckpointFolder(path=run.work / "training", fingerprint=data.fingerprint)
    title = f"{bench.wanted.steps:,} steps"
    logs = run.tensorboard / "cross-view"
    with (
        SummaryWriter(str(logs / "evaluations")) as curves,
        watched(bench.narrator, logs, title, checkpoint=checkpoint) as watch,
    ):

        def judged(averaged: CrossViewTagger) -> Watch:
            def quality(done: int) -> float:
                found = _quality(bench, averaged)
                curves.add_scalar(f"validation/{bench.metric}", found, done)
                bench.narrator.note(
                    f"Step {done:,}: {bench.metric} {found:.4f} on held-out training sentences"
                )
                return found

            evaluations = Evaluations(
                score=quality,
                every_steps=bench.wanted.evaluate_every,
                patience=bench.wanted.patience,
            )
            return replace(watch, evaluations=evaluations)

        report = train_cross_view(
            model,
            data.labelled,
            data.unlabelled,
            cross_view_rule(bench.settings),
            movement(bench.wanted),
            setting=TrainingPlace(accelerator=bench.accelerator, watch=judged, teacher=targets),
        )
    return model, report


def _targets(bench: TaggerBench, teacher: TaggingTeacher) -> TaggingTargets:
    """Lets the teacher read the sentences that the training is going to draw."""
    unlabelled, narrator = bench.data.unlabelled, bench.narrator
    assert unlabelled is not None
    drawn = drawn_sentences(unlabelled, cross_view_rule(bench.settings), bench.wanted.steps)
    numbers = np.unique(np.concatenate(drawn)) if drawn else np.zeros(0, np.int64)

    def ask(model: PreTrainedModel, encoded: EncodedSet) -> TeacherSignals:
        narrator.begin("Teacher's tags", 1.0)
        try:
            return cached_teacher(
                model,
                encoded,
                frozenset(),
                directory=bench.run.work / "cache",
                teacher_hash=hash_weights(model),
                precision="float32",
                limit_gb=bench.settings.distill.cache_gb,
                on_progress=narrator.advance,
            )
        finally:
            narrator.end()

    teacher.model.to(bench.accelerator.device)
    return TaggingTargets(
        teacher,
        bench.data.code,
        {int(number): bench.data.text.sentences[number] for number in numbers},
        max_length=bench.settings.task.max_length,
        ask=ask,
    )


def _quality(bench: TaggerBench, model: CrossViewTagger) -> float:
    validation = bench.data.validation
    votes = bench.tagger(model).votes(validation.words)
    return score([bench.metric], votes, validation.gold)[bench.metric]
