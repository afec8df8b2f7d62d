"""Tags of words: chunks (named entities, phrases) as seqeval counts them, and single words.

Letters in names: N sentences, P tokens of all sentences in a row, C tags, W scored words in a row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, assert_never

import numpy as np
from seqeval.metrics.sequence_labeling import get_entities
from sklearn.metrics import precision_recall_fscore_support

from stillhouse.data.labels import abbreviated
from stillhouse.data.metric_names import TAG_METRICS
from stillhouse.data.tag_schemes import are_chunk_tags
from stillhouse.errors import DataError, SettingsError
from stillhouse.evaluate.logits import token_logits
from stillhouse.evaluate.resampling import Ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from stillhouse.data.answers import TagGold
    from stillhouse.data.metric_names import MetricName

Chunk: TypeAlias = tuple[str, int, int]
"""Type, number of the first word, number of the last one."""
EntityMetric: TypeAlias = Literal["entity_f1", "entity_precision", "entity_recall"]

_AS_SEQEVAL: dict[str, str] = {"L": "E", "U": "S", "M": "I"}
"""Marks of BILOU and BMES that seqeval does not know: it would warn of each, run neighbours of one
type together, and lose the first word of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """How well one label, or one type of chunk, is told.

    Attributes:
        label: Its name.
        precision: Share of what was given this label that has it, 0..1.
        recall: Share of what has this label that was given it, 0..1.
        f1: Their harmonic mean.
        support: How often it occurs among the gold labels.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int

    def to_dict(self) -> dict[str, Any]:
        """Gives the row as plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Words:
    """The words with a gold tag.

    Attributes:
        tags_W: Their gold tags.
        bounds: `[N + 1]` sentence i holds the words `bounds[i]:bounds[i + 1]`.
        names: Of the tags.
    """

    tags_W: NDArray[np.int64]  # noqa: N815
    bounds: NDArray[np.int64]
    names: tuple[str, ...]

    def per_sentence(self, values_W: NDArray[Any]) -> NDArray[np.int64]:
        """Sums a whole number of every word over each sentence."""
        return np.diff(_running(values_W)[self.bounds])


def tag_scores(
    metrics: Sequence[MetricName], logits: ArrayLike, gold: TagGold
) -> dict[MetricName, Ratio]:
    """Judges the tags that a model gives to words.

    The chunk metrics are micro averages over all types, by the rules of CoNLL's own program, as
    seqeval has them without a mode: a chunk also begins where the type changes, whatever its mark.
    A `L-` and `U-` of BILOU counts as `E-` and `S-`, a `M-` of BMES as `I-`.

    Args:
        metrics: Names of metrics of tags.
        logits: `[P, C]`.
        gold: The right tags; sentences are the units.

    Raises:
        SettingsError: If a metric is not for tags, or is for chunks and the tags are not.
        DataError: If no word has a gold tag, or logits and tags do not belong together.
        TrainingError: If a logit is not finite.
    """
    words, predicted_W = _judged(logits, gold)
    return {metric: _scored(metric, words, predicted_W) for metric in metrics}


def constant_tag_quality(metric: MetricName, gold: TagGold) -> float:
    """Gives the best score of giving every word the same tag.

    Raises:
        SettingsError, DataError: As `tag_scores`.
    """
    words = _words(gold)
    answers = (np.full_like(words.tags_W, tag) for tag in range(len(gold.names)))
    return max(_scored(metric, words, same_W).score() for same_W in answers)


def label_table(logits: ArrayLike, gold: TagGold) -> list[LabelRow]:
    """Scores every label by itself.

    Args:
        logits: `[P, C]`.
        gold: The right tags.

    Returns:
        A row for every type of chunk, by name, where the tags are of chunks; else for every tag, in
        the task's order. What occurs neither among gold nor predicted tags is left out.

    Raises:
        DataError, TrainingError: As `tag_scores`.
    """
    words, predicted_W = _judged(logits, gold)
    return (_chunk_rows if are_chunk_tags(gold.names) else _tag_rows)(words, predicted_W)


def _judged(logits: ArrayLike, gold: TagGold) -> tuple[_Words, NDArray[np.int64]]:
    logits_PC = token_logits(logits, gold, len(gold.names))
    return _words(gold), logits_PC[gold.tags_P >= 0].argmax(axis=1)


def _words(gold: TagGold) -> _Words:
    """Leaves out tokens that have no gold tag.

    Raises:
        DataError: If there is no such word, or a tag has no name.
    """
    scored_P = gold.tags_P >= 0
    tags_W = gold.tags_P[scored_P]
    if len(scored_P) != gold.offsets[-1] or not len(tags_W) or tags_W.max() >= len(gold.names):
        raise DataError(
            f"tags are numbers 0 to {len(gold.names) - 1}, one for each of {gold.offsets[-1]} "
            f"tokens, but there are {len(scored_P)}, {len(tags_W)} of them from 0, the highest "
            f"{tags_W.max(initial=-1)}; score labelled sentences only"
        )
    return _Words(tags_W=tags_W, bounds=_running(scored_P)[gold.offsets], names=gold.names)


def _scored(metric: MetricName, words: _Words, predicted_W: NDArray[np.int64]) -> Ratio:
    match metric:
        case "tag_accuracy":
            right_N = words.per_sentence(predicted_W == words.tags_W)
            return Ratio(above_U=right_N, below_U=np.diff(words.bounds))
        case "entity_f1" | "entity_precision" | "entity_recall":
            _check_chunked(metric, words.names)
            return _chunk_ratio(metric, words, predicted_W)
        case _:
            raise SettingsError(
                f"metric {metric!r} does not fit a tagging task; choose one of "
                f"{', '.join(TAG_METRICS)}"
            )


def _check_chunked(metric: str, names: Sequence[str]) -> None:
    if not are_chunk_tags(names):
        raise SettingsError(
            f"metric {metric!r} needs tags of chunks such as B-NP, I-NP and O, but the task's are "
            f"{abbreviated(names)}; choose tag_accuracy"
        )


def _chunk_ratio(metric: EntityMetric, words: _Words, predicted_W: NDArray[np.int64]) -> Ratio:
    true, found = _chunks(words.tags_W, words), _chunks(predicted_W, words)
    true_N, found_N = (np.array([len(each) for each in part]) for part in (true, found))
    right_N = np.array([len(one & other) for one, other in zip(true, found, strict=True)])
    match metric:
        case "entity_precision":
            return Ratio(above_U=right_N, below_U=found_N)
        case "entity_recall":
            return Ratio(above_U=right_N, below_U=true_N)
        case "entity_f1":
            return Ratio(above_U=2 * right_N, below_U=found_N + true_N)
        case _:
            assert_never(metric)


def _chunks(tags_W: NDArray[np.int64], words: _Words) -> list[frozenset[Chunk]]:
    """Finds the chunks of every sentence."""
    names = [_AS_SEQEVAL.get(name[0], name[0]) + name[1:] for name in words.names]
    bounds, tags = words.bounds.tolist(), tags_W.tolist()
    known: dict[tuple[int, ...], frozenset[Chunk]] = {}
    chunks = []
    for start, end in pairwise(bounds):
        sentence = tuple(tags[start:end])
        if sentence not in known:
            known[sentence] = frozenset(get_entities([names[tag] for tag in sentence]))
        chunks.append(known[sentence])
    return chunks


def _chunk_rows(words: _Words, predicted_W: NDArray[np.int64]) -> list[LabelRow]:
    true, found, right = Counter[str](), Counter[str](), Counter[str]()
    pairs = zip(_chunks(words.tags_W, words), _chunks(predicted_W, words), strict=True)
    for one, other in pairs:
        true.update(kind for kind, _, _ in one)
        found.update(kind for kind, _, _ in other)
        right.update(kind for kind, _, _ in one & other)
    return [
        LabelRow(
            label=kind,
            precision=right[kind] / max(found[kind], 1),
            recall=right[kind] / max(true[kind], 1),
            f1=2 * right[kind] / (found[kind] + true[kind]),
            support=true[kind],
        )
        for kind in sorted(true | found)
    ]


def _tag_rows(words: _Words, predicted_W: NDArray[np.int64]) -> list[LabelRow]:
    tags = np.union1d(words.tags_W, predicted_W)
    columns = precision_recall_fscore_support(
        words.tags_W, predicted_W, labels=tags, zero_division=0.0
    )
    return [
        LabelRow(
            label=words.names[tag],
            precision=float(precision),
            recall=float(recall),
            f1=float(f1),
            support=int(support),
        )
        for tag, precision, recall, f1, support in zip(tags, *columns, strict=True)
    ]


def _running(values: NDArray[Any]) -> NDArray[np.int64]:
    """Sums up whole numbers from 0."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
