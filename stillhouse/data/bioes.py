"""Tags of chunks as a tagger learns them: BIOES, which also marks where a chunk ends.

Letters in names: B batch, T words of a sentence, C tags of the task, G tags of the tagger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.data.tag_schemes import OUTSIDE, TagSet, are_chunk_tags, check_schemes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stillhouse.data.tag_schemes import Scheme

_MARKS = "BIES"
_BEGIN = {"IOB2": "B", "IOB1": "B", "IOBES": "BS", "BILOU": "BU", "BMES": "BS"}
_OPEN = {"IOB2": "BI", "IOB1": "BI", "IOBES": "BI", "BILOU": "BI", "BMES": "BM"}
"""Marks after which a chunk may go on."""
_WRITTEN: dict[str, dict[str, str]] = {
    "IOB2": {"B": "B", "I": "I", "E": "I", "S": "B"},
    "IOB1": {"B": "B", "I": "I", "E": "I", "S": "B"},
    "IOBES": {mark: mark for mark in _MARKS},
    "BILOU": {"B": "B", "I": "I", "E": "L", "S": "U"},
    "BMES": {"B": "B", "I": "M", "E": "E", "S": "S"},
}
_LEAST = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class TagCode:
    """How the tags of a task and those of its tagger stand for each other.

    Attributes:
        task_names: Name of every tag number of the task.
        scheme: How the task marks chunks; `None` where its tags mark none, and stay as they are.
    """

    task_names: tuple[str, ...]
    scheme: Scheme | None

    @property
    def names(self) -> tuple[str, ...]:
        """Name of every tag number of the tagger."""
        if self.scheme is None:
            return self.task_names
        return (OUTSIDE, *(mark + kind for kind in self._kinds for mark in _MARKS))

    @property
    def _kinds(self) -> tuple[str, ...]:
        """What follows the mark, such as `-NP`."""
        return tuple(dict.fromkeys(name[1:] for name in self.task_names if name != OUTSIDE))

    def encode(self, tags: Sequence[int]) -> list[int]:
        """Turns the task's tags of a sentence into the tagger's."""
        if self.scheme is None:
            return list(tags)
        names = [self.task_names[tag] for tag in tags]
        goes_on = [False, *map(self._goes_on, names, names[1:])]
        places = {name: place for place, name in enumerate(self.names)}
        encoded = []
        for name, is_in, stays in zip(names, goes_on, [*goes_on[1:], False], strict=False):
            mark = ("I" if stays else "E") if is_in else ("B" if stays else "S")
            encoded.append(places[OUTSIDE if name == OUTSIDE else mark + name[1:]])
        return encoded

    def decode(self, tags: Sequence[int]) -> list[int]:
        """Turns the tagger's tags of a sentence, whether they fit together or not, into the task's.

        A tag that the task has no name for becomes another one of its type, and without one the
        task's first.
        """
        if self.scheme is None:
            return list(tags)
        names, before = self.names, OUTSIDE
        decoded = []
        for tag in tags:
            name = names[tag]
            decoded.append(self._nearest(name, before))
            before = name
        return decoded

    def spread(self, task_BTC: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turns distributions over the task's tags into distributions over the tagger's.

        In a scheme without ends, a chunk that holds word t ends there with the probability that
        word t + 1 does not go on with it, given that word t is in one of the type; with certain
        tags that is what `encode` gives.

        Args:
            task_BTC: Probabilities; all 0 for padding.

        Returns:
            `[B, T, G]` with the same sums.
        """
        if self.scheme is None:
            return task_BTC
        places = {name: place for place, name in enumerate(self.names)}
        spread_BTG = np.zeros((*task_BTC.shape[:2], len(places)), dtype=np.float32)
        columns = {name: task_BTC[..., place] for place, name in enumerate(self.task_names)}
        spread_BTG[..., 0] = columns.get(OUTSIDE, 0.0)
        for kind in self._kinds:
            for mark, part_BT in self._marked(kind, columns).items():
                spread_BTG[..., places[mark + kind]] = part_BT
        return spread_BTG

    def _marked(
        self, kind: str, columns: dict[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[np.float32]]:
        """Gives the probabilities of the four marks of a type of chunk."""
        assert self.scheme is not None
        zero_BT = np.zeros_like(next(iter(columns.values())))
        if self.scheme not in ("IOB1", "IOB2"):
            letters = _WRITTEN[self.scheme]
            return {mark: columns.get(letters[mark] + kind, zero_BT) for mark in _MARKS}
        begins_BT, goes_on_BT = columns.get("B" + kind, zero_BT), columns.get("I" + kind, zero_BT)
        inside_BT = begins_BT + goes_on_BT
        if self.scheme == "IOB1":
            follows_BT = goes_on_BT * _before(inside_BT)
            begins_BT, goes_on_BT = inside_BT - follows_BT, follows_BT
        stays_BT = np.minimum(1.0, _after(goes_on_BT) / np.maximum(inside_BT, _LEAST))
        return {
            "B": begins_BT * stays_BT,
            "S": begins_BT * (1 - stays_BT),
            "I": goes_on_BT * stays_BT,
            "E": goes_on_BT * (1 - stays_BT),
        }

    def _goes_on(self, before: str, name: str) -> bool:
        """Tells whether a word's tag goes on with the chunk of the word before it."""
        assert self.scheme is not None
        is_same = name != OUTSIDE and before[1:] == name[1:] and before != OUTSIDE
        return is_same and name[0] not in _BEGIN[self.scheme] and before[0] in _OPEN[self.scheme]

    def _nearest(self, name: str, before: str) -> int:
        """Finds the task's tag for a tag of the tagger."""
        assert self.scheme is not None
        written, kind = name, name[1:]
        if name != OUTSIDE:
            mark = _WRITTEN[self.scheme][name[0]]
            if self.scheme == "IOB1" and (before == OUTSIDE or before[1:] != kind):
                mark = "I"
            written = mark + kind
        if written in self.task_names:
            return self.task_names.index(written)
        others = [one for one in self.task_names if one != OUTSIDE and one[1:] == kind]
        return self.task_names.index(others[0]) if others and name != OUTSIDE else 0


def tag_code(tags: Sequence[Sequence[int]], names: tuple[str, ...], *, where: str) -> TagCode:
    """Finds the code of a task: BIOES where its tags mark chunks.

    Args:
        tags: The task's tags of the training sentences.
        names: Of the tags.
        where: What messages call the sentences.

    Raises:
        DataError: If chunks are marked by no scheme.
    """
    if not are_chunk_tags(names):
        return TagCode(task_names=names, scheme=None)
    scheme = check_schemes(TagSet(tags=tags, where=where), [], names)
    return TagCode(task_names=names, scheme=scheme)


def _before(values_BT: NDArray[Any]) -> NDArray[Any]:
    """Gives every word what the one before it has, 0 at the first."""
    return np.pad(values_BT, ((0, 0), (1, 0)))[:, :-1]


def _after(values_BT: NDArray[Any]) -> NDArray[Any]:
    """Gives every word what the one after it has, 0 at the last."""
    return np.pad(values_BT, ((0, 0), (0, 1)))[:, 1:]
