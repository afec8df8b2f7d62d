"""The command that attacks classifiers with synonyms and tells what accuracy is left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from stillhouse.cli import completion
from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.options import DATA, WHERE, LabelOption, RunOption
from stillhouse.cli.screen import narrator, print_line, print_table, resumable
from stillhouse.cli.search_options import gather_settings, task_options

if TYPE_CHECKING:
    from stillhouse.evaluate.attack_scores import Figure
    from stillhouse.recipe.attack_report import AdvGlueAccuracy, AttackReport


@answers
def attack(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Checkpoint folders or hub ids, such as a teacher and its students.",
            autocompletion=completion.checkpoints,
            metavar="MODELS",
        ),
    ],
    *,
    task: Annotated[
        str,
        typer.Option(
            help="glue/sst2 and the like, a table file, or hf:OWNER/NAME.",
            autocompletion=completion.tasks,
            rich_help_panel=DATA,
        ),
    ],
    synonyms: Annotated[
        Path | None,
        typer.Option(
            help="A .json file {word: [synonym, ...]}, nearest first (or [synonym, cosine] "
            "pairs), or a .tsv file with the columns word, pos and synonyms.",
            autocompletion=completion.paths,
        ),
    ] = None,
    adv_glue: Annotated[
        Path | None,
        typer.Option(
            "--adv-glue",
            help="AdvGLUE's dev_ann.json: accuracy on its examples.",
            autocompletion=completion.paths,
        ),
    ] = None,
    examples: Annotated[int, typer.Option(help="Dev examples to attack, at most.")] = 200,
    seed: Annotated[
        int, typer.Option(help="Seed of the draw of the examples.", rich_help_panel=WHERE)
    ] = 0,
    parts_of_speech: Annotated[
        Path | None,
        typer.Option(
            help="A .tsv file of synonyms: word and synonym must share a pos in it.",
            autocompletion=completion.paths,
        ),
    ] = None,
    pos_tagger: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint that tags UPOS: the synonym must keep the word's tag.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    similarity: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint of an encoder: the synonym must leave the text similar.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    least_similarity: Annotated[
        float, typer.Option(help="1 less the angle of the encodings, in radians.")
    ] = 0.7,
    stop_words: Annotated[
        Path | None,
        typer.Option(
            help="Words never replaced, one a line; scikit-learn's if not given.",
            autocompletion=completion.paths,
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            help="Text column of a table, or two: a,b; the last is changed.", rich_help_panel=DATA
        ),
    ] = None,
    label: LabelOption = None,
    dev: Annotated[
        str | None,
        typer.Option(
            help="Table (or split of hf:) to attack.",
            autocompletion=completion.paths,
            rich_help_panel=DATA,
        ),
    ] = None,
    run: RunOption = Path("runs/attack"),
) -> Answer:
    """Attack classifiers with synonyms, to see what accuracy is left.

    Words are replaced as TextFooler does, or the examples are those of AdvGLUE.

    Writes RUN/attack.json and the changed texts, RUN/adversarial.tsv; the same command again
    resumes it.

    Examples:
        A teacher and its student, with a file of synonyms
            stillhouse attack runs/sst2/teacher runs/sst2/students/1 --task glue/sst2
            --synonyms neighbours.json

        The examples of AdvGLUE
            stillhouse attack runs/sst2/students/1 --task glue/sst2 --adv-glue dev_ann.json
    """
    settings = gather_settings(None, task_options(task, text, label, dev, None))
    from stillhouse.api import run_attack_job  # noqa: PLC0415  torch loads after parsing
    from stillhouse.recipe.attacking import (  # noqa: PLC0415  torch loads after parsing
        AttackJob,
        ConstraintSettings,
    )

    job = AttackJob(
        models=tuple(models),
        task=settings.task,
        synonyms=synonyms,
        constraints=ConstraintSettings(
            stop_words=stop_words,
            parts_of_speech=parts_of_speech,
            pos_tagger=pos_tagger,
            similarity=similarity,
            least_similarity=least_similarity,
        ),
        examples=examples,
        seed=seed,
        adv_glue=adv_glue,
    )
    with resumable(run):
        report = run_attack_job(job, run, narrator())
    kept = ["attack.json", *(["adversarial.tsv"] if report.models else [])]
    return Answer(
        told=report.to_dict(), show=lambda: _show(report), done=f"{' and '.join(kept)} in {run}"
    )


def _show(report: AttackReport) -> None:
    lines: list[str] = []
    if report.models:
        print_table(_attack_table(report))
        lines += _attack_lines(report)
    if report.adv_glue:
        print_table(_adv_glue_table(report.adv_glue))
        lines.append("AdvGLUE: accuracy, 95 % interval; some of its examples tell no original")
    for line in lines:
        print_line(line)


def _attack_table(report: AttackReport) -> Table:
    table = Table(title=Text(f"TextFooler on {report.texts} dev texts of {report.task}"))
    table.add_column("model", overflow="fold")
    columns = ("accuracy", "after attack", "attacks that succeed", "queries", "words changed")
    for column in columns:
        table.add_column(column, justify="right")
    for one in report.models:
        scores = one.scores
        table.add_row(
            Text(one.model),
            _percent(scores.original_accuracy),
            _percent(scores.after_attack_accuracy),
            _percent(scores.success_fraction),
            _number(scores.queries),
            _percent(scores.changed_fraction),
        )
    return table


def _attack_lines(report: AttackReport) -> list[str]:
    lines = [
        f"{one.model} less {one.less}: after attack "
        f"{_points(one.difference.after_attack_accuracy)}, queries "
        f"{_number(one.difference.queries, sign='+')}; on the same texts"
        for one in report.differences
    ]
    lines.append(
        "after attack: right before and after, of all texts; queries: mean of texts right before; "
        "attacks that succeed: of texts right before; words changed: mean of successful attacks; "
        "each with its 95 % interval"
    )
    if report.without_synonyms:
        lines.append(
            f"{report.without_synonyms} of {report.texts} texts have no word with a synonym: they "
            "cannot be attacked and count as robust where the model is right"
        )
    return [*lines, *report.conditions]


def _adv_glue_table(rows: Sequence[AdvGlueAccuracy]) -> Table:
    table = Table(title="AdvGLUE, dev set")
    table.add_column("model", overflow="fold")
    table.add_column("section")
    for column in ("perturbed", "n", "of those with original", "originals", "n"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            Text(row.model),
            row.section,
            _percent(row.perturbed),
            str(row.perturbed.count),
            _percent(row.perturbed_with_original),
            _percent(row.originals),
            "0" if row.originals is None else str(row.originals.count),
        )
    return table


def _percent(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    return f"{figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%})"


def _points(figure: Figure) -> str:
    value, low, high = (100 * one for one in (figure.value, figure.low, figure.high))
    return f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"


def _number(figure: Figure | None, *, sign: str = "") -> str:
    if figure is None:
        return "-"
    form = f"{sign}.1f"
    return f"{figure.value:{form}} ({figure.low:{form}} to {figure.high:{form}})"
