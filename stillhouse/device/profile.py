"""Files of measured latencies with the predictor that was chosen for them, of one device."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from stillhouse.device.latency import Workload
from stillhouse.device.predictor import (
    Choice,
    LatencyPredictor,
    PredictionErrors,
    fit_predictor,
)
from stillhouse.errors import DeviceError, SettingsError
from stillhouse.files import write_text_atomically

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What latencies hold for, and nothing else.

    Attributes:
        processor: Name of the processor, or of the accelerator.
        runtime: What runs the models, with its version.
        workload: What is asked of them.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    processor: str
    runtime: str
    workload: Workload

    @property
    def label(self) -> str:
        """One line for a person."""
        return f"{self.processor}, {self.runtime}, {self.workload.label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a predictor was fitted to, and which one it is.

    Attributes:
        fingerprint: What the latencies hold for.
        columns: Names of the features, in their order.
        rows: Features of the measured architectures.
        latency_ms: Of each row.
        seed: Of the folds by which the model was chosen.
        choice: The model.
        errors: Its errors in cross-validation.
        version: Of the file's form.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    fingerprint: Fingerprint
    columns: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]
    latency_ms: tuple[float, ...]
    seed: int
    choice: Choice
    errors: PredictionErrors
    version: Literal[1] = 1

    def __post_init__(self) -> None:
        """Refuses rows that do not go with the columns."""
        wide = {len(row) for row in self.rows} - {len(self.columns)}
        if wide:
            raise DeviceError(
                f"a profile of {len(self.columns)} columns has rows of {sorted(wide)} values"
            )

    def predictor(self) -> LatencyPredictor:
        """Fits the chosen model anew, which gives the same predictions to the last digit.

        Raises:
            DeviceError: If the rows are too few, or a value makes no sense.
        """
        return LatencyPredictor(
            np.array(self.rows),
            np.array(self.latency_ms),
            choice=self.choice,
            errors=self.errors,
        )

    def write(self, path: Path) -> None:
        """Writes a JSON file."""
        write_text_atomically(path, json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")


def fit_profile(
    fingerprint: Fingerprint,
    columns: Sequence[str],
    features: NDArray[np.float64],
    latency_ms: NDArray[np.float64],
    *,
    seed: int,
) -> Profile:
    """Chooses a predictor for measured latencies.

    Args:
        fingerprint: What the latencies hold for.
        columns: Names of the features.
        features: Rows by columns.
        latency_ms: Of each row, above 0.
        seed: Of the folds of the cross-validation.

    Raises:
        DeviceError: If there are fewer than 10 rows, or a value makes no sense.
    """
    predictor = fit_predictor(features, latency_ms, seed)
    return Profile(
        fingerprint=fingerprint,
        columns=tuple(columns),
        rows=tuple(tuple(row) for row in np.asarray(features, dtype=float).tolist()),
        latency_ms=tuple(np.asarray(latency_ms, dtype=float).tolist()),
        seed=seed,
        choice=predictor.choice,
        errors=predictor.errors,
    )


def read_profile(path: Path, fingerprint: Fingerprint, columns: Sequence[str]) -> Profile:
    """Reads a file that `Profile.write` wrote, for the device that it was measured on.

    Args:
        path: The file.
        fingerprint: Of this device and of what is asked of it.
        columns: Names of the features that will be asked about.

    Raises:
        DeviceError: If there is no such file, if it is none of a profile, or if it is for another
            device, workload or features.
    """
    try:
        profile = TypeAdapter(Profile).validate_json(path.read_bytes())
    except OSError as error:
        raise DeviceError(f"latency profile {path} cannot be read: {error}") from error
    except (ValidationError, SettingsError, DeviceError) as error:
        raise DeviceError(
            f"latency profile {path} is damaged or none; measure again: {error}"
        ) from error
    if profile.fingerprint != fingerprint:
        raise DeviceError(
            f"latency profile {path} is for {profile.fingerprint.label}; what is asked for is "
            f"{fingerprint.label}. Measure again for it"
        )
    if profile.columns != tuple(columns):
        raise DeviceError(
            f"latency profile {path} has other features than this version of stillhouse: "
            f"{', '.join(sorted(set(profile.columns) ^ set(columns))) or 'in another order'}. "
            "Measure again"
        )
    return profile
