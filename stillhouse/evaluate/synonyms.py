"""Synonym files: which words an attack may put in the place of others."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from stillhouse.data.table_files import read_lines, read_table
from stillhouse.errors import DataError, SettingsError
from stillhouse.files import hash_file

MOST_SYNONYMS = 50
"""Of a word, nearest first. Source: Jin et al. 2020, `synonym_num` of the official code."""
LEAST_COSINE = 0.5
"""Of the vectors of word and synonym, where a file tells it; likewise from the official code."""
TABLE_COLUMNS = ("word", "pos", "synonyms")

_OPENING = '([{"“\u2018«¿¡'
_CLOSING = ')]}"”’»…,.;:!?'
_RawEntries: TypeAlias = Mapping[str, Iterable["Synonym"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Synonym:
    """A word that may stand for another.

    Attributes:
        word: As the file spells it.
        parts: Its parts of speech in the file's own letters (n, v, a, s, r), none where the file
            does not tell.
    """

    word: str
    parts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Synonyms:
    """The synonyms of a file.

    Attributes:
        path: The file.
        sha256: Of its content.
        has_parts: Whether it tells parts of speech.
        entries: For each word its synonyms, best first.
    """

    path: Path
    sha256: str
    has_parts: bool
    entries: Mapping[str, tuple[Synonym, ...]]

    def of(self, word: str) -> tuple[Synonym, ...]:
        """Returns the synonyms of a word of a text, by its lower case where its own is unknown."""
        core = core_of(word)
        return self.entries.get(core) or self.entries.get(core.lower(), ())


def core_of(word: str) -> str:
    """Takes quotes, brackets and marks of the sentence off a word: `"good!"` is `good`."""
    return word.lstrip(_OPENING).rstrip(_CLOSING)


def put_in_place(word: str, synonym: str) -> str:
    """Writes a synonym as a word of a text is written: marks around it, capitals."""
    core = core_of(word)
    start = len(word) - len(word.lstrip(_OPENING))
    if core.isupper() and len(core) > 1:
        synonym = synonym.upper()
    elif core[:1].isupper():
        synonym = synonym[:1].upper() + synonym[1:]
    return f"{word[:start]}{synonym}{word[start + len(core) :]}"


def read_synonyms(
    path: Path, *, most: int = MOST_SYNONYMS, least_cosine: float = LEAST_COSINE
) -> Synonyms:
    """Reads a synonym file.

    Args:
        path: A `.json` file, `{word: [synonym, ...]}` with the most similar first or
            `{word: [[synonym, cosine], ...]}` in any order; or a `.tsv` file with the columns
            `word`, `pos` and `synonyms`, these with commas between.
        most: Synonyms of a word that are kept.
        least_cosine: Where the file tells cosines, those of lower ones are left out.

    Raises:
        SettingsError: If `most` is below 1.
        DataError: If the file is missing or broken, or holds no word with a synonym.
    """
    if most < 1:
        raise SettingsError(f"an attack tries at least 1 synonym of a word, but most is {most}")
    is_table = path.suffix.lower() == ".tsv"
    if not is_table and path.suffix.lower() != ".json":
        raise DataError(
            f"{path} is no synonym file: it is a .json file such as "
            '{"good": ["fine", "decent"]}, or a .tsv file with the columns '
            f"{', '.join(TABLE_COLUMNS)}"
        )
    raw = _table_entries(path) if is_table else _json_entries(path, least_cosine)
    kept = {word: tuple(_others(word, synonyms))[:most] for word, synonyms in raw.items()}
    entries = {word: synonyms for word, synonyms in kept.items() if synonyms}
    if not entries:
        raise DataError(f"{path} holds no word with a synonym; an attack needs some")
    return Synonyms(path=path, sha256=hash_file(path), has_parts=is_table, entries=entries)


def read_parts(path: Path) -> Mapping[str, frozenset[str]]:
    """Reads the parts of speech that words can have from a `.tsv` file of synonyms.

    A synonym can be all that the words are whose synonym it is.

    Args:
        path: As for `read_synonyms`.

    Returns:
        Letters of parts of speech by word, in lower case.

    Raises:
        DataError: If the file is missing or broken.
    """
    if path.suffix.lower() != ".tsv":
        raise DataError(
            f"{path} tells no parts of speech; give a .tsv file with the columns "
            f"{', '.join(TABLE_COLUMNS)}"
        )
    parts: dict[str, frozenset[str]] = {}
    for word, part, synonyms in _table_rows(path):
        for known in (word.lower(), *(synonym.lower() for synonym in synonyms)):
            parts[known] = parts.get(known, frozenset()) | {part}
    return parts


def _others(word: str, synonyms: Iterable[Synonym]) -> Iterable[Synonym]:
    """Yields each synonym once, and not the word itself."""
    seen = {word.lower()}
    for synonym in synonyms:
        if synonym.word.lower() not in seen:
            seen.add(synonym.word.lower())
            yield synonym


def _json_entries(path: Path, least_cosine: float) -> _RawEntries:
    try:
        content = json.loads("\n".join(read_lines(path)))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is no JSON ({error}); a synonym file is one object, such as "
            '{"good": ["fine", "decent"]}'
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path} holds a JSON {type(content).__name__}; a synonym file is one object, such as "
            '{"good": ["fine", "decent"]}'
        )
    return {word: _json_synonyms(path, word, told, least_cosine) for word, told in content.items()}


def _json_synonyms(path: Path, word: str, told: object, least_cosine: float) -> list[Synonym]:
    if isinstance(told, list):
        if all(_is_word(entry) for entry in told):
            return [Synonym(word=entry.strip()) for entry in told]
        if all(_is_pair(entry) for entry in told):
            near = [(name, cosine) for name, cosine in told if cosine >= least_cosine]
            near.sort(key=lambda pair: -pair[1])  # stable: equals stay in the file's order
            return [Synonym(word=name.strip()) for name, _ in near]
    raise DataError(
        f"{path}: the synonyms of {word!r} are neither a list of words, nearest first, nor one of "
        f"[word, cosine] pairs, but {str(told)[:80]}"
    )


def _is_word(entry: object) -> bool:
    return isinstance(entry, str) and bool(entry.strip())


def _is_pair(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 2  # noqa: PLR2004  a pair
        and _is_word(entry[0])
        and isinstance(entry[1], int | float)
        and not isinstance(entry[1], bool)
        and math.isfinite(entry[1])
    )


def _table_entries(path: Path) -> _RawEntries:
    """Joins the rows of a word; one that it shares with several parts of speech is of all."""
    entries: dict[str, dict[str, frozenset[str]]] = {}
    for word, part, synonyms in _table_rows(path):
        of_word = entries.setdefault(word, {})
        for synonym in synonyms:
            of_word[synonym] = of_word.get(synonym, frozenset()) | {part}
    return {
        word: [Synonym(word=name, parts=parts) for name, parts in of_word.items()]
        for word, of_word in entries.items()
    }


def _table_rows(path: Path) -> Iterable[tuple[str, str, list[str]]]:
    columns = read_table(path, TABLE_COLUMNS)
    missing = [name for name in TABLE_COLUMNS if name not in columns]
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]!r}; its columns are {', '.join(columns)}. A table "
            f"of synonyms has {', '.join(TABLE_COLUMNS)}"
        )
    rows = zip(*(map(str, columns[name]) for name in TABLE_COLUMNS), strict=True)
    for row, (word, part, listed) in enumerate(rows, start=1):
        synonyms = [name.replace("_", " ").strip() for name in listed.split(",")]
        if not word.strip() or part.strip() not in tuple("nvasr"):
            raise DataError(
                f"{path}, row {row}: pos is n (noun), v (verb), a or s (adjective) or r "
                f"(adverb) of a word, but is {part!r} of {word!r}"
            )
        yield word.replace("_", " ").strip(), part.strip(), [name for name in synonyms if name]
