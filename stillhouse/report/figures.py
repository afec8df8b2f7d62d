"""What is known of one model, teacher or student, as its files tell it."""

from __future__ import annotations

from dataclasses import dataclass

from stillhouse.report.fields import Fields, architecture_label, number, text
from stillhouse.report.shapes import Shape, read_shape

MASKED_WORDS = "masked_lm_accuracy"
"""The metric of models that have no task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is known of one finished model, teacher or student.

    Fractions are 0..1, latencies are medians in milliseconds, `quality` is on `report_set`; sizes
    are in 10⁶ bytes: what is served, the runtime's file, and the peak memory of serving. A student
    that is served in 8 bits is scored so, and has a score before it was quantised. A latency that
    was measured may have been predicted before; the error is that of the prediction, below 0 where
    it was too short.
    """

    architecture: str
    shape: Shape | None
    metric: str
    quality: float | None
    quality_low: float | None
    quality_high: float | None
    quality_count: float | None
    quality_search: float | None
    served_precision: str
    quality_before_8_bits: float | None
    latency_ms: float | None
    latency_low_ms: float | None
    latency_high_ms: float | None
    latency_128_ms: float | None
    parameters: float | None
    parameters_encoder: float | None
    flops_fraction: float | None
    size_mb: float | None
    file_mb: float | None
    memory_mb: float | None
    device: str
    workload: str
    latency_how: str
    latency_predicted_ms: float | None
    latency_predicted_error_fraction: float | None

    @property
    def report_set(self) -> str:
        """Name of what `quality` is on."""
        return report_set_of(self.metric)


def report_set_of(metric: str) -> str:
    """Name of what finished models are told on: a task's dev set, or text that was held out."""
    return "held-out text" if metric == MASKED_WORDS else "dev"


def read_figures(fields: Fields) -> Figures:
    """What a mapping tells of a model, such as its metrics.json."""
    described = fields.get("architecture")
    return Figures(
        architecture=architecture_label(described)
        if isinstance(described, dict)
        else str(described or ""),
        shape=read_shape(described),
        metric=text(fields, "metric"),
        quality=number(fields, "quality"),
        quality_low=number(fields, "quality_low"),
        quality_high=number(fields, "quality_high"),
        quality_count=number(fields, "quality_count"),
        quality_search=number(fields, "quality_search"),
        served_precision=text(fields, "served_precision"),
        quality_before_8_bits=number(fields, "quality_before_8_bits"),
        latency_ms=number(fields, "latency_ms"),
        latency_low_ms=number(fields, "latency_low_ms"),
        latency_high_ms=number(fields, "latency_high_ms"),
        latency_128_ms=number(fields, "latency_128_ms"),
        parameters=number(fields, "parameters"),
        parameters_encoder=number(fields, "parameters_encoder"),
        flops_fraction=number(fields, "flops_fraction"),
        size_mb=number(fields, "size_mb"),
        file_mb=number(fields, "file_mb"),
        memory_mb=number(fields, "memory_mb"),
        device=text(fields, "device"),
        workload=text(fields, "workload_label") or text(fields, "workload"),
        latency_how=text(fields, "latency_how"),
        latency_predicted_ms=number(fields, "latency_predicted_ms"),
        latency_predicted_error_fraction=number(fields, "latency_predicted_error_fraction"),
    )
