"""Preparing the teacher: trust its head, or fine-tune it first; keep it in the run directory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

import numpy as np

from stillhouse.data.embedded import train_tokenizer
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.loop import TrainSettings, train
from stillhouse.distill.terms import LabelTerm
from stillhouse.errors import TeacherError
from stillhouse.evaluate.kept_answers import ANSWERS_FILE, pack_answers
from stillhouse.evaluate.metrics import constant_quality, score
from stillhouse.export.checkpoint import METRICS_FILE, read_metrics, save_checkpoint
from stillhouse.model.anatomy import (
    architecture_of,
    encoder_parameters,
    label_count,
    label_names,
)
from stillhouse.model.predict import predict
from stillhouse.model.teachers import (
    Teacher,
    fresh_bert,
    hash_weights,
    label_order_by_agreement,
    label_order_by_name,
    load_model,
    load_tokenizer,
    name_labels,
    reorder_outputs,
)
from stillhouse.recipe.logbook import watched
from stillhouse.recipe.scoring import choose_threshold, own_gold, quality_facts

if TYPE_CHECKING:
    from stillhouse.data.encoding import EncodedSet
    from stillhouse.data.metric_names import TaskKind
    from stillhouse.data.splits import Splits
    from stillhouse.data.task import Task
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.settings import RunSettings

logger = logging.getLogger(__name__)

SCRATCH = "scratch"
_CALLED: dict[TaskKind, str] = {"multi_label": "multi-label", "tags": "tagging"}
PROBE_FRACTION = 0.1
PROBE_LEAST = 2000


def load_teacher(settings: RunSettings, task: Task, splits: Splits) -> Teacher:
    """Loads the teacher that the settings name, with a head of the task's size."""
    labels = task.output_count
    if settings.teacher.model == SCRATCH:
        texts = _texts(splits)
        tokenizer = train_tokenizer(texts, vocab_size=4000)
        model = fresh_bert(tokenizer, labels=labels, seed=settings.seed, kind=task.kind)
        return Teacher(
            name=SCRATCH,
            model=model,
            tokenizer=tokenizer,
            has_trained_head=False,
            from_scratch=True,
        )
    model, has_head = load_model(settings.teacher.model, labels=labels, kind=task.kind)
    return Teacher(
        name=settings.teacher.model,
        model=model,
        tokenizer=load_tokenizer(settings.teacher.model),
        has_trained_head=has_head,
    )


def is_prepared(run: RunDirectory) -> bool:
    """Tells whether an earlier start of the run left the prepared teacher."""
    return (run.teacher / METRICS_FILE).exists()


def reload_teacher(run: RunDirectory, name: str, kind: TaskKind) -> Teacher | None:
    """Loads the prepared teacher of an earlier start of this run, if it got that far."""
    if not is_prepared(run):
        return None
    model, _ = load_model(str(run.teacher), kind=kind)
    return Teacher(
        name=name,
        model=model,
        tokenizer=load_tokenizer(str(run.teacher)),
        has_trained_head=True,
    )


def prepare_teacher(bench: Workbench) -> None:
    """Gives the teacher a head that can be trusted, in place, and saves it in the run directory.

    Raises:
        TeacherError: If it has another number of outputs than the task, has no trained head and
            must not be fine-tuned, or its own head is worse than always naming the most frequent
            class.
    """
    outputs, wanted = label_count(bench.teacher.config), bench.task.output_count
    if outputs != wanted:
        raise TeacherError(
            f"{bench.teacher_name} has {outputs} outputs, the task {bench.task.name} needs "
            f"{wanted}: give a teacher of this task"
        )
    if bench.settings.teacher.finetune == "never" and not bench.source.has_trained_head:
        raise TeacherError(
            f"{bench.teacher_name} has no trained head of {wanted} outputs "
            "for this task and teacher.finetune is 'never': use 'auto', or a fine-tuned checkpoint"
        )
    if _needs_finetuning(bench):
        name_labels(bench.teacher, bench.task.label_names, kind=bench.task.kind)
        _finetune(bench)
    else:
        _trust_head(bench)
    _save(bench)


def finetuning_passes(bench: Workbench) -> float:
    """Tells how often fine-tuning will run through the training set, its trial of rates included.

    Returns:
        0 where the teacher is taken as it is.
    """
    if not _needs_finetuning(bench):
        return 0.0
    rates = _rates(bench)
    probe = len(probe_examples(bench.data.train, bench.settings.seed)) / len(bench.data.train)
    return _epochs(bench) + (probe * len(rates) if len(rates) > 1 else 0.0)


def _needs_finetuning(bench: Workbench) -> bool:
    mode = bench.settings.teacher.finetune
    return mode == "always" or (mode == "auto" and not bench.source.has_trained_head)


def _rates(bench: Workbench) -> Sequence[float]:
    default = (5e-4,) if bench.source.from_scratch else (6e-5, 1.2e-4, 2.4e-4)
    return bench.settings.teacher.learning_rates or default


def _epochs(bench: Workbench) -> float:
    return bench.settings.teacher.epochs or (8.0 if bench.source.from_scratch else 2.0)


def _texts(splits: Splits) -> list[str]:
    train = splits.train
    if "words" in train.column_names:
        return [" ".join(words) for words in train["words"]]
    names = ("text_a", "text_b", "question", "context")
    columns = [name for name in names if name in train.column_names]
    return [text for column in columns for text in train[column]]


def _trust_head(bench: Workbench) -> None:
    """Matches a trained head to the task's labels."""
    names, kind = bench.task.label_names, bench.task.kind
    match kind:
        case "classes":
            order = _trusted_order(bench)
        case "multi_label":
            order = _trusted_order_by_name(bench, "f1_micro")
        case "tags":
            order = _trusted_order_by_name(bench, bench.task.metrics[0])
        case "spans":
            order = (0, 1)
            _refuse_constant(bench, order, bench.task.metrics[0])
        case "scores":
            order = (0,)
        case _:
            assert_never(kind)
    reorder_outputs(bench.teacher, order)
    name_labels(bench.teacher, names, kind=kind)


def _trusted_order(bench: Workbench) -> tuple[int, ...]:
    """Finds the output of each class, and refuses a head worse than the most frequent class."""
    names = bench.task.label_names
    logits_NC = predict(bench.teacher, bench.data.validation, precision=bench.precision)
    assert bench.data.validation.labels is not None
    labels_N = bench.data.validation.labels.astype(np.int64)
    order = label_order_by_name(bench.teacher, names)
    if order is None:
        order = label_order_by_agreement(logits_NC, labels_N)
        bench.narrator.say(
            f"The teacher's labels {label_names(bench.teacher.config)} are not the "
            f"task's {list(names)}; matched by best agreement: output {list(order)} for them."
        )
    accuracy = float((logits_NC[:, list(order)].argmax(axis=1) == labels_N).mean())
    majority = float(np.bincount(labels_N).max() / len(labels_N))
    if accuracy < majority:
        raise TeacherError(
            f"{bench.teacher_name} names {accuracy:.1%} of {len(labels_N)} held-out examples "
            f"right, fewer than the most frequent class alone ({majority:.1%}): it was not "
            "trained for this task; use --teacher-finetune always"
        )
    return order


def _trusted_order_by_name(bench: Workbench, metric: str) -> tuple[int, ...]:
    """Finds the output of each class by name alone: rare classes would be matched by chance."""
    names = bench.task.label_names
    order = label_order_by_name(bench.teacher, names)
    if order is None:
        raise TeacherError(
            f"the labels of {bench.teacher_name}, {label_names(bench.teacher.config)}, are not the "
            f"task's {list(names)}, and outputs of a {_CALLED[bench.task.kind]} task are matched "
            "by name alone: name them in id2label of its config.json, or use --teacher-finetune "
            "always"
        )
    _refuse_constant(bench, order, metric)
    return order


def _refuse_constant(bench: Workbench, order: tuple[int, ...], metric: str) -> None:
    """Refuses a head worse than giving always the same answer, the best choice of one.

    Raises:
        TeacherError: If it is.
    """
    gold = bench.data.validation.gold
    logits = predict(bench.teacher, bench.data.validation, precision=bench.precision)
    quality = score([metric], logits[:, list(order)], gold)[metric]
    constant = constant_quality(metric, gold, classes=bench.task.output_count)
    if quality < constant:
        raise TeacherError(
            f"{bench.teacher_name} reaches {metric} {quality:.4f} on {len(gold)} held-out "
            f"examples, less than the same answer for every example ({constant:.4f}): it was not "
            "trained for this task; use --teacher-finetune always"
        )


def _finetune(bench: Workbench) -> None:
    rates = _rates(bench)
    rate = rates[0] if len(rates) == 1 else bench.run.state().get("teacher_learning_rate")
    if rate is None:
        rate = _best_rate(bench, rates)
        bench.run.update_state({"teacher_learning_rate": rate})
    epochs = _epochs(bench)
    checkpoint = CheckpointFolder(
        path=bench.run.work / "teacher", fingerprint=f"{rate:g}-{epochs:g}"
    )
    with watched(
        bench.narrator,
        bench.run.tensorboard / "teacher",
        f"Teacher: {epochs:g} epochs at rate {rate:g}",
        checkpoint=checkpoint,
    ) as watch:
        train(
            bench.teacher,
            bench.data.train,
            [LabelTerm(kind=bench.task.kind)],
            _train_settings(bench, rate, epochs),
            accelerator=bench.accelerator,
            watch=watch,
        )


def _best_rate(bench: Workbench, rates: Sequence[float]) -> float:
    """Trains one epoch on a part of the examples at each rate; the best validation score wins."""
    part = probe_examples(bench.data.train, bench.settings.seed)
    start = {name: tensor.clone() for name, tensor in bench.teacher.state_dict().items()}
    scores: dict[float, float] = {}
    for rate in rates:
        title = f"Teacher: trying rate {rate:g}"
        logs = bench.run.tensorboard / f"teacher-rate-{rate:g}"
        with watched(bench.narrator, logs, title) as watch:
            train(
                bench.teacher,
                part,
                [LabelTerm(kind=bench.task.kind)],
                _train_settings(bench, rate, 1.0),
                accelerator=bench.accelerator,
                watch=watch,
            )
        scores[rate] = _quality(bench, bench.data.validation)
        bench.teacher.load_state_dict(start)
    best = max(scores, key=lambda rate: scores[rate])
    listed = ", ".join(f"{rate:g}: {value:.4f}" for rate, value in scores.items())
    bench.narrator.say(
        f"Teacher's learning rate {best:g} ({bench.task.metrics[0]} on held-out examples after "
        f"{len(part)} examples: {listed})."
    )
    return best


def probe_examples(encoded: EncodedSet, seed: int) -> EncodedSet:
    """Draws the examples on which learning rates are tried: a tenth, but 2,000 where there are."""
    count = min(len(encoded), max(PROBE_LEAST, round(len(encoded) * PROBE_FRACTION)))
    chosen = np.random.default_rng([seed, 2]).permutation(len(encoded))[:count]
    return encoded.select(np.sort(chosen))


def _train_settings(bench: Workbench, rate: float, epochs: float) -> TrainSettings:
    return TrainSettings(
        epochs=epochs,
        learning_rate=rate,
        batch_size=bench.settings.teacher.batch_size,
        precision=bench.precision,
        seed=bench.settings.seed,
    )


def _quality(bench: Workbench, encoded: EncodedSet) -> float:
    return bench.quality(bench.teacher, encoded)[bench.task.metrics[0]]


def _save(bench: Workbench) -> None:
    """Writes the teacher and its measures; dev is read here once, for the report."""
    architecture = architecture_of(bench.teacher.config)
    dev, validation = bench.data.dev, bench.data.validation
    logits = predict(bench.teacher, validation, precision=bench.precision)
    choose_threshold(bench.teacher, logits, validation)
    gold = own_gold(bench.teacher, dev)
    metrics = {
        **quality_facts(
            bench.task.metrics, bench.teacher_dev_logits, gold, seed=bench.settings.seed
        ),
        "quality_search": bench.score(logits, validation)[bench.task.metrics[0]],
        "quality_search_count": len(validation.gold),
        "parameters": sum(p.numel() for p in bench.teacher.parameters()),
        "parameters_encoder": encoder_parameters(bench.teacher),
        "architecture": architecture.to_dict(),
        "architecture_label": architecture.label,
        "weights_sha256": hash_weights(bench.teacher),
        "name": bench.teacher_name,
    }
    card = f"# Teacher of a stillhouse run\n\nMade from `{bench.teacher_name}`.\n"
    answers = pack_answers(
        bench.task.metrics,
        bench.teacher_dev_logits,
        gold,
        dev_sha256=bench.task.dev_fingerprint(),
    )
    save_checkpoint(
        bench.run.teacher,
        bench.teacher,
        bench.tokenizer,
        metrics=metrics,
        card=card,
        files={ANSWERS_FILE: answers},
    )
    CheckpointFolder(path=bench.run.work / "teacher", fingerprint="").clear()


def teacher_metrics(run: RunDirectory) -> dict[str, object]:
    """Reads the measures of the prepared teacher."""
    return read_metrics(run.teacher)
