"""How loyal a student is to its teacher: whether it gives the same answers, and as surely.

Source: Xu, Zhou, Ge, Xu, McAuley, Wei, "Beyond Preserved Accuracy", EMNLP 2021, arXiv 2109.03228.
Theirs are classes; tags, sets of classes and questions are ours, by the same two formulas.

Letters in names: N examples, P tokens of all examples in a row, C outputs, Q questions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.special import expit, softmax

from stillhouse.data.answers import SpanGold, TagGold
from stillhouse.errors import DataError
from stillhouse.evaluate.answering import answers, normalised
from stillhouse.evaluate.logits import checked_logits, token_logits
from stillhouse.evaluate.resampling import Ratio, interval_of, mean_of
from stillhouse.evaluate.spans import window_logits

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from stillhouse.data.answers import Gold
    from stillhouse.data.examples import LabelArray

LogBase: TypeAlias = Literal["e", "2"]

NO_CLASSES = "regression gives numbers, neither labels nor distributions to compare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loyalty:
    """Agreement of a student with its teacher; without figures, `reason` says why.

    Attributes:
        label: Label loyalty, 0..1, or None.
        label_low: Lower end of its 95 % interval.
        label_high: Upper end of it.
        probability: Probability loyalty, 0.167..1 with base e and 0..1 with base 2, or None.
        probability_low: Lower end of its 95 % interval.
        probability_high: Upper end of it.
        base: Of the logarithm.
        count: Examples, sentences or questions compared, which the intervals draw again.
        reason: Why there are no figures; empty where there are.
    """

    label: float | None
    label_low: float | None
    label_high: float | None
    probability: float | None
    probability_low: float | None
    probability_high: float | None
    base: LogBase
    count: int
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Gives the agreement as plain data."""
        return asdict(self)


def loyalty(
    student: ArrayLike,
    teacher: ArrayLike,
    gold: Gold,
    *,
    seed: int,
    base: LogBase = "e",
    teacher_gold: Gold | None = None,
    resamples: int = 1_000,
) -> Loyalty:
    """Compares a student's answers with its teacher's, with 95 % bootstrap intervals.

    Args:
        student: Logits of the student, of the shape that `gold` asks for.
        teacher: Logits of the fine-tuned teacher on the same examples.
        gold: Tells what the logits stand for; whether answers are right does not matter.
        seed: Decides the resamples.
        base: Of the logarithm; `"e"` as in the paper.
        teacher_gold: The same with the teacher's own threshold of no answer; without it, that of
            `gold` holds for both.
        resamples: How many times as many examples are drawn with replacement.

    Returns:
        The agreement; without figures for regression.

    Raises:
        SettingsError: If there are no resamples.
        DataError: If the logits belong neither together nor to `gold`.
        TrainingError: If a logit is not finite.
    """
    labels = _label_ratio(student, teacher, gold, gold if teacher_gold is None else teacher_gold)
    probabilities = _probability_ratio(student, teacher, gold, base)
    if labels is None or probabilities is None:
        return Loyalty(
            label=None,
            label_low=None,
            label_high=None,
            probability=None,
            probability_low=None,
            probability_high=None,
            base=base,
            count=len(gold),
            reason=NO_CLASSES,
        )
    label_low, label_high = interval_of(labels, seed=seed, resamples=resamples)
    low, high = interval_of(probabilities, seed=seed, resamples=resamples)
    return Loyalty(
        label=labels.score(),
        label_low=label_low,
        label_high=label_high,
        probability=probabilities.score(),
        probability_low=low,
        probability_high=high,
        base=base,
        count=len(labels),
    )


def label_loyalty(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    gold: Gold,
    *,
    teacher_gold: Gold | None = None,
) -> float | None:
    """Gives the share of answers that are the teacher's.

    Counted are examples (all classes of a multi-label one have to agree), scored words, or
    questions, whose texts have to agree but for case, punctuation, articles and white space.

    Args:
        student_logits: As for `loyalty`.
        teacher_logits: As for `loyalty`.
        gold: As for `loyalty`.
        teacher_gold: As for `loyalty`.

    Returns:
        0..1; None for regression.

    Raises:
        DataError, TrainingError: As `loyalty`.
    """
    other = gold if teacher_gold is None else teacher_gold
    ratio = _label_ratio(student_logits, teacher_logits, gold, other)
    return None if ratio is None else ratio.score()


def probability_loyalty(
    student_logits: ArrayLike, teacher_logits: ArrayLike, gold: Gold, *, base: LogBase = "e"
) -> float | None:
    """Gives 1 less the mean Jensen-Shannon distance of the two models' distributions.

    The distance is the root of the divergence. Its mean is over examples; over the classes of each
    example, present or not, of a multi-label task; over scored words; or over windows of passages,
    for each that of the start's and of the end's distribution over its tokens.

    Args:
        student_logits: As for `loyalty`.
        teacher_logits: As for `loyalty`.
        gold: As for `loyalty`.
        base: Of the logarithm. With e the distance is at most 0.833, with 2 at most 1.

    Returns:
        At most 1; None for regression.

    Raises:
        DataError, TrainingError: As `loyalty`.
    """
    ratio = _probability_ratio(student_logits, teacher_logits, gold, base)
    return None if ratio is None else ratio.score()


def _label_ratio(
    student: ArrayLike, teacher: ArrayLike, gold: Gold, teacher_gold: Gold
) -> Ratio | None:
    if isinstance(gold, SpanGold):
        if not isinstance(teacher_gold, SpanGold) or len(gold) != len(teacher_gold):
            raise DataError("student and teacher are compared on the same questions; give those")
        pairs = zip(answers(student, gold), answers(teacher, teacher_gold), strict=True)
        same = [normalised(one.text) == normalised(other.text) for one, other in pairs]
        return mean_of(np.array(same))
    if isinstance(gold, TagGold):
        named_PC, wanted_PC = _tag_logits(student, teacher, gold)
        return _per_sentence(named_PC.argmax(axis=1) == wanted_PC.argmax(axis=1), gold)
    logits_NC, theirs_NC = _paired(student, teacher, gold)
    match _label_kind(gold):
        case "classes":
            return mean_of(logits_NC.argmax(axis=1) == theirs_NC.argmax(axis=1))
        case "multi_label":
            return mean_of(((logits_NC > 0) == (theirs_NC > 0)).all(axis=1))
        case "scores":
            return None


def _probability_ratio(
    student: ArrayLike, teacher: ArrayLike, gold: Gold, base: LogBase
) -> Ratio | None:
    if isinstance(gold, SpanGold):
        return _span_ratio(student, teacher, gold, base)
    if isinstance(gold, TagGold):
        named_PC, wanted_PC = _tag_logits(student, teacher, gold)
        alike_P = 1 - _distances(softmax(named_PC, axis=1), softmax(wanted_PC, axis=1), base)
        return _per_sentence(alike_P, gold)
    logits_NC, theirs_NC = _paired(student, teacher, gold)
    match _label_kind(gold):
        case "classes":
            pair = softmax(logits_NC, axis=1), softmax(theirs_NC, axis=1)
            return mean_of(1 - _distances(*pair, base))
        case "multi_label":
            distances_NC = _distances(_yes_no(logits_NC), _yes_no(theirs_NC), base)
            return mean_of(1 - distances_NC.mean(axis=1))
        case "scores":
            return None


def _span_ratio(student: ArrayLike, teacher: ArrayLike, gold: SpanGold, base: LogBase) -> Ratio:
    """Sums each question's windows."""
    logits_2P, theirs_2P = window_logits(student, gold).T, window_logits(teacher, gold).T
    cuts = gold.offsets[1:-1]
    windows = zip(np.split(logits_2P, cuts, axis=1), np.split(theirs_2P, cuts, axis=1), strict=True)
    alike_N = [
        1 - _distances(softmax(one, axis=1), softmax(other, axis=1), base).mean()
        for one, other in windows
    ]
    _, place_N = np.unique(gold.sheet.question_of_N, return_inverse=True)
    return Ratio(above_U=np.bincount(place_N, weights=alike_N), below_U=np.bincount(place_N))


def _per_sentence(values_P: NDArray[Any], gold: TagGold) -> Ratio:
    """Sums a figure of every token over the scored ones of each sentence."""
    scored_P = gold.tags_P >= 0
    if not scored_P.any():
        raise DataError("no word has a tag; compare models on labelled sentences")
    sentence_P = np.repeat(np.arange(len(gold)), np.diff(gold.offsets))[scored_P]
    return Ratio(
        above_U=np.bincount(sentence_P, weights=values_P[scored_P], minlength=len(gold)),
        below_U=np.bincount(sentence_P, minlength=len(gold)),
    )


def _tag_logits(
    student: ArrayLike, teacher: ArrayLike, gold: TagGold
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    outputs = len(gold.names)
    return token_logits(student, gold, outputs), token_logits(teacher, gold, outputs)


def _label_kind(labels: LabelArray) -> Literal["classes", "multi_label", "scores"]:
    if labels.ndim > 1:
        return "multi_label"
    return "scores" if labels.dtype.kind == "f" else "classes"


def _paired(
    student: ArrayLike, teacher: ArrayLike, labels: LabelArray
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reads `[N, C]` logits of student and teacher.

    Raises:
        DataError: If they do not belong together, or not to the labels.
        TrainingError: If one is not finite.
    """
    logits, theirs = checked_logits(student), checked_logits(teacher)
    kind, examples = _label_kind(labels), len(labels)
    fits = {
        "classes": logits.ndim == 2 and logits.shape[1:] > (1,),  # noqa: PLR2004
        "multi_label": logits.shape == labels.shape,
        "scores": logits.shape in ((examples,), (examples, 1)),
    }[kind]
    if not examples or not fits or logits.shape != theirs.shape or len(logits) != examples:
        raise DataError(
            "student and teacher are compared on the same examples by logits of one shape, "
            f"[N, C] for classes, but the student's is {list(logits.shape)}, the teacher's "
            f"{list(theirs.shape)} and that of the labels ({kind}) {list(labels.shape)}"
        )
    return logits, theirs


def _yes_no(logits_NC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gives `[N, C, 2]` probabilities that a class is present and that it is not."""
    return np.stack([expit(logits_NC), expit(-logits_NC)], axis=-1)


def _distances(
    student: NDArray[np.float64], teacher: NDArray[np.float64], base: LogBase
) -> NDArray[np.float64]:
    """Gives Jensen-Shannon distances of the distributions along the last axis."""
    with np.errstate(invalid="ignore"):  # rounding may leave a divergence just below 0
        distances = jensenshannon(student, teacher, base=None if base == "e" else 2, axis=-1)
    return np.nan_to_num(np.asarray(distances, dtype=np.float64), nan=0.0)
