"""Answers to questions: from marked tokens to texts, and how right the texts are.

Texts are judged as SQuAD's own programs do it: evaluate-v1.1 where every question has an answer,
else evaluate-v2.0.

Letters in names: P tokens of all examples in a row, Q questions.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.data.metric_names import SPAN_METRICS
from stillhouse.errors import DataError, SettingsError
from stillhouse.evaluate.resampling import mean_of
from stillhouse.evaluate.spans import MOST_TOKENS, N_BEST, n_best_answers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from stillhouse.data.answers import Question, SpanGold
    from stillhouse.data.metric_names import MetricName
    from stillhouse.evaluate.resampling import Ratio

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model says to a question.

    Attributes:
        key: The question's id.
        text: The answer; empty where the model gives none.
        span: The best part of the passage, even where the model gives no answer; empty where none
            of the best starts and ends belong together.
        score: Score of that part, logits; minus infinity without one.
        score_of_none: Score of giving no answer; minus infinity where every question has one.
    """

    key: str
    text: str
    span: str
    score: float
    score_of_none: float


def answer_scores(
    metrics: Sequence[MetricName], logits: ArrayLike, gold: SpanGold
) -> dict[MetricName, Ratio]:
    """Judges a model's answers; questions are the units.

    Args:
        metrics: Names of metrics of questions.
        logits: `[P, 2]`: every token as start and as end.
        gold: The questions with their accepted answers.

    Raises:
        SettingsError: If a metric is not for questions.
        DataError: If there is no question, or logits and questions do not belong together.
        TrainingError: If a logit is not finite.
    """
    texts = [answer.text for answer in answers(logits, gold)]
    exact_Q, f1_Q = _judge(texts, gold)
    return {metric: mean_of(_column(metric, exact_Q, f1_Q)) for metric in metrics}


def constant_answer_quality(metric: MetricName, gold: SpanGold) -> float:
    """Gives the score of answering no question at all.

    Raises:
        SettingsError: If the metric is not for questions.
    """
    return mean_of(_column(metric, *_judge([""] * len(gold), gold))).score()


def answers(
    logits: ArrayLike, gold: SpanGold, *, n_best: int = N_BEST, most_tokens: int = MOST_TOKENS
) -> list[Answer]:
    """Answers every question.

    Where questions may lack an answer, none is given if the score of none exceeds that of the best
    span by more than the threshold of `gold`.

    Args:
        logits: `[P, 2]`: every token as start and as end.
        gold: The questions; without a threshold, `best_threshold` gives it.
        n_best: As for `n_best_answers`.
        most_tokens: As for `n_best_answers`.

    Returns:
        One answer for each question that has an example, in the order of their numbers.

    Raises:
        SettingsError, DataError, TrainingError: As `n_best_answers`.
    """
    best = _best_spans(logits, gold, n_best=n_best, most_tokens=most_tokens)
    if not gold.sheet.may_lack_answers:
        return best
    threshold = _best_threshold(best, gold) if gold.threshold is None else gold.threshold
    return [
        replace(one, text="") if one.score_of_none - one.score > threshold else one for one in best
    ]


def best_threshold(logits: ArrayLike, gold: SpanGold) -> float:
    """Finds the threshold of no answer that gives these questions the best F1.

    It is the `best_f1_thresh` of evaluate-v2.0, but that questions of one score stay together, and
    that it lies below all scores where it is best to answer none. Choose it on other questions than
    those that are reported.

    Args:
        logits: `[P, 2]`: every token as start and as end.
        gold: The questions, of a task whose questions may lack an answer; its own threshold does
            not count.

    Raises:
        SettingsError, DataError, TrainingError: As `n_best_answers`; and if every question of the
            task has an answer.
    """
    if not gold.sheet.may_lack_answers:
        raise DataError("every question of the task has an answer: there is no threshold to choose")
    best = _best_spans(logits, gold, n_best=N_BEST, most_tokens=MOST_TOKENS)
    return _best_threshold(best, gold)


def normalised(text: str) -> str:
    """Strips a text of what does not count: case, punctuation, articles and white space."""
    bare = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def _best_spans(
    logits: ArrayLike, gold: SpanGold, *, n_best: int, most_tokens: int
) -> list[Answer]:
    """Answers every question by its best span."""
    ranked = n_best_answers(logits, gold, n_best=n_best, most_tokens=most_tokens)
    best = []
    for question, candidates in zip(_questions(gold), ranked, strict=True):
        span, score = next(((one.text, one.score) for one in candidates if one.text), ("", -np.inf))
        none = next((one.score for one in candidates if not one.text), -np.inf)
        best.append(Answer(key=question.key, text=span, span=span, score=score, score_of_none=none))
    return best


def _best_threshold(best: Sequence[Answer], gold: SpanGold) -> float:
    """Finds the threshold up to which answering gains the most F1 over staying silent."""
    lack_Q = np.array([one.score_of_none - one.score for one in best])
    (_, answered_Q), (_, silent_Q) = (
        _judge(texts, gold) for texts in ([one.span for one in best], [""] * len(best))
    )
    order = np.argsort(lack_Q, kind="stable")
    lack_Q, gained_Q = lack_Q[order], np.cumsum((answered_Q - silent_Q)[order])
    last_of_equals_Q = np.append(lack_Q[1:] > lack_Q[:-1], [True])
    gained_Q[~last_of_equals_Q] = -np.inf
    if gained_Q.max() <= 0:
        return float(min(0.0, lack_Q[0] - 1.0))  # below all of them: no question is answered
    return float(lack_Q[gained_Q.argmax()])


def _questions(gold: SpanGold) -> list[Question]:
    """Lists the questions that have an example, in the order of their numbers."""
    return [gold.sheet.questions[number] for number in np.unique(gold.sheet.question_of_N)]


def _judge(texts: Sequence[str], gold: SpanGold) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gives the exact match (0 or 1) and the F1 of the answer to each question."""
    judged = []
    for text, question in zip(texts, _questions(gold), strict=True):
        accepted = [normalised(answer) for answer in question.answers]
        if gold.sheet.may_lack_answers:  # evaluate-v2.0 leaves out answers without a word
            accepted = [answer for answer in accepted if answer]
        judged.append(_right(normalised(text), accepted))
    exact_Q, f1_Q = np.array(judged, dtype=np.float64).reshape(-1, 2).T
    return exact_Q, f1_Q


def _right(said: str, accepted: Sequence[str]) -> tuple[float, float]:
    if not accepted:
        return float(not said), float(not said)
    return float(said in accepted), max(_overlap(said.split(), one.split()) for one in accepted)


def _overlap(said: list[str], accepted: list[str]) -> float:
    """Gives the F1 of words; 0 for no common one, as in both programs where an answer is due."""
    common = (Counter(said) & Counter(accepted)).total()
    return 2 * common / (len(said) + len(accepted)) if common else 0.0


def _column(
    metric: MetricName, exact_Q: NDArray[np.float64], f1_Q: NDArray[np.float64]
) -> NDArray[np.float64]:
    match metric:
        case "exact_match":
            return exact_Q
        case "answer_f1":
            return f1_Q
        case _:
            raise SettingsError(
                f"metric {metric!r} does not fit a question-answering task; choose one of "
                f"{', '.join(SPAN_METRICS)}"
            )
