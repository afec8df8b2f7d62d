"""Which architectures of a space a profile measures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import numpy as np

import stillhouse.model.own_families  # noqa: F401  registers them
from stillhouse.device.features import FEATURES, features_of
from stillhouse.device.predicted import bare_ends
from stillhouse.device.predictor import LEAST_ROWS, choose_points
from stillhouse.device.profile import AnyArchitecture
from stillhouse.errors import DeviceError
from stillhouse.model.anatomy import architecture_of
from stillhouse.recipe.chain_nursery import default_blocks
from stillhouse.recipe.profile_job import BERT_BASE, ProfileJob, SpaceName
from stillhouse.space.chain import ChainArchitecture, ChainBlock, ChainSpace
from stillhouse.space.default import default_space
from stillhouse.space.published import autodistil_for, autodistill_for, kd_nas_for, nas_bert_for

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedConfig

    from stillhouse.device.latency import Workload
    from stillhouse.space.architecture import BertArchitecture

DRAWN_CHAINS = 3_000
"""Of NAS-BERT's 10²⁰, from which the measured ones are chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What of a space is measured.

    Attributes:
        count: Architectures that there were to choose from.
        chosen: Those to measure, in this order.
        features: Of each.
        reference: What each is timed in turn with, the one of median work.
    """

    count: int
    chosen: tuple[AnyArchitecture, ...]
    features: NDArray[np.float64]
    reference: AnyArchitecture


def choose_architectures(job: ProfileJob, config: PreTrainedConfig, workload: Workload) -> Sample:
    """Chooses what to measure, always alike for the same job.

    Args:
        job: Names the space, the number and the seed.
        config: The teacher's.
        workload: What latencies are told for.

    Raises:
        DeviceError: If the space is too small for a predictor.
    """
    found = architectures_of(job.space, architecture_of(config), seed=job.seed)
    space = list(dict.fromkeys(found))  # sub-spaces of a small teacher overlap
    if len(space) < LEAST_ROWS:
        raise DeviceError(
            f"{job.space} has {len(space)} architectures in the proportions of "
            f"{job.teacher or BERT_BASE}; a predictor needs at least {LEAST_ROWS}. Take another "
            "space, or measure in the search itself"
        )
    features = features_of(space, bare_ends(config), workload)
    work = features[:, FEATURES.index("total: matrix_flops")]
    places = choose_points(features, min(job.points, len(space)), job.seed)
    return Sample(
        count=len(space),
        chosen=tuple(space[place] for place in places),
        features=features[places],
        reference=space[int(np.argsort(work, kind="stable")[len(space) // 2])],
    )


def architectures_of(
    space: SpaceName, teacher: BertArchitecture, *, seed: int
) -> Iterator[AnyArchitecture]:
    """Yields the architectures of a space in a teacher's proportions; of chains a drawn part.

    Args:
        space: Its name.
        teacher: The teacher's architecture.
        seed: Of chains that are drawn.
    """
    match space:
        case "default":
            yield from default_space(teacher)
        case "kd-nas":
            yield from kd_nas_for(teacher, wide=False)
        case "kd-nas-wide":
            yield from kd_nas_for(teacher)
        case "autodistil":
            for name in ("tiny", "small", "base"):
                yield from autodistil_for(teacher, name)
        case "autodistill":
            yield from autodistill_for(teacher)
        case "nas-bert":
            chains = nas_bert_for(teacher, blocks=default_blocks(teacher.layers))
            yield from drawn_chains(chains, DRAWN_CHAINS, seed)
        case _:
            assert_never(space)


def drawn_chains(space: ChainSpace, count: int, seed: int) -> list[ChainArchitecture]:
    """Draws different chains; blocks of each length and width are as likely.

    Nearly all blocks are as long as can be, and drawn evenly a chain would hardly have others; a
    search for fast students takes the short ones.
    """
    generator = np.random.default_rng(seed)
    found: dict[str, ChainArchitecture] = {}
    for _ in range(count):
        blocks = [_drawn_block(space, generator) for _ in range(space.blocks)]
        chain = space.architecture(blocks, int(generator.choice(space.embedding_sizes)))
        found[chain.key] = chain
    return list(found.values())


def _drawn_block(space: ChainSpace, generator: np.random.Generator) -> ChainBlock:
    length = int(generator.integers(1, space.block.most_operations + 1))
    places = generator.integers(len(space.block.operations), size=length)
    return ChainBlock(
        hidden_size=int(generator.choice(space.block.hidden_sizes)),
        operations=tuple(space.block.operations[place] for place in places),
    )
