"""Tables of students, as searches and distillations print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from stillhouse.cli.screen import print_line, print_table
from stillhouse.model.heads import auto_class_of
from stillhouse.report.figures import read_figures
from stillhouse.report.layer_map import read_map_searches
from stillhouse.report.limits_table import lines_of
from stillhouse.report.wording import prediction, sizes

if TYPE_CHECKING:
    from stillhouse.api import Student


def is_within_limits(student: Student) -> bool:
    """Tells whether no limit is known to be broken."""
    return student.metrics.get("within_limit") is not False


def show_students(students: Sequence[Student], competitors: Sequence[Student] = ()) -> None:
    """Prints students of a task, those that they were compared with, and the teacher."""
    first = students[0].metrics
    table = Table(title=f"Students ({latency_told(students)})")
    for column in ("rank", "architecture", first["metric"], "of teacher", "ms", "faster", "limit"):
        table.add_column(column)
    for rank, student in enumerate(students, start=1):
        table.add_row(str(rank), *_row(student.metrics))
    table.add_section()
    for student in competitors:
        table.add_row(Text(student.metrics.get("name", "compared")), *_row(student.metrics))
    print_table(table)
    named = {str(rank): student for rank, student in enumerate(students, start=1)}
    named |= {f"c{place}": student for place, student in enumerate(competitors, start=1)}
    _show_costs(named)
    print_line(
        f"teacher: {first['metric']} {first['teacher_quality']:.4f}, "
        f"{first['teacher_latency_ms']:.2f} ms",
    )


def show_family(students: Sequence[Student]) -> None:
    """Prints students that learnt without a task."""
    table = Table(title=f"Students ({latency_told(students)})")
    for column in ("folder", "space", "architecture", "relation loss", "M parameters"):
        table.add_column(column)
    for column in ("FLOPs of teacher's", "ms", "faster"):
        table.add_column(column, justify="right")
    for student in students:
        metrics = student.metrics
        table.add_row(
            student.path.name,
            metrics["space"],
            metrics["architecture_label"],
            f"{metrics['relation_loss']:.4f}",
            f"{metrics['parameters'] / 1e6:.2f}",
            f"{metrics['flops_fraction']:.3f}",
            f"{metrics['latency_ms']:.2f}",
            f"{metrics['speedup']:.2f}x",
        )
    print_table(table)
    _show_costs({student.path.name: student for student in students})


def show_general(student: Student) -> None:
    """Prints a student that learnt on plain text."""
    metrics = student.metrics
    before, after = metrics["held_out_losses_before"], metrics["held_out_losses"]
    table = Table(title=f"Student ({latency_told([student])})")
    for column in ("architecture", *(f"{name} loss" for name in after), "M parameters"):
        table.add_column(column)
    for column in ("FLOPs of teacher's", "ms", "faster"):
        table.add_column(column, justify="right")
    table.add_row(
        metrics["architecture_label"],
        *(f"{before[name]:.4f} to {after[name]:.4f}" for name in after),
        f"{metrics['parameters'] / 1e6:.2f}",
        f"{metrics['flops_fraction']:.3f}",
        f"{metrics['latency_ms']:.2f}",
        f"{metrics['speedup']:.2f}x",
    )
    print_table(table)
    print_line(
        f"losses on {metrics['held_out_sequences']:,} held-out sequences, before and after "
        f"{metrics['tokens']:,} tokens",
    )
    _show_costs({student.path.name: student})


def show_finished(student: Student) -> None:
    """Prints one student, of a task or of plain text."""
    if "held_out_losses" in student.metrics:
        show_general(student)
    else:
        show_students([student])


def show_layer_maps(run: Path) -> None:
    """Prints the best layer maps of a run, those that have names, and how to use the best."""
    for found in read_map_searches(run, []):
        table = Table(title=f"Layer maps (judged by {found.judge})")
        for column in ("genes", "fitness", *found.tasks, "judged"):
            table.add_column(column)
        for one in found.shown:
            scores = (one.scores.get(task) for task in found.tasks)
            table.add_row(
                f"{one.told}{f' ({one.name})' if one.name else ''}",
                "failed" if one.fitness is None else f"{one.fitness:.4f}",
                *("-" if score is None else f"{score:.4f}" for score in scores),
                f"{one.place}.",
            )
        print_table(table)
        print_line(found.course)
        if found.best is not None:
            genes = found.best.told.replace(" ", "")
            print_line(f"Use the best again with: --set distill.layer_map=[{genes}]")


def show_selected(students: Sequence[Student]) -> None:
    """Prints selected chains of operations, each with its budget."""
    table = Table(title=f"Selected ({latency_told(students)})")
    for column in ("folder", "budget", "architecture", "masked-word loss"):
        table.add_column(column)
    for column in ("M parameters", "FLOPs of teacher's", "ms"):
        table.add_column(column, justify="right")
    for student in students:
        metrics = student.metrics
        budget = ", ".join(f"{name}={value:g}" for name, value in metrics["limits"].items())
        table.add_row(
            Text(str(student.path)),
            budget,
            metrics["architecture_label"],
            f"{metrics['mlm_loss']:.4f}",
            f"{metrics['parameters'] / 1e6:.2f}",
            f"{metrics['flops_fraction']:.3f}",
            f"{metrics['latency_ms']:.2f}",
        )
    print_table(table)
    _show_costs({student.path.name: student for student in students})


def _show_costs(students: Mapping[str, Student]) -> None:
    """Prints for every limit of every student what was asked and what it is, and sizes."""
    lines = [line for name, one in students.items() for line in lines_of(name, one.metrics)]
    if lines:
        table = Table(title="Limits")
        for column in ("student", "limit", "value", "how known", "outcome"):
            table.add_column(column)
        for line in lines:
            told = f"{line.value} ({line.interval})" if line.interval else line.value
            table.add_row(line.student, line.asked, told, line.how or "-", line.margin or "-")
        print_table(table)
    for name, one in students.items():
        figures = read_figures(one.metrics)
        if told := "; ".join(filter(None, (sizes(figures), prediction(figures)))):
            print_line(f"student {name}: {told}")


def latency_told(students: Sequence[Student]) -> str:
    """Tells what the latencies of a table are: `latency: analytic, batch 1, length 64, …`."""
    ways = dict.fromkeys(_way_told(student.metrics) for student in students)
    return f"latency: {' and '.join(ways)}, {students[0].metrics['workload_label']}"


def _way_told(metrics: Mapping[str, Any]) -> str:
    """Tells how a latency is known, and of a predicted one how well."""
    if metrics["latency_how"] != "predicted":
        return str(metrics["latency_how"])
    return f"predicted to ± {metrics['latency_high_ms'] / metrics['latency_ms'] - 1:.0%}"


def _row(metrics: Any) -> list[str]:
    fraction = metrics["quality_fraction"]
    return [
        metrics["architecture_label"],
        f"{metrics['quality']:.4f}",
        "-" if fraction is None else f"{fraction:.1%}",
        f"{metrics['latency_ms']:.2f}",
        f"{metrics['speedup']:.2f}x",
        "within" if metrics["within_limit"] else "over",
    ]


def auto_class(student: Student) -> str:
    """Names the class of transformers that loads a student of a task, or of masked words."""
    name: str = auto_class_of(student.metrics.get("task_kind", "classes")).__name__
    return name
