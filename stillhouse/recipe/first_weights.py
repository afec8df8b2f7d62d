"""First weights of students, by the kind that the settings name."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from stillhouse.data.masking import Masker, MaskingRule
from stillhouse.data.task import IN_MEMORY
from stillhouse.distill.importance import (
    BATCH_SIZE,
    SampleLoss,
    StatesLoss,
    TaskLoss,
    WordsLoss,
    measure_importance,
)
from stillhouse.errors import SettingsError, TeacherError
from stillhouse.files import folder_written_aside
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.extraction import Importance, extract, random_importance
from stillhouse.model.heads import head_of
from stillhouse.model.mlm_teachers import MlmHead, load_mlm_teacher
from stillhouse.model.students import Initialisation, initialise_student
from stillhouse.model.teachers import PROBLEM_TYPES, hash_weights
from stillhouse.recipe.teacher import SCRATCH

if TYPE_CHECKING:
    from pathlib import Path

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.data.metric_names import TaskKind
    from stillhouse.model.kept_layers import KeptLayersRule
    from stillhouse.model.teachers import Teacher
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import DistillSettings, RunSettings

logger = logging.getLogger(__name__)

IMPORTANCE_FOLDER = "importance"
_FILE = "neurons.safetensors"
_TENSORS = ("hidden_D", "heads_LHK", "ffn_LF")
_SAMPLE_STREAM = 3
"""Keeps this draw apart from others of the run's seed."""
MeasuredLoss: TypeAlias = Literal["words", "states", "task"]


def first_weights(
    student: PreTrainedModel,
    teacher: Teacher,
    *,
    settings: RunSettings,
    sample: EncodedSet,
    folder: Path,
    seed: int,
    narrator: Narrator | None = None,
) -> Initialisation:
    """Gives a freshly built student its first weights, in place.

    Args:
        student: Fresh model, wherever it is.
        teacher: Where slices and neurons come from.
        settings: Of the run: `distill.initialisation`, and what goes with it.
        sample: Examples of which some tell the neurons' importance, the same ones for each student
            of a run.
        folder: Keeps that importance for the next student.
        seed: Decides neurons that are chosen by chance.
        narrator: Told the progress of measuring, where it is measured.

    Returns:
        What was done, for the trial record.

    Raises:
        SettingsError: If the student is deeper or wider than the teacher, or the loss needs what
            is not there.
        DataError: If the examples tell nothing.
        TeacherError: If the teacher has not got what the loss needs.
    """
    kind = settings.distill.initialisation
    if kind != "extract":
        return initialise_student(
            student, teacher.model, kind, rule=kept_layers_rule(settings.distill)
        )
    loss = None
    if settings.extract.indices == "random":
        importance = random_importance(architecture_of(teacher.model.config), seed=seed)
    else:
        importance, loss = kept_importance(teacher, settings, sample, folder, narrator)
    cut = extract(student, teacher.model, importance)
    return Initialisation(kind=kind, layers=cut.layers, indices=settings.extract.indices, loss=loss)


def kept_layers_rule(distill: DistillSettings) -> KeptLayersRule:
    """Resolves which layers of the teacher slices keep.

    A layer that begins as the one that it learns from has the less to learn: of the spread ones,
    only the last does so under the uniform map, which candidates of a search for a map have, too.
    """
    if distill.kept_layers != "auto":
        return distill.kept_layers
    learns_layers = distill.hidden_weight > 0 or distill.attention_weight > 0
    return "uniform" if learns_layers and distill.layer_map in ("uniform", "search") else "spread"


def kept_importance(
    teacher: Teacher,
    settings: RunSettings,
    sample: EncodedSet,
    folder: Path,
    narrator: Narrator | None = None,
) -> tuple[Importance, str]:
    """Reads what an earlier student left, or measures it; see `first_weights`.

    Returns:
        The importance and the loss that it is of.
    """
    asked = settings.extract
    draw = np.random.default_rng([settings.seed, _SAMPLE_STREAM]).permutation(len(sample))
    part = sample.select(np.sort(draw[: asked.examples]))
    fingerprint = _fingerprint(teacher, part, settings)
    path = folder / IMPORTANCE_FOLDER
    kept = _read(path / _FILE, fingerprint)
    if kept is not None:
        return kept
    loss, told = resolve_loss(teacher, settings, part)
    if narrator is not None:
        narrator.begin(f"Importance of the teacher's neurons on {len(part)} examples", 1.0)
    try:
        importance = measure_importance(
            teacher.model,
            part,
            loss,
            on_progress=None if narrator is None else narrator.advance,
        )
    finally:
        if narrator is not None:
            narrator.end()
    with folder_written_aside(path) as aside:
        tensors = {name: getattr(importance, name).contiguous() for name in _TENSORS}
        save_file(tensors, aside / _FILE, metadata={"fingerprint": fingerprint, "loss": told})
    return importance, told


def resolve_loss(
    teacher: Teacher, settings: RunSettings, sample: EncodedSet
) -> tuple[SampleLoss, MeasuredLoss]:
    """Makes the loss that importance is measured by, and tells its name.

    Importance of the task's loss is not ETD's, and it is not the default: it says which neurons one
    task needs, while a student has to keep what all of its distillation needs. Masked words come
    first where the checkpoint knows them, for that is the loss of pre-training. Their head reads
    the teacher as it is, fine-tuned or not: what is cut is judged.

    Raises:
        SettingsError: If the task's loss is asked for and there are no labels.
        TeacherError: If masked words are asked for and the teacher has no head for them.
    """
    asked, seed = settings.extract.loss, settings.seed
    if asked == "task":
        if sample.labels is None and sample.tags is None:
            raise SettingsError(
                "extract.loss task needs labelled examples, and plain text has none: take words "
                "or states"
            )
        return TaskLoss(kind=_task_kind(teacher.model)), "task"
    mlm = settings.mlm
    rule = MaskingRule(probability=mlm.probability, whole_word=mlm.whole_word)
    masker = Masker(teacher.tokenizer, rule)
    head = None if asked == "states" else _head_for_words(teacher)
    if head is not None:
        return WordsLoss(head=head, masker=masker, seed=seed), "words"
    if asked == "words":
        raise TeacherError(
            f"extract.loss words needs a head for masked words, and the checkpoint of "
            f"{teacher.name!r} has none: take states, or auto"
        )
    return StatesLoss(masker=masker, seed=seed), "states"


def _head_for_words(teacher: Teacher) -> MlmHead | None:
    """Loads the head of the checkpoint that a teacher was made from, to read the teacher itself."""
    if teacher.name in (SCRATCH, IN_MEMORY):
        return None
    with torch.random.fork_rng(devices=[]):
        loaded = load_mlm_teacher(teacher.name).head
    if loaded is None:
        return None
    encoder = teacher.model.base_model
    assert isinstance(encoder, PreTrainedModel)
    head = MlmHead(encoder)
    head.load_state_dict(loaded.state_dict())
    return head.requires_grad_(requires_grad=False)


def _task_kind(model: PreTrainedModel) -> TaskKind:
    """Tells a task by the head and the problem that its prepared teacher names."""
    head = head_of(model)
    if head in ("tags", "spans"):
        return head
    kinds = {problem: kind for kind, problem in PROBLEM_TYPES.items() if problem is not None}
    problem = model.config.problem_type
    return "classes" if problem is None else kinds[problem]


def _fingerprint(teacher: Teacher, sample: EncodedSet, settings: RunSettings) -> str:
    parts = (
        hash_weights(teacher.model),
        sample.fingerprint(),
        settings.extract.loss,
        str(settings.mlm.probability),
        str(settings.mlm.whole_word),
        str(settings.seed),
        str(BATCH_SIZE),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read(file: Path, fingerprint: str) -> tuple[Importance, str] | None:
    """Returns what is kept, or `None` where that is nothing, damaged, or of something else."""
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            facts = opened.metadata() or {}
            if facts.get("fingerprint") != fingerprint:
                return None
            tensors = {name: opened.get_tensor(name) for name in _TENSORS}
    except SafetensorError as error:
        logger.warning("%s is damaged (%s): the importance is measured again", file, error)
        return None
    return Importance(**tensors), facts["loss"]
