"""Answers scored by a task's metrics, with what a model of questions needs beside its weights.

Letters in names: P tokens of all examples in a row, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.data.answers import SpanGold, TagGold
from stillhouse.evaluate.answering import best_threshold
from stillhouse.evaluate.metrics import bootstrap, score
from stillhouse.evaluate.tagging import label_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from stillhouse.data.answers import Gold
    from stillhouse.data.encoding import EncodedSet

USUAL_THRESHOLD = 0.0
"""Of a model that was given none: no answer where its score exceeds that of the best span."""


def own_gold(model: PreTrainedModel, encoded: EncodedSet) -> Gold:
    """Returns what a model's answers are scored against, with its own threshold of no answer."""
    gold = encoded.gold
    if not isinstance(gold, SpanGold):
        return gold
    threshold = getattr(model.config, "no_answer_threshold", USUAL_THRESHOLD)
    return replace(gold, threshold=float(threshold))


def choose_threshold(
    model: PreTrainedModel, logits: NDArray[np.float32], validation: EncodedSet
) -> None:
    """Writes the threshold of no answer into a model's configuration, where its task has one.

    Args:
        model: Whose answers they are.
        logits: `[P, 2]` on the examples that everything is chosen on; other shapes are of tasks
            that need no threshold.
        validation: Those examples.
    """
    gold = validation.gold
    if isinstance(gold, SpanGold) and gold.sheet.may_lack_answers:
        model.config.no_answer_threshold = best_threshold(logits, gold)


def quality_facts(
    metrics: Sequence[str], logits: NDArray[Any], gold: Gold, *, seed: int
) -> dict[str, Any]:
    """Scores answers on the set for reports, as `metrics.json` tells it.

    Args:
        metrics: Names, primary first.
        logits: As `evaluate.metrics.score` takes them.
        gold: With the model's own threshold where there is one.
        seed: Decides the resamples of the interval.
    """
    metric = metrics[0]
    scores = score(metrics, logits, gold)
    low, high = bootstrap(metric, logits, gold, seed=seed)
    facts = {
        "metric": metric,
        "quality": scores[metric],
        "quality_low": low,
        "quality_high": high,
        "quality_count": len(gold),
        "scores": scores,
    }
    if isinstance(gold, TagGold):
        facts["labels"] = [row.to_dict() for row in label_table(logits, gold)]
    if isinstance(gold, SpanGold) and gold.sheet.may_lack_answers:
        facts["no_answer_threshold"] = gold.threshold
    return facts
