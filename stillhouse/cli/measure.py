"""The command that measures a checkpoint on devices of this machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape
from rich.table import Table

from stillhouse.cli import completion
from stillhouse.cli.answer import Answer, Unfinished, answers
from stillhouse.cli.options import ModelArgument
from stillhouse.cli.plain import plain
from stillhouse.cli.screen import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    narrator,
    print_line,
    print_table,
    quiet_libraries,
)
from stillhouse.device.kinds import MEASURED
from stillhouse.errors import SettingsError
from stillhouse.files import write_text_atomically

if TYPE_CHECKING:
    from stillhouse.recipe.measuring import Chain, MeasuredRow, Measurements

_NUMBERS = (
    "batch",
    "length",
    "ms",
    "95 % interval",
    "p90 ms",
    "examples/s",
    "size MB",
    "peak MB",
)


@answers
def measure(
    model: ModelArgument,
    *,
    device: Annotated[
        str,
        typer.Option(
            help=f"One or more with commas: auto, {', '.join(MEASURED)}.",
            autocompletion=completion.measured_devices,
        ),
    ] = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            help="One or more with commas: float32, bfloat16, int8, int8-static; by default each "
            "device's own.",
            autocompletion=completion.precisions,
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Examples in a request, with commas.")] = "1",
    length: Annotated[
        str | None, typer.Option(help="Tokens of an example, with commas; 128 if not given.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            "--against",
            help="Its teacher, timed in turn with it: folder or hub id.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Processor threads; all physical cores if not given.")
    ] = None,
    padding: Annotated[
        float, typer.Option(help="Share of every example that is padding, 0 to below 1.")
    ] = 0.0,
    memory: Annotated[
        bool, typer.Option(help="Measure peak memory, each in a process of its own.")
    ] = True,
    seconds: Annotated[
        float, typer.Option(help="Longest time of an attempt; a noisy row takes three.")
    ] = 3.0,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="A .json file for all figures, as --json prints them, written after every row.",
            autocompletion=completion.paths,
        ),
    ] = None,
) -> Answer:
    """Measure a checkpoint's time, size and memory on devices here.

    Writes nothing but the file of --out. Ctrl-C prints what was measured before. Ends with exit
    code 1 where nothing could be measured.

    Examples:
        On two runtimes, beside the teacher
            stillhouse measure runs/sst2/students/1 --device cpu,onnxruntime-cpu --batch 1,8
            --length 32,128 --against google-bert/bert-base-uncased
    """
    if file is not None and not file.absolute().parent.is_dir():
        raise SettingsError(f"--out: there is no folder {file.parent} to write {file.name} in")
    from stillhouse import api  # noqa: PLC0415  torch loads after parsing
    from stillhouse.recipe.measuring import MeasureSettings  # noqa: PLC0415  loads torch

    settings = MeasureSettings(
        devices=_listed("--device", device),
        precisions=cast("Any", _listed("--precision", precision)),  # checked there
        batches=_numbers("--batch", batch),
        lengths=_numbers("--length", length),
        threads=threads,
        padding_fraction=padding,
        has_memory=memory,
        longest_s=seconds,
    )
    quiet_libraries()
    so_far: list[Measurements] = []

    def keep(found: Measurements) -> None:
        so_far[:] = [found]
        if file is not None:
            write_text_atomically(file, json.dumps(plain(found.to_dict()), indent=2))

    try:
        with _noise_told_below():
            found = api.measure(
                model, against=against, settings=settings, narrator=narrator(), on_row=keep
            )
    except KeyboardInterrupt:
        raise Unfinished(
            Answer(
                told=so_far[0].to_dict() if so_far else {},
                show=lambda: _show(so_far[0]) if so_far else None,
                exit_code=EXIT_INTERRUPTED,
            ),
            "Stopped; what is above was measured before.",
        ) from None
    has_figures = not all(row.problem for row in found.rows)
    return Answer(
        told=found.to_dict(),
        show=lambda: _show(found),
        exit_code=0 if has_figures else EXIT_ERROR,
    )


def _listed(option: str, text: str | None) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    if text is not None and not parts:
        raise SettingsError(f"{option} names nothing, got {text!r}; leave it out for its default")
    return parts


def _numbers(option: str, text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _listed(option, text))
    except ValueError as error:
        raise SettingsError(
            f"{option} must be whole numbers with commas between, such as 1,8, got {text!r}"
        ) from error


@contextmanager
def _noise_told_below() -> Iterator[None]:
    """Keeps the stopwatch from warning of every noisy row, which the table marks."""
    logger = logging.getLogger("stillhouse.device.stopwatch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Notes:
    """Notes below a table, each once, and the marks that lead to them."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """Returns the mark of a note."""
        if text not in self.texts:
            self.texts.append(text)
        return f"({self.texts.index(text) + 1})"


def _show(found: Measurements) -> None:
    notes = _Notes()
    table = Table(title=escape(f"{found.model} on {found.processor}"))
    for column in ("device", "precision"):
        table.add_column(column)
    beside = ("teacher ms", "times faster") if found.against is not None else ()
    for column in (*_NUMBERS, *beside):
        table.add_column(column, justify="right")
    for _, group in groupby(found.rows, key=lambda row: (row.device, row.workload.precision)):
        for cells in _grouped_cells(list(group), notes):
            table.add_row(*cells)
    print_table(table)
    lines = _chain_lines(found.chains, notes)
    for line in (*lines, *(f"({n}) {text}" for n, text in enumerate(notes.texts, 1))):
        print_line(line)


def _grouped_cells(rows: Sequence[MeasuredRow], notes: _Notes) -> list[list[str]]:
    """Returns the rows of a device and precision; one row where all of them lack the same."""
    first = rows[0]
    if first.problem and len(rows) > 1 and all(row.problem == first.problem for row in rows):
        return [[first.device, first.workload.precision, "all", "all", _why(first.problem, notes)]]
    return [_cells(row, notes) for row in rows]


def _cells(row: MeasuredRow, notes: _Notes) -> list[str]:
    workload, latency = row.workload, row.latency
    cells = [row.device, workload.precision, str(workload.batch), str(workload.length)]
    if latency is None or row.examples_per_s is None:
        return [*cells, _why(row.problem, notes)]
    noise = _noise(row, notes)
    memory = _why(row.memory_problem, notes) if row.memory_problem else _mb(row.peak_memory_mb)
    cells += [
        f"{latency.median_ms:.2f}{noise if row.teacher is None else ''}",
        f"{latency.low_ms:.2f} to {latency.high_ms:.2f}",
        f"{latency.p90_ms:.2f}",
        f"{row.examples_per_s:.1f}",
        _mb(row.size_mb),
        memory,
    ]
    if row.teacher is not None:
        cells += [f"{row.teacher.median_ms:.2f}", f"{row.speedup:.2f}{noise}"]
    return cells


def _chain_lines(chains: Sequence[Chain], notes: _Notes) -> list[str]:
    """Tells what was won from the teacher in PyTorch to the model in each runtime."""
    lines: list[str] = []
    for chain in chains:
        row = chain.row
        if row.latency is None or row.teacher is None or row.problem:
            continue
        if not lines:
            lines.append(
                f"The whole chain at batch {row.workload.batch}, length {row.workload.length}, "
                "from the teacher in PyTorch float32 on the processor to the model in:"
            )
        times_ms = f"{row.teacher.median_ms:.2f} to {row.latency.median_ms:.2f} ms"
        sizes_mb = f"{_mb(chain.teacher_mb)} to {_mb(row.size_mb)} MB"
        lines.append(
            f"  {row.device}, {row.workload.precision}: {row.speedup:.2f} times faster"
            f"{_noise(row, notes)} ({times_ms}), {chain.smaller:.2f} times smaller ({sizes_mb})"
        )
    return lines


def _noise(row: MeasuredRow, notes: _Notes) -> str:
    if not row.is_noisy:
        return ""
    attempts = "1 attempt" if row.attempts == 1 else f"{row.attempts} attempts"
    note = (
        f"noisy: after {attempts} the figure is known to the ± beside it only; stop other work on "
        "this machine, or take fewer threads"
    )
    return f" ± {row.noise_fraction:.0%} noisy {notes.mark(note)}"


def _why(problem: str, notes: _Notes) -> str:
    return f"- {notes.mark(problem)}"


def _mb(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
