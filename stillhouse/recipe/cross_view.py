"""Training a BiLSTM tagger of words by cross-view training, from data to a finished folder.

Source: Clark et al. (EMNLP 2018) for the method, Bhattacharjee et al., "To BERT or Not to BERT"
(EMNLP 2020) for its place beside pre-trained encoders. Ours adds a teacher's distributions as the
targets on text without tags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.tensorboard.writer import SummaryWriter

from stillhouse.data.task import load_task
from stillhouse.device.energy import metered
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
from stillhouse.errors import SettingsError
from stillhouse.evaluate.metrics import score
from stillhouse.export.checkpoint import METRICS_FILE
from stillhouse.export.word_tagger import SentenceTagger, save_word_tagger
from stillhouse.model.teachers import hash_weights
from stillhouse.model.word_tagger import PUBLISHED, SMALL, CrossViewTagger, set_word_vectors
from stillhouse.recipe.cross_view_data import TaggerData, read_tagger_data
from stillhouse.recipe.cross_view_teacher import (
    TaggingTargets,
    TaggingTeacher,
    load_tagging_teacher,
)
from stillhouse.recipe.finetune import CHOICES
from stillhouse.recipe.limits import size_mb
from stillhouse.recipe.logbook import watched
from stillhouse.recipe.scoring import quality_facts
from stillhouse.recipe.teacher import SCRATCH

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.data.task import Task
    from stillhouse.distill.steps import TrainReport, Watch
    from stillhouse.distill.teacher import TeacherSignals
    from stillhouse.model.word_tagger import TaggerSizes
    from stillhouse.run.cross_view_settings import CrossViewSettings
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings

PUBLISHED_WARMUP = 5_000
WARMUP_FRACTION = 0.1
CARD = """---
library_name: stillhouse
tags: [stillhouse, token-classification]
---

# BiLSTM tagger of words

Trained on the task `{task}` with stillhouse, on {labelled_sentences:,} sentences with tags and
{unlabelled_sentences:,} without. Load it with `stillhouse.load_word_tagger(folder)`; its method
`tag` takes lists of words.

| measure | value |
| --- | --- |
| {metric} (dev, n = {quality_count}) | {quality:.4f} |
| its 95 % interval | {quality_low:.4f} to {quality_high:.4f} |
| {metric} (held-out training sentences, n = {quality_search_count}) | {quality_search:.4f} |
| parameters | {parameters:,} |

Weights of step {best_step} of {steps}. {choice} The licence of the training data applies.
"""


@dataclass(frozen=True, kw_only=True)
class _Bench:
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


def train_word_tagger(
    settings: RunSettings, run: RunDirectory, narrator: Narrator, *, task: Task | None = None
) -> Path:
    """Trains the tagger that the settings describe; resumes what the run directory holds.

    Args:
        settings: The run's settings.
        run: The open run directory.
        narrator: Told what is decided on the way.
        task: A task in memory, instead of the one that the settings name.

    Returns:
        Folder of the tagger.

    Raises:
        SettingsError: If the task is not one of tags, there is no text without tags, or teacher
            and targets contradict each other.
        DataError: If a file is missing or unusable.
        TeacherError: If the teacher has no head for the task's tags.
        RunError: If data or teacher changed since the run began.
        TrainingError: If training diverges.
    """
    if (run.model / METRICS_FILE).exists():
        return run.model
    _check_teacher(settings)
    with run.timed("data"):
        bench = _open_bench(settings, run, narrator, task)
    with run.timed("training"), _costed(run) as keep_cost:
        model, report = _train(bench, keep_cost)
    with run.timed("evaluation"):
        return _finish(bench, model, report)


def _check_teacher(settings: RunSettings) -> None:
    named = settings.teacher.model != SCRATCH
    asked = settings.cross_view.targets == "teacher"
    if asked and not named:
        raise SettingsError(
            "cross_view.targets is 'teacher', but no teacher is named: give a checkpoint that was "
            "fine-tuned on the task with --teacher (teacher.model)"
        )
    if settings.task.unlabelled is not None and settings.cross_view.unlabelled_weight == 0:
        raise SettingsError(
            f"task.unlabelled is {settings.task.unlabelled!r}, but cross_view.unlabelled_weight is "
            "0, so that nobody would read it: leave one of them out"
        )
    if named and not asked:
        raise SettingsError(
            f"teacher.model is {settings.teacher.model!r}, but cross_view.targets is 'own', so "
            "that nobody would ask it: set cross_view.targets to 'teacher', or leave the teacher "
            "out"
        )
    if asked and settings.cross_view.unlabelled_weight == 0:
        raise SettingsError(
            "cross_view.unlabelled_weight is 0, so that the teacher would never be asked: leave it "
            "out, or the teacher"
        )


def _open_bench(
    settings: RunSettings, run: RunDirectory, narrator: Narrator, task: Task | None
) -> _Bench:
    """Loads data and teacher, and writes what the run stands on; trains nothing."""
    task = load_task(settings.task) if task is None else task
    sizes = tagger_sizes(settings.cross_view)
    teacher, facts = None, {}
    if settings.cross_view.targets == "teacher":
        teacher = load_tagging_teacher(settings.teacher.model, task.label_names)
        facts["teacher_sha256"] = hash_weights(teacher.model)
        run.refuse_other_teacher(facts["teacher_sha256"])
    data = read_tagger_data(task, settings, word_size=sizes.word)
    run.refuse_other_data(data.fingerprint)
    for line in data.told():
        narrator.say(line)
    run.write_provenance(settings, {"data_sha256": data.fingerprint, **facts})
    run.update_state({"task": task.name})
    return _Bench(
        settings=settings,
        run=run,
        narrator=narrator,
        accelerator=Accelerator(cpu=not torch.cuda.is_available()),
        data=data,
        sizes=sizes,
        teacher=teacher,
    )


def _train(bench: _Bench, keep_cost: Callable[[], None]) -> tuple[CrossViewTagger, TrainReport]:
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
                keep_cost()
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


def _targets(bench: _Bench, teacher: TaggingTeacher) -> TaggingTargets:
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


def _quality(bench: _Bench, model: CrossViewTagger) -> float:
    validation = bench.data.validation
    votes = bench.tagger(model).votes(validation.words)
    return score([bench.metric], votes, validation.gold)[bench.metric]


def _finish(bench: _Bench, model: CrossViewTagger, report: TrainReport) -> Path:
    """Writes the tagger with its measures; dev is read here."""
    data, run, wanted = bench.data, bench.run, bench.wanted
    tagger = bench.tagger(model)
    assert report.best_step is not None
    parameters = sum(one.numel() for one in model.tagger.parameters())
    metrics = {
        "task": data.name,
        **quality_facts(
            data.metrics, tagger.votes(data.dev.words), data.dev.gold, seed=bench.settings.seed
        ),
        "quality_search": report.scores[report.best_step],
        "quality_search_count": len(data.validation.gold),
        "choice": CHOICES["validation"],
        "size": wanted.size,
        "parameters": parameters,
        "parameters_trained": sum(one.numel() for one in model.parameters()),
        "size_mb": size_mb(parameters),
        "tagger_tags": len(data.code.names),
        "words": len(data.lexicon.words),
        "words_with_vectors": data.words_with_vectors,
        "labelled_sentences": len(data.labelled),
        "unlabelled_sentences": len(data.text.sentences),
        "unlabelled_left_out": {"too_long": data.text.too_long, "empty": data.text.empty},
        "targets": wanted.targets if data.unlabelled is not None else None,
        "teacher": None if bench.teacher is None else bench.settings.teacher.model,
        "steps": report.steps,
        "best_step": report.best_step,
        "evaluations": [
            {"step": step, "quality": quality} for step, quality in report.scores.items()
        ],
        "cost": run.state()["cost"],
    }
    save_word_tagger(run.model, tagger, metrics=metrics, card=CARD.format(**metrics))
    bench.narrator.say(
        f"Step {report.best_step:,} of {report.steps:,}: {bench.metric} {metrics['quality']:.4f} "
        f"on {metrics['quality_count']} dev sentences. {metrics['choice']}"
    )
    return run.model


@contextmanager
def _costed(run: RunDirectory) -> Iterator[Callable[[], None]]:
    """Adds what the body costs to the run's cost, whether it ends well or not.

    Yields:
        What writes the cost so far, so that a process that is killed leaves most of its own.
    """
    before: Mapping[str, Any] = run.state().get("cost", {})
    with metered() as meter:

        def keep() -> None:
            now = asdict(meter.cost())
            added = {
                name: round(before.get(name, 0.0) + now[name], 4)
                for name in ("seconds", "energy_wh", "co2_g")
            }
            run.update_state({"cost": {**added, "how": now["how"]}})

        try:
            yield keep
        finally:
            keep()
