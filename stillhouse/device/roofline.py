"""Latency from data sheets: a roofline model of chips that need not be at hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stillhouse.device.chips import Chip, ToldPrecision
from stillhouse.device.latency import Comparison, Latency, Shape, Workload, no_memory, told
from stillhouse.device.work import Operation, Product, operations_of
from stillhouse.errors import DeviceError
from stillhouse.model.anatomy import architecture_of, ends_of, usable_positions

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from stillhouse.data.metric_names import TaskKind
    from stillhouse.space.counts import Ends

_BYTES: dict[ToldPrecision, int] = {"float32": 4, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineDevice:
    """A chip that is known by its data sheet.

    A latency is that of `pass_ms`. It has no spread, and it leaves out whatever the data sheet does
    not tell: compare its figures with each other, not with measured ones.

    Attributes:
        chip: The data sheet.
        teacher: Shape of the teacher, which is told by the same model.
        ends: Embeddings and head of teacher and students; those of chains are as wide as they say.
        positions: Tokens that teacher and students can read at once.
    """

    chip: Chip
    teacher: Shape
    ends: Ends
    positions: int

    @property
    def name(self) -> str:  # noqa: D102
        return f"{self.chip.label} (analytic)"

    def compare(self, architecture: Shape, workload: Workload) -> Comparison:  # noqa: D102
        return Comparison(
            student=self._tell(architecture, workload), teacher=self._tell(self.teacher, workload)
        )

    def peak_memory_mb(self, architecture: Shape, workload: Workload) -> float:  # noqa: D102
        raise no_memory(f"the data sheet of {self.chip.label}", architecture, workload)

    def _tell(self, architecture: Shape, workload: Workload) -> Latency:
        if workload.length > self.positions:
            raise DeviceError(
                f"workload length {workload.length} is above the model's {self.positions} "
                "positions; set device.length lower"
            )
        ms = pass_ms(
            operations_of(architecture, self.ends, workload),
            self.chip.with_threads(workload.threads),
            workload.precision,
        )
        return told(ms, how="analytic", device=self.name, workload=workload)


def roofline_device(
    chip: Chip, config: PreTrainedConfig, *, bare: bool, task: TaskKind = "classes"
) -> RooflineDevice:
    """Makes the device of a chip for students of a teacher.

    Args:
        chip: The data sheet.
        config: The teacher's.
        bare: Leaves out the projection onto the outputs, in teacher and students.
        task: What the outputs are.
    """
    ends = ends_of(config, task)
    return RooflineDevice(
        chip=chip,
        teacher=architecture_of(config),
        ends=replace(ends, labels=0) if bare else ends,
        positions=usable_positions(config),
    )


def pass_ms(operations: Sequence[Operation], chip: Chip, precision: ToldPrecision) -> float:
    """Sums up the operations of one forward pass; none of them overlaps another.

    An operation takes the longer of its arithmetic and its traffic, and its launch:

    - Arithmetic is matrix products at the peak of the precision plus element-wise work at that of
      the vector units. A product is cut into tiles of the chip: its depth is rounded up to whole
      tiles, and as each tile of the result keeps one unit busy, their number to a multiple of the
      units.
    - Traffic is what goes through main memory. *Weights* stay on the chip where it keeps them from
      pass to pass and those of the whole network fit there together; else all of them are read in
      every pass. *Activations*, both what an operation reads and what it writes, stay on the chip
      where those of the operation fit there together, beside the weights that stay; else all of
      them are traffic. Either is all or nothing.
    - Where a chip fuses, element-wise operations have no launch of their own and move no
      activations: they are done as part of the operation before.

    Weights and activations are as wide as the precision says, 1, 2 or 4 bytes.

    Source: Williams et al., Roofline, CACM 2009, per operation; padding as NVIDIA's Matrix
    Multiplication guide describes tile and wave quantisation.

    Raises:
        DeviceError: If the chip does not have the precision.
    """
    if precision not in chip.peak_tflops:
        raise DeviceError(
            f"{chip.label} has no {precision} arithmetic; set device.precision to one of "
            f"{', '.join(chip.peak_tflops)}"
        )
    kept_bytes = _kept_bytes(operations, chip, precision)
    return 1e3 * sum(
        operation_s(operation, chip, precision, kept_bytes=kept_bytes) for operation in operations
    )


def operation_s(
    operation: Operation, chip: Chip, precision: ToldPrecision, *, kept_bytes: int
) -> float:
    """Tells the seconds of one operation by the rules of `pass_ms`.

    Args:
        operation: What is done.
        chip: What does it.
        precision: One that the chip has.
        kept_bytes: Weights of the whole network that stay on the chip; 0 where none do.
    """
    is_fused = chip.fuses and operation.is_elementwise
    peak = chip.peak_tflops[precision] * 1e12
    matrix_s = sum(padded_flops(product, chip) for product in operation.products) / peak
    vector_s = operation.vector_flops / (chip.vector_tflops * 1e12)
    activations = 0 if is_fused else operation.activations * _BYTES[precision]
    stay = kept_bytes + activations <= chip.on_chip_mb * 1e6
    weights = 0 if kept_bytes else operation.weights * _BYTES[precision]
    traffic_s = (weights + (0 if stay else activations)) / (chip.bandwidth_gb_s * 1e9)
    launch_s = 0.0 if is_fused else chip.launch_us * 1e-6
    return max(matrix_s + vector_s, traffic_s) + launch_s


def padded_flops(product: Product, chip: Chip) -> int:
    """Counts the operations that the chip's units could have done in the time of a product."""
    rows, columns, depth = chip.tile
    tiles = product.count * math.ceil(product.rows / rows) * math.ceil(product.columns / columns)
    waves = math.ceil(tiles / chip.units)
    tile = Product(rows=rows, columns=columns, depth=math.ceil(product.depth / depth) * depth)
    return waves * chip.units * tile.flops


def _kept_bytes(operations: Sequence[Operation], chip: Chip, precision: ToldPrecision) -> int:
    weights = sum(operation.weights for operation in operations) * _BYTES[precision]
    fit = weights <= chip.on_chip_mb * 1e6
    return weights if chip.keeps_weights and fit else 0
