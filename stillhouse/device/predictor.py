"""Latencies predicted from a few measured ones, with an error that is known from these."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from stillhouse.errors import DeviceError

Kind: TypeAlias = Literal["linear", "sum", "process"]
"""The simplest first: a linear model, a process on what it leaves, a process alone."""
Array: TypeAlias = NDArray[np.float64]

LEAST_ROWS = 10
FOLDS = 5
RIDGES = (0.003, 0.03, 0.3)
"""Penalties of standardised columns, for latencies around 1."""

_HUBER = 1.345 * 1.4826
"""Times the median error: where Huber's loss turns linear, 95 % efficient under normal errors."""
_ROUNDS = 20
_LEAST_ERROR_FRACTION = 1e-6
_NO_MATTER_FRACTION = 0.002
"""Of a latency: a difference in error that no measurement could show."""
_EQUAL_FRACTION = 1e-9
_LEAST_LATENCY_FRACTION = 0.1
"""Of the shortest measured latency: no prediction is below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which model predicts.

    Attributes:
        kind: The model.
        ridge: Penalty of its linear part, and of the part that tells how far a prediction is from
            the measured rows.
    """

    kind: Kind
    ridge: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionErrors:
    """How predictions compare with latencies that they were not fitted to.

    Attributes:
        mape_fraction: Mean of the absolute relative errors.
        p95_fraction: 95th percentile of them.
        rms_fraction: Root of the mean squared relative error.
        spearman: Rank correlation; 0 where all predictions or all latencies are the same.
        count: Rows.
    """

    mape_fraction: float
    p95_fraction: float
    rms_fraction: float
    spearman: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Predicted latencies, one for each row that was asked for.

    Attributes:
        latency_ms: The latencies.
        standard_error_ms: Of each; it grows with the distance from the measured rows.
    """

    latency_ms: Array
    standard_error_ms: Array


class LatencyPredictor:
    """A model of latencies that was fitted to measured ones.

    Relative errors count, and large ones count less than their square (Huber's loss): a busy
    machine makes some measurements much too long, and these must not bend the rest.

    Attributes:
        choice: The model.
        errors: Its errors in cross-validation over the measured rows. The model is the best of a
            few by the same figures, so that they are a little too good.
    """

    def __init__(
        self, features: Array, latency_ms: Array, *, choice: Choice, errors: PredictionErrors
    ) -> None:
        """Fits the chosen model to all rows; use `fit_predictor` where it is not chosen yet.

        Args:
            features: Rows by columns.
            latency_ms: Of each row, above 0.
            choice: The model.
            errors: As cross-validation told them.

        Raises:
            DeviceError: If there are fewer than 10 rows, or a value makes no sense.
        """
        features, latency_ms = _checked(features, latency_ms)
        self.choice = choice
        self.errors = errors
        self._scaling = _Scaling.of(features)
        scaled = self._scaling.apply(features)
        self._predict = _fit(scaled, latency_ms, choice)
        design = _with_ones(scaled)
        penalty = max(choice.ridge, min(RIDGES)) * np.eye(design.shape[1])
        self._spread = np.linalg.inv(design.T @ design + penalty)
        self._mean_leverage = float(self._leverage(scaled).mean())

    def predict(self, features: Array) -> Prediction:
        """Predicts latencies.

        The standard error is that of a new measurement. In the mean over the measured rows it is as
        in cross-validation; a row far from them has more. It is infinite for a row with another
        value in a column where all measured rows have the same: what that costs is not known.

        Args:
            features: Rows by the columns that the model was fitted to.

        Raises:
            DeviceError: If there are other columns, or a value is not finite.
        """
        features = _finite(features)
        if features.shape[1] != self._scaling.columns:
            raise DeviceError(
                f"a predictor needs the {self._scaling.columns} columns that it was fitted to, got "
                f"{features.shape[1]}"
            )
        scaled = self._scaling.apply(features)
        latency_ms = self._predict(scaled)
        widening = np.sqrt((1 + self._leverage(scaled)) / (1 + self._mean_leverage))
        standard_error_ms = latency_ms * self.errors.rms_fraction * widening
        standard_error_ms[self._scaling.leaves_equal_columns(features)] = np.inf
        return Prediction(latency_ms=latency_ms, standard_error_ms=standard_error_ms)

    def _leverage(self, scaled: Array) -> Array:
        design = _with_ones(scaled)
        leverage: Array = np.einsum("ij,jk,ik->i", design, self._spread, design)
        return leverage


def fit_predictor(features: Array, latency_ms: Array, seed: int) -> LatencyPredictor:
    """Chooses a model by cross-validation inside the given rows, and fits it to all of them.

    It is the simplest one whose mean error is not above the best's by more than 0.2 % of a latency,
    or than the standard error of their difference, row by row.

    Args:
        features: Rows by columns; equal columns in all rows are of no use and do no harm.
        latency_ms: Of each row, above 0.
        seed: Of the folds; everything else is deterministic.

    Raises:
        DeviceError: If there are fewer than 10 rows, or a value makes no sense.
    """
    features, latency_ms = _checked(features, latency_ms)
    folds = [
        (np.asarray(kept), np.asarray(left_out))
        for kept, left_out in KFold(FOLDS, shuffle=True, random_state=seed).split(features)
    ]

    def left_out_ms(choice: Choice) -> Array:
        predicted_ms = np.empty_like(latency_ms)
        for kept, left_out in folds:
            scaling = _Scaling.of(features[kept])
            model = _fit(scaling.apply(features[kept]), latency_ms[kept], choice)
            predicted_ms[left_out] = model(scaling.apply(features[left_out]))
        return predicted_ms

    linear = {ridge: left_out_ms(Choice(kind="linear", ridge=ridge)) for ridge in RIDGES}
    ridge = min(linear, key=lambda one: _mape(linear[one], latency_ms))
    predicted_ms = {Choice(kind="linear", ridge=ridge): linear[ridge]}
    kinds: tuple[Kind, ...] = ("sum", "process")
    for kind in kinds:
        choice = Choice(kind=kind, ridge=ridge)
        predicted_ms[choice] = left_out_ms(choice)
    choice = _simplest_of_the_best(predicted_ms, latency_ms)
    errors = errors_of(predicted_ms[choice], latency_ms)
    return LatencyPredictor(features, latency_ms, choice=choice, errors=errors)


def errors_of(predicted_ms: Array, latency_ms: Array) -> PredictionErrors:
    """Compares predictions with measured latencies.

    Args:
        predicted_ms: One for each latency.
        latency_ms: Above 0.
    """
    errors = predicted_ms / latency_ms - 1
    is_ranked = min(np.ptp(predicted_ms), np.ptp(latency_ms)) > 0
    return PredictionErrors(
        mape_fraction=float(np.abs(errors).mean()),
        p95_fraction=float(np.quantile(np.abs(errors), 0.95)),
        rms_fraction=float(np.sqrt((errors**2).mean())),
        spearman=float(stats.spearmanr(predicted_ms, latency_ms)[0]) if is_ranked else 0.0,
        count=len(latency_ms),
    )


def choose_points(features: Array, count: int, seed: int) -> list[int]:
    """Chooses which rows of a table to measure, so that a predictor learns most from them.

    The first half are drawn. Then follows, one by one, the row about which a linear model of those
    before is least certain (greedy D-optimality): most of these lie at the border of what there is.
    A line does a little better on them alone, but what is curved would go unseen inside, and so
    would the error that a user meets there.

    Args:
        features: Rows by columns.
        count: How many to choose, at most as many as there are rows.
        seed: Of the drawn half.

    Returns:
        Different row numbers, in the order of choice.

    Raises:
        DeviceError: If there are fewer rows than `count`, or `count` is below 1.
    """
    features = _finite(features)
    if not 1 <= count <= len(features):
        raise DeviceError(f"1 to {len(features)} points can be chosen of as many, got {count}")
    design = _with_ones(_Scaling.of(features).apply(features))
    drawn = np.random.default_rng(seed).permutation(len(design))[: (count + 1) // 2]
    chosen = [int(row) for row in drawn]
    spread = np.linalg.inv(design[drawn].T @ design[drawn] + np.eye(design.shape[1]))
    is_left = np.ones(len(design), dtype=bool)
    is_left[drawn] = False
    while len(chosen) < count:
        leverage = np.einsum("ij,jk,ik->i", design, spread, design)
        row = int(np.argmax(np.where(is_left, leverage, -np.inf)))
        chosen.append(row)
        is_left[row] = False
        along = spread @ design[row]
        spread -= np.outer(along, along) / (1 + leverage[row])  # Sherman and Morrison
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scaling:
    """Brings columns to mean 0 and deviation 1; a column of equal values becomes 0."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, features: Array) -> _Scaling:
        deviation = features.std(axis=0)
        mean = features.mean(axis=0)
        is_equal = deviation <= _EQUAL_FRACTION * np.abs(mean)
        return cls(mean=mean, deviation=np.where(is_equal, np.inf, deviation))

    @property
    def columns(self) -> int:
        return len(self.mean)

    def leaves_equal_columns(self, features: Array) -> NDArray[np.bool_]:
        is_equal = np.isinf(self.deviation)
        differs = np.abs(features - self.mean) > _EQUAL_FRACTION * np.abs(self.mean)
        return np.asarray(differs[:, is_equal].any(axis=1))

    def apply(self, features: Array) -> Array:
        scaled: Array = (features - self.mean) / self.deviation
        return scaled


_Model: TypeAlias = Callable[[Array], Array]


def _fit(scaled: Array, latency_ms: Array, choice: Choice) -> _Model:
    """Fits a model; it turns rows of scaled features into milliseconds."""
    least_ms = _LEAST_LATENCY_FRACTION * latency_ms.min()
    match choice.kind:
        case "linear":
            model = _fit_linear(scaled, latency_ms, choice.ridge, least_ms)
        case "process":
            logarithm = _fit_process(scaled, np.log(latency_ms))

            def model(rows: Array) -> Array:
                return np.exp(logarithm(rows))

        case "sum":
            line = _fit_linear(scaled, latency_ms, choice.ridge, least_ms)
            rest = _fit_process(scaled, latency_ms / line(scaled) - 1)

            def model(rows: Array) -> Array:
                return line(rows) * (1 + rest(rows))

    return lambda rows: np.maximum(model(rows), least_ms)


def _fit_linear(scaled: Array, latency_ms: Array, ridge: float, least_ms: float) -> _Model:
    """Fits a line to relative errors by Huber's loss, which is least squares weighted anew."""
    unit_ms = float(np.exp(np.log(latency_ms).mean()))
    wanted = latency_ms / unit_ms
    line = Ridge(alpha=ridge, solver="svd")  # the one that bears columns that follow each other
    weights = np.ones_like(wanted)
    for _ in range(_ROUNDS):
        line.fit(scaled, wanted, sample_weight=weights / wanted**2)
        errors = np.abs(line.predict(scaled) / wanted - 1)
        weights = np.minimum(1, _bound(errors) / np.maximum(errors, _LEAST_ERROR_FRACTION))
    return lambda rows: np.maximum(unit_ms * line.predict(rows), least_ms)


def _fit_process(scaled: Array, wanted: Array) -> _Model:
    """Fits a Gaussian process, then once more with what lies far from it drawn near."""
    first = _process(scaled, wanted)
    rest = wanted - first.predict(scaled)
    bound = _bound(np.abs(rest))
    second = _process(scaled, wanted - rest + np.clip(rest, -bound, bound))
    return lambda rows: np.asarray(second.predict(rows), dtype=np.float64)


def _process(scaled: Array, wanted: Array) -> GaussianProcessRegressor:
    kernel = ConstantKernel(1.0, (1e-3, 1e4)) * RBF(3.0, (0.3, 1e3)) + WhiteKernel(0.1, (1e-6, 1.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True)
    with warnings.catch_warnings():
        # A parameter at its bound is an answer: no noise, no effect.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return process.fit(scaled, wanted)


def _bound(errors: Array) -> float:
    return max(_HUBER * float(np.median(errors)), _LEAST_ERROR_FRACTION)


def _simplest_of_the_best(predicted_ms: dict[Choice, Array], latency_ms: Array) -> Choice:
    errors = {choice: np.abs(ms / latency_ms - 1) for choice, ms in predicted_ms.items()}
    best = min(errors, key=lambda choice: float(errors[choice].mean()))
    for choice, one in errors.items():
        more = one - errors[best]
        if more.mean() <= max(more.std(ddof=1) / np.sqrt(len(more)), _NO_MATTER_FRACTION):
            return choice
    return best


def _mape(predicted_ms: Array, latency_ms: Array) -> float:
    return float(np.abs(predicted_ms / latency_ms - 1).mean())


def _with_ones(scaled: Array) -> Array:
    return np.column_stack([np.ones(len(scaled)), scaled])


def _finite(features: Array | Sequence[Sequence[float]]) -> Array:
    table = np.asarray(features, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():  # noqa: PLR2004  rows by columns
        raise DeviceError(
            f"features must be finite numbers, rows by columns, got the shape {table.shape}"
        )
    return table


def _checked(features: Array, latency_ms: Array) -> tuple[Array, Array]:
    table, wanted = _finite(features), np.asarray(latency_ms, dtype=np.float64)
    if len(table) < LEAST_ROWS or wanted.shape != (len(table),):
        raise DeviceError(
            f"a predictor needs at least {LEAST_ROWS} rows, each with its latency, got "
            f"{len(table)} rows and {wanted.size} latencies; measure more architectures"
        )
    if not (np.isfinite(wanted) & (wanted > 0)).all():
        raise DeviceError(f"a predictor needs latencies above 0, got {wanted.min()}")
    return table, wanted
