"""Training a BiLSTM tagger of words by cross-view training, from data to a finished folder.

Source: Clark et al. (EMNLP 2018) for the method, Bhattacharjee et al., "To BERT or Not to BERT"
(EMNLP 2020) for its place beside pre-trained encoders. Ours adds a teacher's distributions as the
targets on text without tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator

from stillhouse.data.task import load_task
from stillhouse.errors import SettingsError
from stillhouse.evaluate.kept_answers import ANSWERS_FILE, pack_answers
from stillhouse.export.checkpoint import METRICS_FILE
from stillhouse.export.word_tagger import save_word_tagger
from stillhouse.model.teachers import hash_weights
from stillhouse.recipe.cross_view_data import read_tagger_data
from stillhouse.recipe.cross_view_teacher import load_tagging_teacher
from stillhouse.recipe.cross_view_training import TaggerBench, tagger_sizes, train_tagger
from stillhouse.recipe.finetune import CHOICES
from stillhouse.recipe.limits import size_mb
from stillhouse.recipe.scoring import quality_facts
from stillhouse.recipe.teacher import SCRATCH

if TYPE_CHECKING:
    from pathlib import Path

    from stillhouse.data.task import Task
    from stillhouse.distill.steps import TrainReport
    from stillhouse.model.word_tagger import CrossViewTagger
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings

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
    with run.timed("training"):
        model, report = train_tagger(bench)
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
) -> TaggerBench:
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
    return TaggerBench(
        settings=settings,
        run=run,
        narrator=narrator,
        accelerator=Accelerator(cpu=not torch.cuda.is_available()),
        data=data,
        sizes=sizes,
        teacher=teacher,
    )


def _finish(bench: TaggerBench, model: CrossViewTagger, report: TrainReport) -> Path:
    """Writes the tagger with its measures; dev is read here."""
    data, run, wanted = bench.data, bench.run, bench.wanted
    tagger = bench.tagger(model)
    assert report.best_step is not None
    parameters = sum(one.numel() for one in model.tagger.parameters())
    votes, gold = tagger.votes(data.dev.words), data.dev.gold
    metrics = {
        "task": data.name,
        **quality_facts(data.metrics, votes, gold, seed=bench.settings.seed),
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
    answers = pack_answers(data.metrics, votes, gold, dev_sha256=data.dev_sha256)
    save_word_tagger(
        run.model,
        tagger,
        metrics=metrics,
        card=CARD.format(**metrics),
        files={ANSWERS_FILE: answers},
    )
    bench.narrator.say(
        f"Step {report.best_step:,} of {report.steps:,}: {bench.metric} {metrics['quality']:.4f} "
        f"on {metrics['quality_count']} dev sentences. {metrics['choice']}"
    )
    return run.model
