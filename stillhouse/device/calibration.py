"""Fitting predicted latencies to a few measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from stillhouse.errors import DeviceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A line from predictions to milliseconds.

    Attributes:
        scale: Milliseconds for each unit of the prediction, not negative.
        overhead_ms: Time of a pass that does not depend on the prediction, not negative.
    """

    scale: float
    overhead_ms: float

    def apply(self, predicted: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Turns predictions into milliseconds."""
        return self.scale * np.asarray(predicted, dtype=np.float64) + self.overhead_ms


def calibrate(
    predicted: Sequence[float] | NDArray[np.float64],
    measured_ms: Sequence[float] | NDArray[np.float64],
) -> Calibration:
    """Finds the line whose relative errors have the least squares.

    Args:
        predicted: At least two different ones, in milliseconds or in any unit, such as FLOPs.
        measured_ms: The latency of each, above 0.

    Raises:
        DeviceError: If predictions do not differ, or a latency is not above 0.
    """
    known, wanted = np.asarray(predicted, float), np.asarray(measured_ms, float)
    if len(np.unique(known)) < 2:  # noqa: PLR2004  two parameters
        raise DeviceError(f"calibration needs at least 2 different predictions, got {known}")
    if not (wanted > 0).all():
        raise DeviceError(f"calibration needs latencies above 0, got {wanted}")
    unit = np.abs(known).max()  # FLOPs and ones in a matrix would lose digits
    design = np.stack([known / unit, np.ones_like(known)], axis=1) / wanted[:, None]
    (scale, overhead_ms), _ = nnls(design, np.ones_like(wanted))
    return Calibration(scale=float(scale / unit), overhead_ms=float(overhead_ms))
