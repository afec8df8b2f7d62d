"""The command that tells what models can be measured on here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.plain import plain
from stillhouse.cli.screen import print_line, print_table
from stillhouse.device.data_sheets import data_sheets

if TYPE_CHECKING:
    from stillhouse.device.inventory import Inventory


@answers
def devices() -> Answer:
    """List the devices to measure on, and what the others lack.

    Each name is one for --device of search, distill, measure and profile. Writes nothing.

    Examples:
        What there is, and how to install the rest
            stillhouse devices
    """
    from stillhouse.device.inventory import take_inventory  # noqa: PLC0415  loads torch

    here = take_inventory()
    return Answer(told={**plain(here), "chips": list(data_sheets())}, show=lambda: _show(here))


def _show(here: Inventory) -> None:
    table = Table(title="Devices that models are measured on")
    for column in ("--device", "runs with", "precisions", "usable here"):
        table.add_column(column)
    for one in here.devices:
        told = "yes" if one.missing is None else f"no: {one.missing}"
        if one.name == here.default:
            told += "; the default (auto)"
        table.add_row(one.name, one.program, ", ".join(one.precisions), escape(told))
    print_table(table)
    lines = (
        f"processor: {here.processor}, {_cores(here.cores, here.hardware_threads)}; models are "
        f"measured with {here.threads} {_threads(here.threads)} unless told otherwise",
        f"CUDA devices: {'; '.join(here.cuda) or 'none'}",
        "A search also takes, for what is not at hand or would take long:",
        f"  {', '.join(data_sheets())}: chips, computed from their data sheets",
        "  FILE.csv: latencies looked up by the columns architecture and latency_ms",
        "  FILE.json: latencies predicted from a profile of this machine (stillhouse profile)",
    )
    for line in lines:
        print_line(line)


def _cores(cores: int | None, threads: int | None) -> str:
    physical = "cores unknown" if cores is None else f"{cores} physical cores"
    return physical if threads is None else f"{physical}, {threads} {_threads(threads)}"


def _threads(count: int) -> str:
    return "thread" if count == 1 else "threads"
