"""The likeliest spans of passages, by the logits of their first and last tokens.

They are ranked as BERT's authors rank them (and run_qa of transformers).

Letters in names: N examples (windows of passages), P tokens of all examples in a row, T tokens of
one window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from stillhouse.errors import DataError, SettingsError
from stillhouse.evaluate.logits import token_logits

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from stillhouse.data.answers import SpanGold

N_BEST = 20
"""BERT's `n_best_size`."""
MOST_TOKENS = 30
"""BERT's `max_answer_length`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A text that may be the answer.

    Attributes:
        text: Part of the passage; empty for the candidate that there is no answer.
        score: Logit of its first token as a start plus that of its last one as an end.
        probability: Its share among the candidates of the question (softmax of the scores).
    """

    text: str
    score: float
    probability: float


def n_best_answers(
    logits: ArrayLike, gold: SpanGold, *, n_best: int = N_BEST, most_tokens: int = MOST_TOKENS
) -> list[tuple[Candidate, ...]]:
    """Ranks the likeliest answers of every question.

    The best starts and the best ends of every window are paired. Pairs count that begin and end in
    the passage, in this order, and are short enough; those of all windows of a question compete.
    Where questions may lack an answer, the lowest score of a window's first token stands for none.

    Args:
        logits: `[P, 2]`: every token as start and as end.
        gold: The questions.
        n_best: Starts and ends of a window that are tried, and candidates of a question; one more
            where no answer is not among them.
        most_tokens: Most tokens of an answer.

    Returns:
        Candidates, best first, of each question that has an example, in the order of their
        numbers; there may be none.

    Raises:
        SettingsError: If `n_best` or `most_tokens` is below 1.
        DataError: If there is no question, or logits and questions do not belong together.
        TrainingError: If a logit is not finite.
    """
    if n_best < 1 or most_tokens < 1:
        raise SettingsError(
            f"n_best and most_tokens are at least 1, but are {n_best} and {most_tokens}"
        )
    logits_P2 = window_logits(logits, gold)
    sheet, bounds = gold.sheet, gold.offsets
    order = np.argsort(sheet.question_of_N, kind="stable")
    numbers, firsts = np.unique(sheet.question_of_N[order], return_index=True)
    ranked = []
    for number, windows in zip(numbers, np.split(order, firsts[1:]), strict=True):
        tokens = [slice(bounds[window], bounds[window + 1]) for window in windows]
        parts = [
            _spans(logits_P2[one], sheet.characters_P2[one], n_best, most_tokens) for one in tokens
        ]
        none = min(float(logits_P2[one.start].sum()) for one in tokens)
        scores, places = (np.concatenate(column) for column in zip(*parts, strict=True))
        if sheet.may_lack_answers:
            scores, places = np.append(scores, none), np.append(places, [[0, 0]], axis=0)
        ranked.append(_candidates(scores, places, sheet.questions[number].context, n_best))
    return ranked


def window_logits(logits: ArrayLike, gold: SpanGold) -> NDArray[np.float64]:
    """Reads `[P, 2]` logits of starts and ends.

    Raises:
        DataError: If there is no question, an example has no token, or logits and questions do not
            belong together.
        TrainingError: If a logit is not finite.
    """
    logits_P2 = token_logits(logits, gold, 2)
    sheet, lengths_N = gold.sheet, np.diff(gold.offsets)
    if (
        len(sheet.question_of_N) != len(lengths_N)
        or len(sheet.characters_P2) != len(logits_P2)
        or lengths_N.min() < 1
    ):
        raise DataError(
            "each example of a question needs a token at least, a question's number and the place "
            f"of every token, but {len(lengths_N)} examples of {lengths_N.min()} or more tokens, "
            f"{len(logits_P2)} together, have {len(sheet.question_of_N)} and "
            f"{len(sheet.characters_P2)}"
        )
    return logits_P2


def _spans(
    logits_T2: NDArray[np.float64],
    characters_T2: NDArray[np.int32],
    n_best: int,
    most_tokens: int,
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Pairs the best starts and ends of a window.

    Returns:
        The scores of the pairs that count, and their first character and the one after their last.
    """
    starts, ends = (
        rank[characters_T2[rank, 0] >= 0]
        for rank in np.argsort(-logits_T2, axis=0, kind="stable")[:n_best].T
    )
    first = characters_T2[starts, 0][:, None]
    last = characters_T2[ends, 1][None, :]
    tokens = ends[None, :] - starts[:, None] + 1
    counts = (tokens >= 1) & (tokens <= most_tokens) & (last > first)
    scores = logits_T2[starts, 0][:, None] + logits_T2[ends, 1][None, :]
    places = np.stack(np.broadcast_arrays(first, last), axis=-1)
    return scores[counts], places[counts]


def _candidates(
    scores: NDArray[np.float64], places: NDArray[np.int32], context: str, n_best: int
) -> tuple[Candidate, ...]:
    """Keeps the best scores, and that of no answer (first and last character 0) in any case."""
    order = np.argsort(-scores, kind="stable")
    kept = (np.arange(len(order)) < n_best) | ~places[order].any(axis=1)
    order = order[kept]
    return tuple(
        Candidate(text=context[first:last], score=score, probability=probability)
        for (first, last), score, probability in zip(
            places[order].tolist(),
            scores[order].tolist(),
            softmax(scores[order]).tolist() if len(order) else [],
            strict=True,
        )
    )
