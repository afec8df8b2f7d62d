"""The folder of an attack: what it is of, the outcomes so far, and the texts side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from stillhouse.errors import RunError
from stillhouse.evaluate.attack import Outcome, Target
from stillhouse.files import write_text_atomically
from stillhouse.run.settings_file import difference

SETTINGS_FILE = "settings.json"
OUTCOMES_FILE = "outcomes.jsonl"
RESULT_FILE = "attack.json"
TEXTS_FILE = "adversarial.tsv"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line of the file of outcomes: one text, attacked in one model."""

    model: int
    outcome: Outcome


class OutcomesFile:
    """Outcomes of attacks, a line each as they end; what is in it stays known.

    Args:
        path: The file; what an earlier start left is read, but for a last line that was cut off.

    Raises:
        RunError: If it is damaged.
    """

    def __init__(self, path: Path) -> None:
        """Reads what there is."""
        self._path = path
        self._known: dict[tuple[int, int], Outcome] = {}
        if not path.exists():
            return
        whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
        reader = TypeAdapter(_Line)
        for number, text in enumerate(whole.splitlines(), start=1):
            try:
                line = reader.validate_json(text)
            except ValidationError as error:
                raise RunError(
                    f"{path}, line {number} is no outcome of an attack: delete the file, or give "
                    "another --out"
                ) from error
            self._known[line.model, line.outcome.key] = line.outcome
        self.settle()

    def outcomes(self, model: int) -> dict[int, Outcome]:
        """Returns what is known of a model's attack, by number of the example."""
        return {key: one for (number, key), one in self._known.items() if number == model}

    def add(self, model: int, outcome: Outcome) -> None:
        """Keeps an outcome on the disk."""
        self._known[model, outcome.key] = outcome
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_to_line(model, outcome))

    def settle(self) -> None:
        """Sorts the lines, so that the file does not tell in which order the attacks ended."""
        lines = (_to_line(model, outcome) for (model, _), outcome in sorted(self._known.items()))
        write_text_atomically(self._path, "".join(lines))


def refuse_other(out: Path, subject: Mapping[str, Any]) -> None:
    """Writes what the outcomes in a folder are of, or compares it with what is written there.

    Raises:
        RunError: Naming what differs.
    """
    path = out / SETTINGS_FILE
    if not path.exists():
        if (out / OUTCOMES_FILE).exists():
            _refuse(out, f"has outcomes but no {SETTINGS_FILE}")
        write_text_atomically(path, f"{json.dumps(subject, indent=2)}\n")
        return
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        _refuse(out, f"has a damaged {SETTINGS_FILE}")
    changed = difference(found, subject)
    if changed:
        _refuse(out, f"holds another attack than is asked for: {'; '.join(changed)}")


def _refuse(out: Path, problem: str) -> NoReturn:
    raise RunError(f"{out} {problem}. Give another --out, or delete the folder")


def side_by_side(
    models: Sequence[str],
    targets: Sequence[Target],
    found: Sequence[Sequence[Outcome]],
    classes: Sequence[str],
) -> str:
    """Writes a table of the texts before and after, a line each.

    Args:
        models: What they are called.
        targets: The texts.
        found: For each model the outcomes, in the order of the texts.
        classes: What they are called.
    """
    names = ("model", "example", "label", "before", "after", "result", "queries")
    lines = ["\t".join((*names, "unchanged_text", "original", "adversarial"))]
    for model, outcomes in zip(models, found, strict=True):
        for target, outcome in zip(targets, outcomes, strict=True):
            numbers = (outcome.label, outcome.predicted, outcome.final)
            cells = (
                model,
                str(outcome.key),
                *(classes[number] for number in numbers),
                _result(outcome),
                str(outcome.queries),
                target.texts[0] if len(target.texts) > 1 else "",
                _marked(outcome.original, outcome.changed),
                _marked(outcome.words, outcome.changed),
            )
            lines.append("\t".join(" ".join(cell.split()) for cell in cells))
    return "".join(f"{line}\n" for line in lines)


def _result(outcome: Outcome) -> str:
    if not outcome.is_correct:
        return "wrong before"
    return "fooled" if outcome.is_fooled else "robust"


def _marked(words: Sequence[str], places: Sequence[int]) -> str:
    return " ".join(f"[[{word}]]" if place in places else word for place, word in enumerate(words))


def _to_line(model: int, outcome: Outcome) -> str:
    return f"{json.dumps(asdict(_Line(model=model, outcome=outcome)))}\n"
