"""Files of measured latencies with the predictor that was chosen for them, of one device."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from stillhouse.device.features import FEATURES
from stillhouse.device.kinds import MeasuredKind
from stillhouse.device.latency import Workload
from stillhouse.device.predictor import (
    Choice,
    LatencyPredictor,
    PredictionErrors,
    fit_predictor,
)
from stillhouse.errors import DeviceError, SettingsError
from stillhouse.files import write_text_atomically
from stillhouse.space.architecture import Architecture, architecture_from_dict
from stillhouse.space.chain import ChainArchitecture, chain_from_dict

AnyArchitecture: TypeAlias = Architecture | ChainArchitecture

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What latencies hold for, and nothing else.

    Attributes:
        device: Chip and program with its version, as a runtime's name tells them.
        workload: What is asked of them.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    device: str
    workload: Workload

    @property
    def label(self) -> str:
        """One line for a person."""
        return f"{self.device}, {self.workload.label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a profile is of; two of the same subject have the same architectures.

    Attributes:
        kind: Of device, one that is measured.
        fingerprint: What the latencies hold for.
        space: Name of the space that the architectures are from.
        teacher: Whose proportions the space has: a name, for people.
        config: The teacher's configuration, which the measured models were built after.
        points: Architectures to measure.
        seed: Of their choice, and of the folds by which the model was chosen.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    kind: MeasuredKind
    fingerprint: Fingerprint
    space: str
    teacher: str
    config: dict[str, Any]
    points: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measured architecture.

    Attributes:
        architecture: Its key.
        latency_ms: Its latency: its ratio to the reference's, times `Profile.reference_ms`.
        features: As in `Profile.columns`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    architecture: str
    latency_ms: float
    features: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a predictor was fitted to, and which one it is.

    Attributes:
        subject: What was measured, and what it holds for.
        reference: The architecture that every other one was timed in turn with, as plain data.
        reference_ms: Its latency, the median over all of these timings.
        columns: Names of the features, in their order.
        rows: The measured architectures.
        choice: The model.
        errors: Its errors in cross-validation.
        noise_fraction: Half-width of the 95 % interval of a measured ratio over it, the median.
        cost_s: Seconds that the measurements took.
        version: Of the file's form.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    subject: Subject
    reference: dict[str, Any]
    reference_ms: float
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    choice: Choice
    errors: PredictionErrors
    noise_fraction: float
    cost_s: float
    version: Literal[1] = 1

    def __post_init__(self) -> None:
        """Refuses rows that do not go with the columns."""
        wide = {len(row.features) for row in self.rows} - {len(self.columns)}
        if wide:
            raise DeviceError(
                f"a profile of {len(self.columns)} columns has rows of {sorted(wide)} values"
            )

    @property
    def workload(self) -> Workload:
        """What the latencies are told for."""
        return self.subject.fingerprint.workload

    def reference_architecture(self) -> AnyArchitecture:
        """Reads the reference.

        Raises:
            SpaceError: If it is none of an architecture.
        """
        return read_architecture(self.reference)

    def predictor(self) -> LatencyPredictor:
        """Fits the chosen model anew, which gives the same predictions to the last digit.

        Raises:
            DeviceError: If the rows are too few, or a value makes no sense.
        """
        return LatencyPredictor(
            np.array([row.features for row in self.rows]),
            np.array([row.latency_ms for row in self.rows]),
            choice=self.choice,
            errors=self.errors,
        )

    def check_holds_for(self, fingerprint: Fingerprint, path: Path) -> None:
        """Refuses another device or workload than the latencies are for.

        Args:
            fingerprint: Of this device and of what is asked of it.
            path: Where the profile is, for the message.

        Raises:
            DeviceError: If it is another one; it names both.
        """
        if self.subject.fingerprint != fingerprint:
            raise DeviceError(
                f"latency profile {path} is for {self.subject.fingerprint.label}; what is asked "
                f"for is {fingerprint.label}. Measure again for it, with stillhouse profile"
            )

    def write(self, path: Path) -> None:
        """Writes a JSON file."""
        write_text_atomically(path, json.dumps(asdict(self), indent=1, allow_nan=False) + "\n")


def fit_profile(
    subject: Subject,
    *,
    reference: Mapping[str, Any],
    reference_ms: float,
    rows: Sequence[Row],
    noise_fraction: float,
    cost_s: float,
) -> Profile:
    """Chooses a predictor for measured latencies.

    Args:
        subject: What was measured.
        reference: The architecture that the others were timed with, as plain data.
        reference_ms: Its latency.
        rows: The measured architectures, their features as `FEATURES` names them.
        noise_fraction: Half-width of the 95 % interval of a ratio over it, the median.
        cost_s: Seconds that the measurements took.

    Raises:
        DeviceError: If there are fewer than 10 rows, or a value makes no sense.
    """
    predictor = fit_predictor(
        np.array([row.features for row in rows]),
        np.array([row.latency_ms for row in rows]),
        subject.seed,
    )
    return Profile(
        subject=subject,
        reference=dict(reference),
        reference_ms=reference_ms,
        columns=FEATURES,
        rows=tuple(rows),
        choice=predictor.choice,
        errors=predictor.errors,
        noise_fraction=noise_fraction,
        cost_s=cost_s,
    )


def read_profile(path: Path) -> Profile:
    """Reads a file that `Profile.write` wrote.

    Raises:
        DeviceError: If there is no such file, if it is none of a profile, or if it has other
            features than this version tells.
    """
    try:
        profile = TypeAdapter(Profile).validate_json(path.read_bytes())
    except OSError as error:
        raise DeviceError(f"latency profile {path} cannot be read: {error}") from error
    except (ValidationError, SettingsError, DeviceError) as error:
        raise DeviceError(
            f"latency profile {path} is damaged or none; measure again: {error}"
        ) from error
    if profile.columns != FEATURES:
        raise DeviceError(
            f"latency profile {path} has other features than this version of stillhouse: "
            f"{', '.join(sorted(set(profile.columns) ^ set(FEATURES))) or 'in another order'}. "
            "Measure again"
        )
    return profile


def read_architecture(data: Mapping[str, Any]) -> AnyArchitecture:
    """Builds the architecture of any family that its `to_dict` described.

    Raises:
        SpaceError: If it describes none.
    """
    if data.get("family") == ChainArchitecture.family:
        return chain_from_dict(data)
    return architecture_from_dict(data)
