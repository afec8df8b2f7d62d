"""The table of blocks as selection reads it: sums of losses and costs of complete chains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.device.latency import Comparison, told
from stillhouse.errors import LimitError
from stillhouse.model.anatomy import architecture_of, ends_of
from stillhouse.recipe.limits import ROUNDING, Weighed, bytes_per_parameter
from stillhouse.search.table_selection import BlockTable, nearest, select_lowest
from stillhouse.space.chain_counts import (
    bridge_flops,
    bridge_parameters,
    count_chain_flops,
    count_chain_parameters,
)
from stillhouse.space.counts import count_flops
from stillhouse.space.nas_bert import embedding_size_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stillhouse.device.operations import OperationTable
    from stillhouse.recipe.chain_nursery import ChainNursery, ChainSetup
    from stillhouse.recipe.chain_rows import BlockRow
    from stillhouse.run.device_settings import LimitSettings
    from stillhouse.space.chain import ChainArchitecture

_PARAMETERS, _LATENCY, _FLOPS = range(3)
_COSTS = ("M parameters", "ms", "of the teacher's FLOPs")


class ChainTable:
    """The table of blocks as selection reads it: for one width of the embeddings at a time."""

    def __init__(
        self,
        setup: ChainSetup | ChainNursery,
        operations: OperationTable,
        rows: Sequence[BlockRow],
    ) -> None:
        """Keeps the parts."""
        self._setup, self._operations = setup, operations
        self._ends = replace(ends_of(setup.teacher.encoder.model.config), labels=0)
        self._by_place: list[list[BlockRow]] = [[] for _ in range(setup.space.blocks)]
        for row in rows:
            self._by_place[row.place].append(row)

    @property
    def teacher_ms(self) -> float:
        """Latency of the teacher when the operations were measured."""
        return self._operations.teacher_ms

    @cached_property
    def teacher_flops(self) -> int:
        """Operations of the teacher at the workload's length."""
        teacher = architecture_of(self._setup.teacher.encoder.model.config)
        return count_flops(teacher, self._ends, length=self._setup.workload.length)

    def embedding_sizes(
        self, limits: LimitSettings, most_parameters: float = math.inf
    ) -> list[int]:
        """Tells the widths of the embeddings that a budget allows, the wanted one first.

        It is that of `embedding_size_for`; narrower ones are there in case nothing is left for the
        blocks.
        """
        most = self._bounds(limits, most_parameters)[_PARAMETERS]
        wanted = embedding_size_for(
            self._setup.space,
            vocab_size=self._ends.vocab_size,
            params_limit=None if math.isinf(most) else int(most),
        )
        sizes = self._setup.space.embedding_sizes
        return sorted((size for size in sizes if size <= wanted), reverse=True)

    def select(
        self, limits: LimitSettings, count: int, most_parameters: float = math.inf
    ) -> list[tuple[ChainArchitecture, float]]:
        """Returns the chains of the lowest summed loss within a budget, and that loss.

        All have embeddings of one width, the first of `embedding_sizes` that leaves any chain.

        Args:
            limits: The budget; memory, which no sum tells, is left out.
            count: Most chains.
            most_parameters: Bound on the parameters beside the budget's own.

        Raises:
            LimitError: If none is within it; it names the nearest.
        """
        sizes = self.embedding_sizes(limits, most_parameters)
        for embedding_size in sizes:
            given = self._arguments(embedding_size, self._bounds(limits, most_parameters))
            selected = select_lowest(self._tables, **given, count=count)
            if len(selected.losses):
                return [
                    (self._architecture(row, embedding_size), float(loss))
                    for row, loss in zip(selected.rows, selected.losses, strict=True)
                ]
        raise LimitError(self._why_none(sizes, limits, most_parameters))

    def parameters(self, architecture: ChainArchitecture) -> int:
        """Counts all parameters of an encoder with its pooler."""
        return count_chain_parameters(architecture, self._ends).total

    def flops(self, architecture: ChainArchitecture) -> int:
        """Counts its operations at the workload's length."""
        length = self._setup.workload.length
        return count_chain_flops(architecture, self._ends, length=length)

    def weighed(self, architecture: ChainArchitecture, comparison: Comparison) -> Weighed:
        """Tells the costs of a chain whose latency is known."""
        return Weighed(
            parameters=self.parameters(architecture),
            flops_fraction=self.flops(architecture) / self.teacher_flops,
            precision=self._setup.workload.precision,
            comparison=comparison,
        )

    def predicted(self, architecture: ChainArchitecture) -> Comparison:
        """Tells the latency as the sum of the operations', for a device that knows no more."""
        times_ms = self._operations.chain_ms(architecture), self.teacher_ms
        device, workload = self._setup.device.name, self._setup.workload
        student, teacher = (
            told(ms, how="table", device=device, workload=workload) for ms in times_ms
        )
        return Comparison(student=student, teacher=teacher)

    def smallest(self) -> ChainArchitecture:
        """Returns the chain of the fewest parameters, with the narrowest embeddings."""
        blocks = [min(rows, key=lambda row: row.parameters).block for rows in self._by_place]
        return self._setup.space.architecture(blocks, min(self._setup.space.embedding_sizes))

    @cached_property
    def _tables(self) -> list[BlockTable]:
        sizes = self._setup.space.block.hidden_sizes
        return [
            BlockTable(
                loss=np.array([row.loss for row in rows]),
                costs=np.array([[row.parameters, row.latency_ms, row.flops] for row in rows]),
                group=np.array([sizes.index(row.block.hidden_size) for row in rows]),
            )
            for rows in self._by_place
        ]

    def _arguments(self, embedding_size: int, bounds: NDArray[np.float64]) -> dict[str, Any]:
        sizes = self._setup.space.block.hidden_sizes
        length, table = self._setup.workload.length, self._operations
        bridges = [
            [
                (
                    bridge_parameters(before, after),
                    table.bridge_ms(before, after),
                    bridge_flops(before, after, length),
                )
                for after in sizes
            ]
            for before in sizes
        ]
        first = [
            (
                self._ends.rows * embedding_size
                + 2 * embedding_size  # norm
                + bridge_parameters(embedding_size, size),
                table.ends_ms(embedding_size, size),
                bridge_flops(embedding_size, size, length),
            )
            for size in sizes
        ]
        pooler = [(size * size + size, 0.0, 2 * size * size) for size in sizes]
        return {
            "bridges": np.array(bridges, dtype=float),
            "first": np.array(first, dtype=float),
            "last": np.array(pooler, dtype=float),
            "limits": bounds,
        }

    def _bounds(self, limits: LimitSettings, most_parameters: float) -> NDArray[np.float64]:
        given = limits.given()
        bounds = np.full(3, np.inf)
        bounds[_PARAMETERS] = most_parameters
        sizes = {
            "size_mb": 1e6 / bytes_per_parameter(self._setup.workload.precision),
            "parameters": 1.0,
            "params_m": 1e6,
        }
        for name, factor in sizes.items():
            bounds[_PARAMETERS] = min(bounds[_PARAMETERS], given.get(name, math.inf) * factor)
        bounds[_LATENCY] = given.get("latency_ms", math.inf)
        if "speedup" in given:
            fast_ms = self._operations.teacher_ms / given["speedup"]
            bounds[_LATENCY] = min(bounds[_LATENCY], fast_ms)
        bounds[_FLOPS] = given.get("flops_fraction", math.inf) * self.teacher_flops
        return bounds * (1 + ROUNDING)

    def _architecture(self, row: NDArray[np.int64], embedding_size: int) -> ChainArchitecture:
        blocks = [
            rows[index].block for rows, index in zip(self._by_place, row.tolist(), strict=True)
        ]
        return self._setup.space.architecture(blocks, embedding_size)

    def _why_none(
        self, embedding_sizes: Sequence[int], limits: LimitSettings, most_parameters: float
    ) -> str:
        bounds = self._bounds(limits, most_parameters)
        found = {
            size: nearest(self._tables, **self._arguments(size, bounds)) for size in embedding_sizes
        }
        size = min(found, key=lambda one: float((found[one].costs[0] / bounds).max()))
        near = self._architecture(found[size].rows[0], size)
        costs = found[size].costs[0] / [1e6, 1.0, self.teacher_flops]
        listed = ", ".join(f"{cost:.3g} {name}" for cost, name in zip(costs, _COSTS, strict=True))
        asked = ", ".join(f"{name}={value:g}" for name, value in limits.given().items())
        if not math.isinf(most_parameters):
            asked += f" (its memory leaves {most_parameters / 1e6:.3g} M parameters)"
        return (
            f"no student of this search is within {asked}: the nearest has {listed} "
            f"({near.label}). Loosen the limit, or search smaller hidden sizes "
            "(blocks.hidden_sizes) in another run directory"
        )
