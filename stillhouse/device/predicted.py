"""Latencies told by a profile; what it cannot tell well, and what is finished, is measured."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig

from stillhouse.device.features import features_of
from stillhouse.device.latency import Comparison, Latency, Shape, Workload
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.profile import AnyArchitecture, Fingerprint
from stillhouse.errors import StillhouseError
from stillhouse.model.anatomy import ends_of
from stillhouse.model.chains import chain_config
from stillhouse.model.encoders import build_encoder
from stillhouse.model.students import student_config
from stillhouse.space.chain import ChainArchitecture

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from stillhouse.device.profile import Profile
    from stillhouse.device.runtimes import Runtime
    from stillhouse.space.counts import Ends

logger = logging.getLogger(__name__)

MOST_ERROR_FRACTION = 0.1
"""Standard error of a prediction over the prediction, above which an architecture is measured.

No unseen architecture of a profiled space reached it in `benchmarks.predictor`; one that differs
from all measured ones where these agree is beyond any share.
"""
_DEVIATIONS = 1.96
"""Half the width of a 95 % interval in standard errors."""


class PredictedDevice:
    """Predicts the latencies of students by a profile, and measures their teacher's.

    All milliseconds are those of the profile: whatever is measured is timed in turn with the
    profile's reference, and the ratio to it is what counts.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        beside_reference: MeasuredDevice,
        beside_teacher: MeasuredDevice,
        teacher: PreTrainedModel,
        most_error_fraction: float = MOST_ERROR_FRACTION,
    ) -> None:
        """Keeps what every comparison needs; `open_predicted` puts it together.

        Args:
            profile: Of this machine.
            beside_reference: Measures in turn with the profile's reference.
            beside_teacher: Measures in turn with the teacher.
            teacher: Of the students.
            most_error_fraction: What has a larger standard error is measured; below 0 for all.
        """
        self._profile = profile
        self._predictor = profile.predictor()
        self._beside_reference = beside_reference
        self._beside_teacher = beside_teacher
        self._teacher = teacher
        self._most_error_fraction = most_error_fraction
        self._ends = bare_ends(teacher.config)
        self._has_said_why = False

    @property
    def name(self) -> str:  # noqa: D102
        errors = self._profile.errors
        return (
            f"{self._profile.subject.fingerprint.device}, predicted from {errors.count} "
            f"measurements with a mean error of {errors.mape_fraction:.1%}"
        )

    def timing(self, model: PreTrainedModel) -> PredictedDevice:
        """Returns this device for one model, which is timed as it is, whatever is asked for."""
        return PredictedDevice(
            self._profile,
            beside_reference=self._beside_reference.timing(model),
            beside_teacher=self._beside_teacher.timing(model),
            teacher=self._teacher,
            most_error_fraction=-1.0,
        )

    def compare(self, architecture: Shape, workload: Workload) -> Comparison:
        """Predicts a student's latency, and tells it beside the teacher's.

        Its interval is that of 95 % for what a measurement would find. An architecture far from
        those of the profile is measured; under another workload all are, in turn with the teacher.

        Raises:
            DeviceError: If the family is not known, or what must be measured cannot be.
        """
        if workload != self._profile.workload:
            return self._named(self._beside_teacher.compare(architecture, workload))
        teacher = self._teacher_and_reference
        (row,) = features_of([architecture], self._ends, workload)
        predicted = self._predictor.predict(row[None])
        latency_ms = float(predicted.latency_ms[0])
        error_fraction = float(predicted.standard_error_ms[0]) / latency_ms
        if error_fraction > self._most_error_fraction:
            self._say_why(architecture, error_fraction)
            return self._measured(architecture, workload)
        half_width = _DEVIATIONS * error_fraction
        student = Latency(
            median_ms=latency_ms,
            low_ms=latency_ms * (1 - half_width),
            high_ms=latency_ms * (1 + half_width),
            p10_ms=latency_ms,
            p90_ms=latency_ms,
            runs=0,
            how="predicted",
            device=self.name,
            workload=workload,
        )
        noise_fraction = math.hypot(half_width, teacher.noise_fraction)
        return Comparison(student=student, teacher=teacher.student, noise_fraction=noise_fraction)

    def compare_finished(self, architecture: Shape, workload: Workload) -> Comparison:
        """Measures a student that others were chosen against, and keeps what was predicted of it.

        A student that took hours is not lost where that fails: its prediction stays, and a warning
        says why.

        Raises:
            DeviceError: As `compare` does.
        """
        known = self.compare(architecture, workload)
        if known.student.how != "predicted":
            return known
        try:
            measured = self._measured(architecture, workload)
        except (StillhouseError, OSError, RuntimeError, MemoryError) as error:
            logger.warning(
                "the latency of %s stays predicted, for it cannot be measured: %s",
                architecture.key,
                error,
            )
            return known
        return replace(measured, predicted=known.student)

    def peak_memory_mb(self, architecture: Shape, workload: Workload) -> float:
        """Measures the memory of a student, which a profile does not tell.

        A student that has just been timed has its file still, beside the reference.
        """
        return self._beside_reference.peak_memory_mb(architecture, workload)

    def _measured(self, architecture: Shape, workload: Workload) -> Comparison:
        """Times a student in turn with the reference, as the teacher was, and tells both."""
        measured = self._in_profile_ms(self._beside_reference.compare(architecture, workload))
        return replace(measured, teacher=self._teacher_and_reference.student)

    @cached_property
    def _teacher_and_reference(self) -> Comparison:
        """The teacher in the student's place, the profile's reference in the teacher's."""
        reference = self._profile.reference_architecture()
        timed = self._beside_reference.timing(self._teacher)
        return self._in_profile_ms(timed.compare(reference, self._profile.workload))

    def _in_profile_ms(self, comparison: Comparison) -> Comparison:
        """Tells a measurement beside the reference in the milliseconds of the profile."""
        factor = self._profile.reference_ms / comparison.teacher.median_ms
        student, reference = (
            replace(
                one,
                median_ms=factor * one.median_ms,
                low_ms=factor * one.low_ms,
                high_ms=factor * one.high_ms,
                p10_ms=factor * one.p10_ms,
                p90_ms=factor * one.p90_ms,
            )
            for one in (comparison.student, comparison.teacher)
        )
        return self._named(replace(comparison, student=student, teacher=reference))

    def _named(self, comparison: Comparison) -> Comparison:
        student, other = (
            replace(one, device=self.name) for one in (comparison.student, comparison.teacher)
        )
        return replace(comparison, student=student, teacher=other)

    def _say_why(self, architecture: Shape, error_fraction: float) -> None:
        """Tells once that predictions are not used; a search would only seem slow."""
        if self._has_said_why or self._most_error_fraction < 0:
            return
        self._has_said_why = True
        known = f"to ± {error_fraction:.0%}" if math.isfinite(error_fraction) else "not at all"
        logger.warning(
            "%s is measured, and so are others like it: the profile of %s in the proportions of "
            "%s tells its latency %s (standard error; ± %.0f %% is wanted). Profile the space that "
            "is searched, with its teacher",
            architecture.key,
            self._profile.subject.space,
            self._profile.subject.teacher,
            known,
            100 * self._most_error_fraction,
        )


def open_predicted(
    profile: Profile,
    path: Path,
    runtime: Runtime,
    *,
    teacher: PreTrainedModel,
    build: Callable[[Any], PreTrainedModel],
    longest_s: float = 3.0,
) -> PredictedDevice:
    """Makes a device of a profile that was measured on this machine.

    Args:
        profile: What is known.
        path: Where it is, for messages.
        runtime: What runs models here.
        teacher: Of the students; it gives them what is beside their layers.
        build: Makes a student of an architecture, where one must be measured.
        longest_s: Time after which one measurement ends even if its interval is still wide.

    Raises:
        DeviceError: If the profile is of another processor or version of the runtime.
    """
    profile.check_holds_for(Fingerprint(device=runtime.name, workload=profile.workload), path)
    config = AutoConfig.for_model(**profile.subject.config)
    reference = build_profiled(profile.reference_architecture(), config)
    beside_reference, beside_teacher = (
        MeasuredDevice(runtime, teacher=model, build=build, longest_s=longest_s)
        for model in (reference, teacher)
    )
    return PredictedDevice(
        profile,
        beside_reference=beside_reference,
        beside_teacher=beside_teacher,
        teacher=teacher,
    )


def bare_ends(teacher: PreTrainedConfig) -> Ends:
    """Returns what is predicted beside the layers: no projection onto outputs, of one token."""
    return replace(ends_of(teacher), labels=0)


def build_profiled(architecture: AnyArchitecture, teacher: PreTrainedConfig) -> PreTrainedModel:
    """Builds a model as profiles measure it: a bare encoder with fresh weights.

    Args:
        architecture: Of any family.
        teacher: Configuration with everything that is not shape.

    Raises:
        TeacherError: If no student of that family goes with the teacher.
    """
    if isinstance(architecture, ChainArchitecture):
        return build_encoder(chain_config(architecture, teacher), seed=0)
    return build_encoder(student_config(architecture, teacher), seed=0)
