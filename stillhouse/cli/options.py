"""Options that several commands take: one name, one meaning, one way to complete its value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stillhouse.cli import completion
from stillhouse.device.data_sheets import data_sheets
from stillhouse.device.kinds import MEASURED

DATA = "Data"
"""Panel of the options that say what a model learns from and is judged on."""
WHERE = "Where and how"
"""Panel of the options of run directory, device and anything else."""

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="Checkpoint folder or hub id.", autocompletion=completion.checkpoints, metavar="MODEL"
    ),
]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        help="Hub id or folder of a BERT, RoBERTa, DistilBERT or ELECTRA, or 'scratch'.",
        autocompletion=completion.teachers,
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        help="glue/sst2 and the like, squad, squad-v2, a table, CoNLL or SQuAD file, "
        "hf:OWNER/NAME, or 'embedded'.",
        autocompletion=completion.tasks,
        rich_help_panel=DATA,
    ),
]
RunOption = Annotated[
    Path,
    typer.Option(
        "--run",
        help="Run directory; the same command again resumes it.",
        autocompletion=completion.folders,
        rich_help_panel=WHERE,
    ),
]
RunArgument = Annotated[
    Path, typer.Argument(help="Run directory.", autocompletion=completion.runs, metavar="RUN")
]
TextOption = Annotated[
    str | None,
    typer.Option(help="Text column of a table, or two: a,b.", rich_help_panel=DATA),
]
LabelOption = Annotated[
    str | None,
    typer.Option(help="Label column of a table; may hold lists.", rich_help_panel=DATA),
]
DevOption = Annotated[
    str | None,
    typer.Option(
        help="Table (or split of hf:) for reports; else a tenth is set aside.",
        autocompletion=completion.paths,
        rich_help_panel=DATA,
    ),
]
MetricOption = Annotated[
    str | None,
    typer.Option(
        help="Primary metric, such as f1_macro.",
        autocompletion=completion.metrics,
        rich_help_panel=DATA,
    ),
]
UnlabelledOption = Annotated[
    str | None,
    typer.Option(
        help="File of extra texts that only the teacher labels.",
        autocompletion=completion.paths,
        rich_help_panel=DATA,
    ),
]
CorpusTextOption = Annotated[
    str | None,
    typer.Option(help="Text column of a corpus that is no .txt file.", rich_help_panel=DATA),
]
FinetuneOption = Annotated[
    str | None,
    typer.Option(
        "--teacher-finetune",
        help="auto (unless the checkpoint has a trained head), always or never.",
        autocompletion=completion.values_of("teacher.finetune"),
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        help=f"Where latency is told: auto, {', '.join(MEASURED)}; a .csv file of latencies; a "
        f".json file of `profile`; or a chip by its data sheet ({', '.join(data_sheets())}).",
        autocompletion=completion.devices,
        rich_help_panel=WHERE,
    ),
]
SeedOption = Annotated[int | None, typer.Option(help="Seed of everything.", rich_help_panel=WHERE)]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any setting: path=value, such as search.epochs=2. Repeatable.",
        metavar="PATH=VALUE",
        autocompletion=completion.settings,
        rich_help_panel=WHERE,
    ),
]
SettingsArgument = Annotated[
    Path | None,
    typer.Argument(
        help="YAML settings file; options given beside it win.",
        autocompletion=completion.paths,
        metavar="SETTINGS_FILE",
    ),
]
