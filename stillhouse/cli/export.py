"""The command that writes a checkpoint as a folder that is served."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.table import Table

from stillhouse.cli import completion
from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.options import (
    DevOption,
    LabelOption,
    MetricOption,
    ModelArgument,
    TextOption,
)
from stillhouse.cli.screen import print_line, print_table, quiet_libraries, stoppable
from stillhouse.cli.search_options import gather_settings, task_options
from stillhouse.errors import SettingsError, did_you_mean

FORMATS = ("onnx",)


@answers
def export(
    model: ModelArgument,
    *,
    to: Annotated[
        str, typer.Option(help="Format: onnx.", autocompletion=completion.one_of(*FORMATS))
    ] = "onnx",
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32; int8: embeddings and matrix products in 8 bits; or int8-static: the "
            "same with scales fixed beforehand, on texts that are not those of the check, which "
            "is the one that OpenVINO computes in 8 bits. By default float32, or int8 with the "
            "ranges of its training for a checkpoint that was trained in few bits.",
            autocompletion=completion.one_of("float32", "int8", "int8-static"),
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            help="Text to check on: a .txt file with one text a line, or a task as --task of "
            "search takes it, which scores the file as well; some embedded texts if not given.",
            autocompletion=completion.tasks,
        ),
    ] = None,
    text: TextOption = None,
    label: LabelOption = None,
    dev: DevOption = None,
    metric: MetricOption = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="By default onnx, onnx-int8 or onnx-int8-static in the checkpoint.",
            autocompletion=completion.folders,
        ),
    ] = None,
) -> Answer:
    """Write a checkpoint for onnxruntime, checked against PyTorch.

    Writes the model, its tokeniser, its label names, a script that shows how to use them, and
    export.json with what the check found.

    Next: the command that is printed, which answers for a text of yours.

    Examples:
        In 8 bits, scored on the task
            stillhouse export runs/sst2/students/1 --precision int8 --check glue/sst2
    """
    if to not in FORMATS:
        raise SettingsError(
            f"--to is onnx, the one format that is written, but is {to!r}"
            f"{did_you_mean(to, FORMATS)}"
        )
    from stillhouse.data.task_names import is_plain_text  # noqa: PLC0415  loads datasets

    checked: Any = check
    if check is not None and not is_plain_text(check):
        checked = gather_settings(None, task_options(check, text, label, dev, metric)).task
    else:
        _refuse_without_task({"text": text, "label": label, "dev": dev, "metric": metric})
    from stillhouse.api import export_onnx  # noqa: PLC0415  torch loads after parsing

    quiet_libraries()
    with stoppable():
        exported = export_onnx(model, precision=cast(Any, precision), check=checked, out=folder)
    return Answer(
        told={"path": exported.path, **exported.told},
        show=lambda: _show(exported.told),
        done=f"Try it: cd {exported.path} && {exported.told['example']}",
    )


def _refuse_without_task(given: Mapping[str, str | None]) -> None:
    """Refuses options of a task where there is none."""
    options = [f"--{name}" for name, value in given.items() if value is not None]
    if options:
        raise SettingsError(
            f"{', '.join(options)}: what is checked on is no task; give one with --check, such as "
            "glue/sst2 or a table, or leave that out"
        )


def _show(told: Mapping[str, Any]) -> None:
    table = Table(
        title=f"Checked on {told['checked_on']['texts']} texts of {told['checked_on']['name']}"
    )
    names = list(next(iter(told["scores"].values()), {}))
    for column in ("file", "MB", "largest difference", *names):
        table.add_column(column)
    for name, size_mb in {
        "pytorch float32": told["source"]["weights_mb"],
        **told["size_mb"],
    }.items():
        gaps = told["differences"].get(name, {})
        scores = told["scores"].get(name, {}).values()
        table.add_row(
            name,
            f"{size_mb:.2f}",
            ", ".join(f"{output} {gap:.2g}" for output, gap in gaps.items()) or "-",
            *(f"{score:.4f}" for score in scores),
        )
    print_table(table)
    if told["int8_agreement_fraction"] is not None:
        share = told["int8_agreement_fraction"]
        whose = "in float32" if told.get("trained_weight_bits") is None else "in PyTorch"
        print_line(f"answers in int8 that are those {whose}: {share:.2%}")
    if (fixed_on := told["calibrated_on"]) is not None:
        print_line(f"scales fixed on {fixed_on['texts']} texts of {fixed_on['name']}")
