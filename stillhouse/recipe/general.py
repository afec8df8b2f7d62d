"""General distillation: one given student learns from its teacher on plain text, without a task.

Source: TinyBERT (Jiao et al. 2020), general distillation: attention before its softmax, hidden
states and the output of the embeddings, none of the outputs of a head. Differs: losses of linked
layers are averaged and not added, so that a map of few links trains at the same rate as one of
many; other layer maps than the uniform one, and students of any width and number of heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from stillhouse.data.corpus import prepare_corpus
from stillhouse.data.corpus_examples import corpus_examples
from stillhouse.data.task import IN_MEMORY
from stillhouse.distill.loop import TrainSettings, train
from stillhouse.distill.measure import mean_loss
from stillhouse.distill.steps import UNWATCHED
from stillhouse.distill.teacher import TeacherSignals, cached_teacher
from stillhouse.distill.terms import AttentionTerm
from stillhouse.errors import SettingsError
from stillhouse.model.anatomy import architecture_of, usable_positions
from stillhouse.model.precision import resolve_precision
from stillhouse.model.students import Initialisation, build_student, student_config
from stillhouse.model.teachers import Teacher, hash_weights, load_model, load_tokenizer
from stillhouse.recipe.first_weights import first_weights
from stillhouse.recipe.objective import distillation_terms, nothing_to_learn
from stillhouse.recipe.teacher import SCRATCH

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from stillhouse.data.corpus import Corpus
    from stillhouse.data.encoding import EncodedSet
    from stillhouse.distill.layer_maps import Genes, LayerMapName
    from stillhouse.distill.steps import TrainReport, Watch
    from stillhouse.distill.terms import Term
    from stillhouse.model.precision import Precision
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings
    from stillhouse.space.architecture import BertArchitecture


@dataclass(frozen=True, kw_only=True)
class TextBench:
    """What every student of a run on plain text is made and trained with.

    Attributes:
        precision: Arithmetic of training.
        source: The teacher with its tokeniser, frozen. It is a classifier, for the training loop
            takes models with a head; nobody reads that head.
        teacher_hash: Identifies its weights.
        corpus: The text, as it lies on the disk.
        examples: Sequences to learn from.
        held_out: Sequences that nobody learns from, at least one.
    """

    settings: RunSettings
    run: RunDirectory
    narrator: Narrator
    accelerator: Accelerator
    precision: Precision
    source: Teacher
    teacher_hash: str
    corpus: Corpus
    examples: EncodedSet
    held_out: EncodedSet

    @property
    def teacher(self) -> PreTrainedModel:
        """The teacher's network."""
        return self.source.model

    @cached_property
    def teacher_architecture(self) -> BertArchitecture:
        """Shape of the teacher."""
        return architecture_of(self.teacher.config)

    def signals(self, encoded: EncodedSet, terms: Sequence[Term], title: str) -> TeacherSignals:
        """Returns what terms read of the teacher for a set, from the run's cache."""
        self.narrator.begin(title, 1.0)
        try:
            return cached_teacher(
                self.teacher,
                encoded,
                frozenset().union(*(term.teacher_layers for term in terms)),
                attention=frozenset().union(*(term.teacher_attention for term in terms)),
                directory=self.run.work / "cache",
                teacher_hash=self.teacher_hash,
                precision=self.precision,
                limit_gb=self.settings.distill.cache_gb,
                on_progress=self.narrator.advance,
            )
        finally:
            self.narrator.end()


def open_text_bench(
    settings: RunSettings,
    run: RunDirectory,
    narrator: Narrator,
    accelerator: Accelerator,
    *,
    source: Teacher | None = None,
) -> TextBench:
    """Loads the teacher and prepares the corpus, once a run; trains nothing.

    Args:
        settings: The run's settings.
        run: The open run directory.
        narrator: Told the progress.
        accelerator: Where students are trained.
        source: The teacher, where it is loaded already.

    Raises:
        TeacherError: If the teacher cannot be loaded, or its family has no students.
        SettingsError: If something is set that cannot be, on plain text.
        DataError: If the corpus is too small, unusable or has changed.
        RunError: If the run began with other weights of its teacher.
    """
    refuse_tasks(settings)
    precision = resolve_precision(settings.distill.precision, accelerator.device)
    source = source or load_text_teacher(settings.teacher.model)
    positions = usable_positions(source.model.config)
    if settings.corpus.length > positions:
        raise SettingsError(
            f"corpus.length {settings.corpus.length} is above the teacher's {positions} positions; "
            "set it lower"
        )
    narrator.begin("Corpus", 1.0)
    try:
        corpus = prepare_corpus(
            settings.corpus, source.tokenizer, run.corpus, on_progress=narrator.advance
        )
    finally:
        narrator.end()
    run.refuse_other_data(corpus.fingerprint)
    weights = hash_weights(source.model)
    run.refuse_other_teacher(weights)
    run.write_provenance(settings, {"teacher_sha256": weights, "data_sha256": corpus.fingerprint})
    source.model.to(accelerator.device).eval().requires_grad_(requires_grad=False)
    pad_id = source.tokenizer.pad_token_id or 0
    return TextBench(
        settings=settings,
        run=run,
        narrator=narrator,
        accelerator=accelerator,
        precision=precision,
        source=source,
        teacher_hash=weights,
        corpus=corpus,
        examples=corpus_examples(corpus.train, pad_id=pad_id),
        held_out=corpus_examples(corpus.held_out, pad_id=pad_id),
    )


def refuse_tasks(settings: RunSettings) -> None:
    """Refuses settings that only a task can have.

    Raises:
        SettingsError: If outputs or labels are to be learnt, or no text is held out.
    """
    distill = settings.distill
    for name, value in (
        ("logit_weight", distill.logit_weight),
        ("label_weight", distill.label_weight),
    ):
        if value:
            raise SettingsError(
                f"distill.{name} must be 0 on plain text, which has neither labels nor a head that "
                f"is read, but is {value:g}: weigh distill.hidden_weight and "
                "distill.attention_weight, or distil on a task (--task)"
            )
    if settings.corpus.held_out < 1:
        raise SettingsError(
            "corpus.held_out must be at least 1: what a student has learnt is told on that text"
        )


def load_text_teacher(name: str) -> Teacher:
    """Loads a teacher as a classifier; what its checkpoint lacks is drawn always alike.

    Raises:
        TeacherError: If it cannot be loaded, or its family has no students.
        SettingsError: If it is no checkpoint.
    """
    if name in (SCRATCH, IN_MEMORY):
        raise SettingsError(
            f"plain text needs a trained teacher that can be loaded, got {name!r}: name a folder "
            "or a hub id with --teacher (teacher.model)"
        )
    model, has_head = load_model(name)
    architecture_of(model.config)
    return Teacher(
        name=name, model=model, tokenizer=load_tokenizer(name), has_trained_head=has_head
    )


def fresh_student(
    bench: TextBench, architecture: BertArchitecture, *, seed: int
) -> tuple[PreTrainedModel, Initialisation]:
    """Builds a student with its first weights, where it will be trained.

    Args:
        bench: The run's bench.
        architecture: Its shape.
        seed: Of weights that the teacher does not give.

    Returns:
        The student, a classifier as the teacher is, and where its weights come from.
    """
    config = student_config(
        architecture, bench.teacher.config, dropout=bench.settings.distill.dropout
    )
    student = build_student(config, seed=seed)
    initialisation = first_weights(
        student,
        bench.source,
        settings=bench.settings,
        sample=bench.examples,
        folder=bench.run.work,
        seed=seed,
        narrator=bench.narrator,
    )
    return student.to(bench.accelerator.device), initialisation


def text_terms(
    bench: TextBench, student: PreTrainedModel, layer_map: LayerMapName | Genes, *, seed: int
) -> list[Term]:
    """Builds what a student learns on text: the settings' objective with the given layer map.

    Args:
        bench: The run's bench.
        student: Gives depth and width.
        layer_map: A rule's name or genes.
        seed: First weights of the projection between unequal widths.

    Raises:
        SettingsError: If the genes do not fit, or leave nothing to learn.
    """
    settings = replace(bench.settings.distill, layer_map=layer_map)
    terms = distillation_terms(
        settings, student.config, bench.teacher.config, kind="classes", seed=seed
    )
    if not terms:
        raise nothing_to_learn(layer_map if isinstance(layer_map, str) else list(layer_map))
    for term in terms:
        if term.projection is not None:
            term.projection.to(student.device)
    return terms


def distil_on_text(
    bench: TextBench,
    student: PreTrainedModel,
    examples: EncodedSet,
    *,
    layer_map: LayerMapName | Genes,
    epochs: float,
    seed: int,
    watch: Watch = UNWATCHED,
) -> TrainReport:
    """Distils a student in place; the teacher is asked once for the same examples.

    Two students with the same examples, epochs and seed see the same text in the same order.

    Args:
        bench: The run's bench.
        student: With its first weights.
        examples: Sequences to learn from, `bench.examples` or some of them.
        layer_map: A rule's name or genes.
        epochs: Passes over the examples.
        seed: Order of the examples, and first weights of a projection.
        watch: Progress and checkpoints.

    Raises:
        SettingsError: If the genes do not fit, or leave nothing to learn.
        TrainingError: If the loss is not finite.
    """
    terms = text_terms(bench, student, layer_map, seed=seed)
    return learn_terms(bench, student, examples, terms, epochs=epochs, seed=seed, watch=watch)


def learn_terms(
    bench: TextBench,
    student: PreTrainedModel,
    examples: EncodedSet,
    terms: Sequence[Term],
    *,
    epochs: float,
    seed: int,
    watch: Watch = UNWATCHED,
) -> TrainReport:
    """Does the same with the terms themselves, whose projections are trained in place, too."""
    distill = bench.settings.distill
    return train(
        student,
        examples,
        terms,
        TrainSettings(
            epochs=epochs,
            learning_rate=distill.learning_rate,
            batch_size=distill.batch_size,
            precision=bench.precision,
            seed=seed,
        ),
        accelerator=bench.accelerator,
        teacher=bench.signals(examples, terms, "Teacher over the text"),
        watch=watch,
    )


def held_out_losses(
    bench: TextBench, student: PreTrainedModel, terms: Sequence[Term]
) -> Mapping[str, float]:
    """Measures each term's loss on held-out text, unweighted.

    Args:
        bench: The run's bench.
        student: The student.
        terms: Those that it learnt by: between unequal widths the projection that was trained
            beside it tells what it knows.

    Returns:
        `hidden` and `attention`, as far as they are learnt.
    """
    teacher = bench.signals(bench.held_out, terms, "Teacher over held-out text")
    return {
        "attention" if isinstance(term, AttentionTerm) else "hidden": mean_loss(
            student, bench.held_out, term, teacher, precision=bench.precision
        )
        for term in terms
    }
