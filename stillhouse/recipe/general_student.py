"""The job of general distillation: one student, distilled on a whole corpus and exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.distill.attention import attention_rule
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.errors import SettingsError
from stillhouse.export.card import general_card
from stillhouse.export.checkpoint import METRICS_FILE, save_checkpoint
from stillhouse.model.anatomy import architecture_of, usable_positions
from stillhouse.model.encoders import Encoder, build_encoder
from stillhouse.model.extraction import check_extract
from stillhouse.model.own_families import needs_code
from stillhouse.recipe.autodistil import open_scales
from stillhouse.recipe.final import latency_metrics
from stillhouse.recipe.general import (
    fresh_student,
    held_out_losses,
    learn_terms,
    load_text_teacher,
    open_text_bench,
    refuse_tasks,
    text_terms,
)
from stillhouse.recipe.kept_seconds import seconds_kept
from stillhouse.recipe.layer_map_search import searched_map
from stillhouse.recipe.limits import cost_metrics, teacher_costs
from stillhouse.recipe.logbook import watched
from stillhouse.recipe.objective import check_layer_map, told_layer_map
from stillhouse.recipe.served import say_how_far_served
from stillhouse.recipe.single import is_shape
from stillhouse.space.architecture import parse_architecture
from stillhouse.space.counts import count_encoder_parameters

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from stillhouse.distill.layer_maps import Genes, LayerMapName
    from stillhouse.distill.steps import TrainReport
    from stillhouse.recipe.general import TextBench
    from stillhouse.recipe.selection import Scales
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings
    from stillhouse.space.architecture import BertArchitecture

_SERVED = "what the student has learnt of held-out text is told unquantised"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learnt:
    """A trained student and what is known of its training.

    Attributes:
        model: A classifier whose head nobody trained.
        layer_map: What it learnt by.
        initialisation: Where its first weights came from.
        before: Losses on held-out text before the training.
        after: The same after it.
        report: What the training did, in this process.
    """

    model: PreTrainedModel
    layer_map: LayerMapName | Genes
    initialisation: Mapping[str, object]
    before: Mapping[str, float]
    after: Mapping[str, float]
    report: TrainReport


def distil_generally(
    settings: RunSettings, run: RunDirectory, narrator: Narrator, accelerator: Accelerator
) -> Path:
    """Distils the student of the settings on the corpus, exports it, and resumes what was begun.

    Args:
        settings: The run's settings; `student` is a shape.
        run: The open run directory.
        narrator: Told what is decided on the way.
        accelerator: Where the student is trained.

    Returns:
        The student's folder: a bare encoder with its card and measures.

    Raises:
        SettingsError: If the student is no shape, or a setting does not go with plain text.
        SpaceError: If the shape breaks a rule.
        TeacherError: If the teacher cannot be loaded.
        DataError: If the corpus is too small, unusable or has changed.
        DeviceError: If the device cannot tell what the student costs.
    """
    folder = run.student(1)
    if (folder / METRICS_FILE).exists():
        return folder
    refuse_tasks(settings)
    source = load_text_teacher(settings.teacher.model)
    architecture = _shape_of(settings, architecture_of(source.model.config))
    check_layer_map(settings.distill, [architecture.layers], source.model.config)
    if settings.distill.initialisation == "extract":
        check_extract(architecture, architecture_of(source.model.config))
    teacher = Encoder(
        name=source.name, model=bare_encoder(source.model), tokenizer=source.tokenizer
    )
    scales = open_scales(settings, teacher, settings.limit)
    _check_workload(settings, scales, usable_positions(source.model.config))
    say_how_far_served(settings.device, narrator, _SERVED)
    _say_if_over(settings, narrator, scales, architecture)
    with run.timed("data"):
        bench = open_text_bench(settings, run, narrator, accelerator, source=source)
    _note_start(bench, scales, architecture)
    with seconds_kept(run.work / "final.json") as spent_s:
        layer_map = _layer_map(bench, architecture)
        with run.timed("final"):
            learnt = _learn(bench, architecture, layer_map)
            student = bare_encoder(learnt.model)
            costs = _cost_metrics(
                settings, scales, architecture, student=student, teacher=teacher.model
            )
            metrics = {
                **_learnt_metrics(bench, learnt),
                **costs,
                "cost_s": round(spent_s(), 3),
            }
            _export(bench, student, metrics, folder)
    return folder


def bare_encoder(model: PreTrainedModel) -> PreTrainedModel:
    """Copies a classifier without its head; a pooler that its family has only here is drawn."""
    bare = build_encoder(model.config, seed=0)
    bare.load_state_dict(model.base_model.state_dict(), strict=False)
    return bare


def _shape_of(settings: RunSettings, teacher: BertArchitecture) -> BertArchitecture:
    student = settings.student
    assert student is not None  # the door asks for it
    if not is_shape(student):
        raise SettingsError(
            "a student on plain text is a shape such as layers=3,hidden_size=384, got "
            f"{student!r}: a checkpoint is distilled on a task (--task)"
        )
    return parse_architecture(student, like=teacher)


def _check_workload(settings: RunSettings, scales: Scales, positions: int) -> None:
    """Refuses texts that are longer than teacher and student read."""
    if settings.device.table is None and scales.workload.length > positions:
        raise SettingsError(
            f"the student would be timed at {scales.workload.length} tokens, but the teacher has "
            f"{positions} positions; set device.length to that at most"
        )


def _say_if_over(
    settings: RunSettings, narrator: Narrator, scales: Scales, architecture: BertArchitecture
) -> None:
    """Tells of each limit that the student is over, before hours of training it all the same."""
    for name, amount in scales.over(architecture).items():
        if amount > 0:
            narrator.say(
                f"{architecture.label} is over {name}={settings.limit.given()[name]:g} by "
                f"{amount:.0%}; it is distilled all the same."
            )


def _note_start(bench: TextBench, scales: Scales, architecture: BertArchitecture) -> None:
    """Writes what the run stands on, and says what is about to be done."""
    settings, teacher = bench.settings, bench.teacher_architecture
    bench.run.update_state(
        {
            "task": f"corpus {settings.corpus.name}",
            "teacher": bench.source.name,
            "limits": settings.limit.given(),
            "workload": scales.workload.label,
            "device": scales.device.name,
        }
    )
    bench.narrator.say(
        f"A student of {architecture.label} learns from {teacher.label} on "
        f"{len(bench.examples):,} sequences of {bench.corpus.train.used_length} tokens; "
        f"{len(bench.held_out):,} are held out."
    )
    if settings.distill.attention_weight and architecture.heads != teacher.heads:
        bench.narrator.say(
            f"It has {architecture.heads} heads and the teacher {teacher.heads}, so attention is "
            f"compared as a mean over heads; heads={teacher.heads} in the shape lets each learn "
            "from its own."
        )


def _layer_map(bench: TextBench, architecture: BertArchitecture) -> LayerMapName | Genes:
    layer_map = bench.settings.distill.layer_map
    if layer_map != "search":
        return layer_map
    with bench.run.timed("layer map"):
        return searched_map(bench, architecture)


def _learn(
    bench: TextBench, architecture: BertArchitecture, layer_map: LayerMapName | Genes
) -> _Learnt:
    """Trains the student to the end, from where an earlier start was stopped."""
    settings, run = bench.settings, bench.run
    student, initialisation = fresh_student(bench, architecture, seed=settings.seed)
    terms = text_terms(bench, student, layer_map, seed=settings.seed)
    before = held_out_losses(bench, student, terms)
    tokens_a_step = settings.distill.batch_size * bench.corpus.train.used_length
    with watched(
        bench.narrator,
        run.tensorboard / "general",
        f"Distilling {architecture.label}",
        checkpoint=CheckpointFolder(
            path=run.work / "general", fingerprint=f"{bench.teacher_hash} {layer_map}"
        ),
        tokens_a_step=tokens_a_step,
    ) as watch:
        report = learn_terms(
            bench,
            student,
            bench.examples,
            terms,
            epochs=settings.final.epochs,
            seed=settings.seed,
            watch=watch,
        )
    return _Learnt(
        model=student,
        layer_map=layer_map,
        initialisation=initialisation.to_dict(),
        before=before,
        after=held_out_losses(bench, student, terms),
        report=report,
    )


def _learnt_metrics(bench: TextBench, learnt: _Learnt) -> dict[str, Any]:
    """Tells what the student has learnt, and of what, as it stands in `metrics.json`."""
    settings, config = bench.settings, learnt.model.config
    told: dict[str, Any] = {
        "held_out_losses": dict(learnt.after),
        "held_out_losses_before": dict(learnt.before),
        "held_out_sequences": len(bench.held_out),
        **told_layer_map(
            replace(settings.distill, layer_map=learnt.layer_map), config, bench.teacher.config
        ),
        "initialisation": dict(learnt.initialisation),
        "steps": learnt.report.steps,
        "epochs": settings.final.epochs,
        "tokens": round(settings.final.epochs * int(bench.examples.offsets[-1])),
    }
    if "attention" in learnt.after:
        heads = bench.teacher.config.num_attention_heads
        told["attention_rule"] = attention_rule(config.num_attention_heads, heads)
    return told


def _cost_metrics(
    settings: RunSettings,
    scales: Scales,
    architecture: BertArchitecture,
    *,
    student: PreTrainedModel,
    teacher: PreTrainedModel,
) -> dict[str, Any]:
    """Tells what the student costs, as it stands in `metrics.json`.

    Parameters are those of the bare encoders: some families have no pooler there, which the counts
    in closed form include.
    """
    cost = scales.cost(architecture)
    weighed = replace(
        scales.finished(architecture), parameters=sum(p.numel() for p in student.parameters())
    )
    assert weighed.comparison is not None
    return {
        "architecture": architecture.to_dict(),
        "architecture_label": architecture.label,
        "flops": cost.flops,
        "parameters_encoder": count_encoder_parameters(architecture),
        **latency_metrics(weighed.comparison),
        "device": scales.device.name,
        "workload": asdict(scales.workload),
        "workload_label": scales.workload.label,
        **teacher_costs(sum(p.numel() for p in teacher.parameters()), weighed),
        "teacher_architecture": architecture_of(teacher.config).to_dict(),
        **cost_metrics(settings.limit, weighed),
    }


def _export(
    bench: TextBench, student: PreTrainedModel, metrics: Mapping[str, Any], folder: Path
) -> None:
    card = general_card(
        metrics,
        teacher=bench.source.name,
        corpus=bench.settings.corpus.name,
        has_code=needs_code(student.config),
    )
    save_checkpoint(folder, student, bench.source.tokenizer, metrics=metrics, card=card)
