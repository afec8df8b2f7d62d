"""The settings by name, with what each means and may be, read from the source of their classes.

To import these classes loads torch, which takes seconds; a shell waits for this at every Tab. So
the files are parsed, not run, and cannot go stale.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import stillhouse

_ROOT = Path(stillhouse.__file__).parent
_HOME = "stillhouse.run.settings"
_WHOLE = "RunSettings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One setting.

    Attributes:
        path: Such as `search.epochs`.
        told: What it means, in a sentence.
        choices: Words that it may be, if these are few.
    """

    path: str
    told: str
    choices: tuple[str, ...]


@cache
def keys() -> tuple[Key, ...]:
    """Returns all settings in the order of a settings file."""
    home = _module(_HOME)
    found: list[Key] = []
    for name, annotation, default in _fields(home.classes[_WHOLE]):
        section = _section(default)
        if section is None:
            found.append(Key(path=name, told="", choices=_words(annotation, home)))
            continue
        module = _module(home.imports.get(section, _HOME))
        meanings = explained(ast.get_docstring(module.classes[section]) or "")
        found += [
            Key(
                path=f"{name}.{key}",
                told=_first_sentence(meanings.get(key, "")),
                choices=_words(kind, module),
            )
            for key, kind, _ in _fields(module.classes[section])
        ]
    return tuple(found)


def choices(path: str) -> tuple[str, ...]:
    """Returns the words that a setting may be; none where they are not few."""
    return next((key.choices for key in keys() if key.path == path), ())


def names_in(module: str, table: str) -> tuple[str, ...]:
    """Returns the keys of a dictionary that a module has at its top."""
    value = _module(module).values[table]
    assert isinstance(value, ast.Dict)
    return tuple(
        key.value
        for key in value.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    )


def words_in(module: str, alias: str) -> tuple[str, ...]:
    """Returns the words of a type that a module names at its top."""
    home = _module(module)
    return _words(home.values[alias], home)


def explained(docstring: str) -> dict[str, str]:
    """Returns what a cleaned docstring says of each attribute; some are named together."""
    _, _, attributes = docstring.partition("Attributes:\n")
    meanings: dict[str, str] = {}
    for names, text in re.findall(
        r"^    ([\w, ]+): ((?:.+\n?)(?:^     +.+\n?)*)", attributes, flags=re.MULTILINE
    ):
        meanings |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return meanings


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.;]) ", text)[0].rstrip(";")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Module:
    classes: dict[str, ast.ClassDef]
    values: dict[str, ast.expr]
    imports: dict[str, str]


@cache
def _module(name: str) -> _Module:
    path = _ROOT.joinpath(*name.split(".")[1:]).with_suffix(".py")
    classes: dict[str, ast.ClassDef] = {}
    values: dict[str, ast.expr] = {}
    imports: dict[str, str] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef():
                classes[node.name] = node
            case ast.AnnAssign(target=ast.Name(id=alias), value=ast.expr() as value):
                values[alias] = value
            case ast.Assign(targets=[ast.Name(id=alias)], value=value):
                values[alias] = value
            case ast.ImportFrom(module=str(origin)) if origin.startswith("stillhouse"):
                imports |= {alias.asname or alias.name: origin for alias in node.names}
            case _:
                pass
    return _Module(classes=classes, values=values, imports=imports)


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr, ast.expr | None]]:
    for line in node.body:
        match line:
            case ast.AnnAssign(annotation=ast.Subscript(value=ast.Name(id="ClassVar"))):
                continue
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind, value=default):
                yield name, kind, default
            case _:
                continue


def _section(default: ast.expr | None) -> str | None:
    """Names the class in `field(default_factory=...)`."""
    if isinstance(default, ast.Call):
        for word in default.keywords:
            if word.arg == "default_factory" and isinstance(word.value, ast.Name):
                return word.value.id
    return None


def _words(kind: ast.expr, module: _Module) -> tuple[str, ...]:
    """Returns what a type allows, if it is of few words: literals and truth values."""
    match kind:
        case ast.Constant(value=str(word)):
            return (word,)
        case ast.Name(id="bool"):
            return ("true", "false")
        case ast.Name(id=name):
            home = _module(module.imports[name]) if name in module.imports else module
            return _words(home.values[name], home) if name in home.values else ()
        case ast.Subscript(value=ast.Name(id="Literal" | "tuple" | "Annotated"), slice=part):
            parts = part.elts if isinstance(part, ast.Tuple) else [part]
            return tuple(word for one in parts for word in _words(one, module))
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return (*_words(left, module), *_words(right, module))
        case _:
            return ()
