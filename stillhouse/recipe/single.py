"""Distilling one given student, without a search: the baseline everybody starts with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import MobileBertConfig

from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.predicted import PredictedDevice
from stillhouse.errors import SettingsError
from stillhouse.model.anatomy import usable_positions
from stillhouse.model.count import true_flops
from stillhouse.model.described import described
from stillhouse.model.extraction import check_extract
from stillhouse.model.modeling_chain_bert import ChainBertConfig
from stillhouse.model.students import Initialisation, set_dropout
from stillhouse.model.teachers import load_model, load_tokenizer, name_labels
from stillhouse.recipe.final import Winner, finish_winner, rank_students
from stillhouse.recipe.layer_map_search import with_searched_map
from stillhouse.recipe.limits import violations, weigh
from stillhouse.recipe.objective import check_layer_map
from stillhouse.recipe.quantise_bench import check_quantisable
from stillhouse.recipe.quantising import quantise_students
from stillhouse.recipe.served import export_for_device
from stillhouse.run.device_settings import LimitSettings
from stillhouse.space.architecture import parse_architecture

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.settings import DistillSettings


def distil_student(bench: Workbench, student: str) -> Path:
    """Distils one student and exports it as rank 1 of the run.

    Args:
        bench: The run's workbench.
        student: A shape such as `layers=3,hidden_size=384`, a folder, or a hub id.

    Returns:
        The student's folder.
    """
    limits = bench.settings.limit
    bench.run.update_state(
        {
            "task": bench.task.name,
            "teacher": bench.teacher_name,
            "limits": limits.given(),
            "workload": bench.workload.label,
            "device": bench.device.name,
        }
    )
    winner, bench = student_of(bench, student, called="student")
    if limits.given():
        _say_if_over(bench, limits, winner)
    if bench.settings.distill.layer_map == "search":
        with bench.run.timed("layer map"):
            with_searched_map(bench, winner.model.config)
    with bench.run.timed("final"):
        folder = finish_winner(bench, limits, winner)
        students = rank_students(bench.run, [folder])
        export_for_device(bench, students)
    quantise_students(bench, students)
    return students[0]


def _say_if_over(bench: Workbench, limits: LimitSettings, winner: Winner) -> None:
    """Tells of each limit that a student is over, before hours of training it all the same.

    Raises:
        DeviceError: If the device cannot tell what is limited.
    """
    config = winner.model.config
    architecture = described(config)
    flops = true_flops(architecture, bench.ends_of(config), length=bench.workload.length)
    weighed = weigh(
        bench.device,
        architecture,
        bench.workload,
        LimitSettings(memory_mb=limits.memory_mb),  # asked for whatever else it is over
        parameters=sum(p.numel() for p in winner.model.parameters()),
        flops_fraction=flops / bench.flops(bench.teacher_architecture),
    )
    over = {name: amount for name, amount in violations(limits, weighed).items() if amount > 0}
    for name, amount in over.items():
        bench.narrator.say(
            f"{architecture.label} is over {name}={limits.given()[name]:g} by {amount:.0%}; it is "
            "distilled all the same."
        )


def is_shape(student: str) -> bool:
    """Tells a shape such as `layers=3,hidden_size=384` from a checkpoint's name."""
    return "=" in student


def student_of(bench: Workbench, student: str, *, called: str) -> tuple[Winner, Workbench]:
    """Builds or loads a given student, ready to be distilled.

    Args:
        bench: The run's workbench.
        student: A shape, a folder, or a hub id.
        called: Names its folder of checkpoints.

    Returns:
        The student, and the workbench that times it: a checkpoint is timed as it is, even if its
        family is not the teacher's.

    Raises:
        SettingsError: If it has another vocabulary than the teacher, too few positions, or layers
            that cannot learn as the settings say.
    """
    if is_shape(student):
        return _from_shape(bench, student, called), bench
    winner = _from_checkpoint(bench, student, called)
    if isinstance(bench.device, MeasuredDevice | PredictedDevice):
        bench = replace(bench, device=bench.device.timing(winner.model))
    return winner, bench


def check_student(bench: Workbench, student: str) -> None:
    """Refuses a student that could not be distilled or timed, before anything is trained.

    Raises:
        StillhouseError: As building, loading or looking it up in a latency table would.
    """
    winner, bench = student_of(bench, student, called="student")
    config = winner.model.config
    check_layer_map(bench.settings.distill, [config.num_hidden_layers], bench.teacher.config)
    if not isinstance(bench.device, MeasuredDevice | PredictedDevice):
        bench.compare(described(winner.model.config))


def check_given_student(bench: Workbench, student: str) -> None:
    """Refuses what the student cannot begin as or learn by, before the teacher is fine-tuned.

    Args:
        bench: The run's workbench, which need not be prepared.
        student: A shape, a folder, or a hub id.

    Raises:
        SettingsError: If genes do not fit it, an extract would be larger than the teacher, or it is
            a checkpoint whose layers cannot learn, or that cannot be quantised as is asked for.
    """
    distill = bench.settings.distill
    if is_shape(student):
        architecture = parse_architecture(student, like=bench.teacher_architecture)
        if distill.initialisation == "extract":
            check_extract(architecture, bench.teacher_architecture)
        layers = architecture.layers
    else:
        has_map = _learns_layers(distill) or not isinstance(distill.layer_map, str)
        if not has_map and bench.settings.quantise.weight_bits is None:
            return  # nothing of it matters yet
        config = load_model(student)[0].config
        check_quantisable(bench.settings.quantise, config)
        _check_layers_learn(student, config, distill)
        layers = config.num_hidden_layers
    check_layer_map(distill, [layers], bench.teacher.config)


def _learns_layers(distill: DistillSettings) -> bool:
    return distill.hidden_weight + distill.attention_weight > 0


def _check_layers_learn(name: str, config: PreTrainedConfig, distill: DistillSettings) -> None:
    """Refuses losses of layers, and the search for their map, where a checkpoint has none such.

    Raises:
        SettingsError: If it is a chain or a MobileBERT, or the map is to be searched.
    """
    if not _learns_layers(distill):
        return
    if isinstance(config, ChainBertConfig | MobileBertConfig):
        what = "a chain" if isinstance(config, ChainBertConfig) else "a MobileBERT"
        raise SettingsError(
            f"student {name!r} is {what}, whose operations have no counterpart among a teacher's "
            "layers: it learns from outputs and labels; leave distill.hidden_weight and "
            "distill.attention_weight at 0"
        )
    if distill.layer_map == "search":
        raise SettingsError(
            "distill.layer_map search judges maps by fresh students of a shape, but student "
            f"{name!r} is a checkpoint with weights of its own: give a shape such as "
            "layers=3,hidden_size=384, or the map (genes such as distill.layer_map=[2,4,6], "
            "uniform, last or uniform_last)"
        )


def _from_shape(bench: Workbench, text: str, called: str) -> Winner:
    architecture = parse_architecture(text, like=bench.teacher_architecture)
    model = bench.build(architecture).to(bench.accelerator.device)
    initialisation = bench.initialise(model)
    return Winner(name=called, model=model, initialisation=initialisation.to_dict(), trial=None)


def _from_checkpoint(bench: Workbench, name: str, called: str) -> Winner:
    """Loads a pretrained student; it must read the teacher's token ids."""
    tokenizer = load_tokenizer(name)
    if tokenizer.get_vocab() != bench.tokenizer.get_vocab():
        raise SettingsError(
            f"student {name!r} has another vocabulary ({len(tokenizer):,} entries) than the "
            f"teacher ({len(bench.tokenizer):,}): take a student with the teacher's tokeniser, or "
            "give a shape such as layers=3,hidden_size=384"
        )
    model, _ = load_model(name, labels=bench.teacher.config.num_labels, kind=bench.task.kind)
    positions = usable_positions(model.config)
    if positions < bench.data.transfer.longest:
        raise SettingsError(
            f"student {name!r} has {positions} positions, the longest text has "
            f"{bench.data.transfer.longest} tokens: set task.max_length to {positions} at most"
        )
    _check_layers_learn(name, model.config, bench.settings.distill)
    set_dropout(model, bench.settings.distill.dropout)
    name_labels(model, bench.task.label_names, kind=bench.task.kind)
    model.to(bench.accelerator.device)
    return Winner(
        name=called,
        model=model,
        initialisation={**Initialisation(kind="checkpoint").to_dict(), "source": name},
        trial=None,
    )
