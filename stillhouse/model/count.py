"""How large a network is: true parameters and FLOPs and, beside them, AutoDistil's paper formulas.

The true counts equal what torch counts in the model. `paper_parameters` and `paper_flops` are the
paper's: they count narrow networks too small, and multiply-adds; read their module first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stillhouse.model.anatomy import ends_of
from stillhouse.space.autodistil_counts import paper_flops, paper_parameters
from stillhouse.space.chain import ChainArchitecture
from stillhouse.space.chain_counts import count_chain_flops, count_chain_parameters
from stillhouse.space.counts import Ends, count_flops, count_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from stillhouse.space.architecture import Architecture

__all__ = ["paper_flops", "paper_parameters", "true_flops", "true_parameters"]


def true_parameters(
    architecture: Architecture | ChainArchitecture,
    ends: Ends | PreTrainedConfig,
    *,
    bare: bool = False,
) -> int:
    """Counts the parameters of the model that is built of an architecture.

    Args:
        architecture: The network.
        ends: What it has beside its layers, or a configuration to read that from, such as the
            teacher's. The layers in the configuration play no part.
        bare: Leaves out the projection onto the outputs: counted are all embedding tables with
            their normalisation, the layers and the pooler. So AutoDistil's students have 31.9 M
            (11 × 352 with 10 heads), 53.6 M, 29.9 M and 9.1 M parameters.

    Returns:
        Number of parameters.
    """
    found = _ends(ends, bare=bare)
    if isinstance(architecture, ChainArchitecture):
        return count_chain_parameters(architecture, found).total
    return count_parameters(architecture, found).total


def true_flops(
    architecture: Architecture | ChainArchitecture,
    ends: Ends | PreTrainedConfig,
    *,
    length: int = 128,
    bare: bool = False,
) -> int:
    """Counts the floating-point operations of one example, two per multiply-add.

    Args:
        architecture: The network.
        ends: What it has beside its layers, or a configuration to read that from.
        length: Tokens of the example, padding included.
        bare: Leaves out the projection onto the outputs.

    Returns:
        FLOPs of one forward pass with batch size 1.
    """
    found = _ends(ends, bare=bare)
    if isinstance(architecture, ChainArchitecture):
        return count_chain_flops(architecture, found, length=length)
    return count_flops(architecture, found, length=length)


def _ends(ends: Ends | PreTrainedConfig, *, bare: bool) -> Ends:
    found = ends if isinstance(ends, Ends) else ends_of(ends)
    return replace(found, labels=0) if bare else found
