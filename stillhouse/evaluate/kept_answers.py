"""What a model answered on dev, kept small beside its measures, so that models can be compared.

Of labels the predictions are kept, from which every metric follows; of tags and questions the sums
of each sentence or question that a metric is the ratio of. No text and no logit is kept.

Letters in names: U units (examples, sentences or questions).
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.data.metric_names import REGRESSION_METRICS, MetricName, metric_name
from stillhouse.errors import DataError, SettingsError
from stillhouse.evaluate.confusions import SetCounts, f1_ratio, pair_counts
from stillhouse.evaluate.labelling import LabelAnswers, label_metric
from stillhouse.evaluate.metrics import judge
from stillhouse.evaluate.resampling import Ratio, mean_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from stillhouse.data.answers import SpanGold, TagGold
    from stillhouse.evaluate.resampling import Scored

ANSWERS_FILE = "dev_answers.npz"
"""Name of the file beside `metrics.json`."""
_FACTS, _PREDICTIONS, _LABELS = "facts", "predictions", "labels"
_ABOVE, _BELOW = "above.", "below."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptAnswers:
    """The judged answers of one model on a dev set.

    Attributes:
        metric: The primary metric.
        dev_sha256: Fingerprint of the examples: answers with another one are not compared by pairs.
        sha256: Fingerprint of the answers: those with the same one are the same.
        judged: The answers by metric.
    """

    metric: MetricName
    dev_sha256: str
    sha256: str
    judged: Mapping[MetricName, Scored]

    def __len__(self) -> int:
        """The number of units."""
        return len(self.primary)

    @property
    def primary(self) -> Scored:
        """The answers as the primary metric judges them."""
        return self.judged[self.metric]


def pack_answers(
    metrics: Sequence[str],
    logits: ArrayLike,
    gold: ArrayLike | TagGold | SpanGold,
    *,
    dev_sha256: str,
) -> bytes:
    """Makes the content of `dev_answers.npz`.

    Args:
        metrics: Names, primary first.
        logits: As `evaluate.metrics.score` takes them.
        gold: As `evaluate.metrics.score` takes it.
        dev_sha256: Fingerprint of the dev set.

    Raises:
        SettingsError, DataError, TrainingError: As `evaluate.metrics.score`.
    """
    judged = judge(metrics, logits, gold)
    arrays: dict[str, NDArray[Any]] = {}
    for name, one in judged.items():
        if isinstance(one, LabelAnswers):
            arrays |= {_PREDICTIONS: _small(one.predictions), _LABELS: _small(one.labels)}
        else:
            assert isinstance(one, Ratio)
            arrays[f"{_ABOVE}{name}"] = _small(one.above_U)
            arrays[f"{_BELOW}{name}"] = _small(one.below_U)
    facts = json.dumps({"metrics": list(judged), "dev_sha256": dev_sha256})
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **{_FACTS: np.array(facts)}, **arrays)
    return packed.getvalue()


def read_answers(path: Path) -> KeptAnswers:
    """Reads what `pack_answers` made.

    Raises:
        DataError: If the file is damaged, or of a version that knows more.
    """
    try:
        # From memory: NumPy leaves a damaged file open.
        content = path.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        facts = json.loads(str(arrays[_FACTS]))
        names = [metric_name(name) for name in facts["metrics"]]
        judged = {name: _judged(name, arrays) for name in names}
        return KeptAnswers(
            metric=names[0],
            dev_sha256=str(facts["dev_sha256"]),
            sha256=hashlib.sha256(content).hexdigest(),
            judged=judged,
        )
    except (
        OSError, ValueError, KeyError, TypeError, IndexError, EOFError, SettingsError,
        zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise DataError(
            f"{path} holds no answers that can be read ({error}); without the file the model is "
            "compared by the interval in its metrics.json alone"
        ) from error


def _judged(name: MetricName, arrays: Mapping[str, NDArray[Any]]) -> Scored:
    if f"{_ABOVE}{name}" in arrays:
        return Ratio(above_U=arrays[f"{_ABOVE}{name}"], below_U=arrays[f"{_BELOW}{name}"])
    predictions, labels = arrays[_PREDICTIONS], arrays[_LABELS]
    if len(predictions) != len(labels) or not len(labels):
        raise ValueError(f"{len(predictions)} predictions of {len(labels)} examples")
    if name in ("accuracy", "subset_accuracy"):  # as a mean, which is drawn again much faster
        is_right = predictions == labels
        return mean_of(is_right.all(axis=1) if is_right.ndim > 1 else is_right)
    wide = np.float64 if name in REGRESSION_METRICS else np.int64
    return _counted(name, predictions.astype(wide), labels.astype(wide))


def _counted(name: MetricName, predictions: NDArray[Any], labels: NDArray[Any]) -> Scored:
    """Gives a score of labels in the form that is drawn again fastest."""
    if name in ("f1", "f1_micro"):
        return f1_ratio(predictions, labels)
    if name == "f1_macro" and labels.ndim > 1:
        return SetCounts(predictions_UC=predictions, labels_UC=labels)
    if name in ("f1_macro", "mcc"):
        return pair_counts(name, predictions, labels)
    return LabelAnswers(metric=label_metric(name), predictions=predictions, labels=labels)


def _small(values: NDArray[Any]) -> NDArray[Any]:
    """Gives the same numbers in the smallest type of whole numbers, where they are whole."""
    if values.dtype.kind == "f" and not (values == np.round(values)).all():
        return values
    least, most = values.min(initial=0), values.max(initial=0)
    kind = np.promote_types(np.min_scalar_type(int(least)), np.min_scalar_type(int(most)))
    return values.astype(kind if kind.kind in "iu" else np.int64)
