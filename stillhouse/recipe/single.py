"""Distilling one given student, without a search: the baseline everybody starts with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.errors import SettingsError
from stillhouse.model.students import Initialisation, initialise_student, set_dropout
from stillhouse.model.teachers import load_model, load_tokenizer, name_labels
from stillhouse.recipe.final import Winner, finish_winner, rank_students
from stillhouse.space.architecture import parse_architecture

if TYPE_CHECKING:
    from stillhouse.recipe.workbench import Workbench


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
    winner = _from_shape(bench, student) if "=" in student else _from_checkpoint(bench, student)
    with bench.run.timed("final"):
        folder = finish_winner(bench, limits, winner)
        return rank_students(bench, [folder])[0]


def _from_shape(bench: Workbench, text: str) -> Winner:
    architecture = parse_architecture(text, like=bench.teacher_architecture)
    model = bench.build(architecture).to(bench.accelerator.device)
    initialisation = initialise_student(model, bench.teacher, bench.settings.distill.initialisation)
    return Winner(name="student", model=model, initialisation=initialisation.to_dict(), trial=None)


def _from_checkpoint(bench: Workbench, name: str) -> Winner:
    """Loads a pretrained student; it must read the teacher's token ids."""
    tokenizer = load_tokenizer(name)
    if tokenizer.get_vocab() != bench.tokenizer.get_vocab():
        raise SettingsError(
            f"student {name!r} has another vocabulary ({len(tokenizer):,} entries) than the "
            f"teacher ({len(bench.tokenizer):,}): take a student with the teacher's tokeniser, or "
            "give a shape such as layers=3,hidden_size=384"
        )
    model, _ = load_model(name, labels=bench.teacher.config.num_labels)
    positions = model.config.max_position_embeddings
    if positions < bench.data.transfer.longest:
        raise SettingsError(
            f"student {name!r} has {positions} positions, the longest text has "
            f"{bench.data.transfer.longest} tokens: set task.max_length to {positions} at most"
        )
    set_dropout(model, bench.settings.distill.dropout)
    name_labels(model, bench.task.label_names)
    model.to(bench.accelerator.device)
    return Winner(
        name="student",
        model=model,
        initialisation={**Initialisation(kind="checkpoint").to_dict(), "source": name},
        trial=None,
    )
