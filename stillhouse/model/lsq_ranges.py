"""First clips of a quantised model: of weights from their values, of activations from a batch.

Letters in names: N values, J bins of a histogram.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias, assert_never

import numpy as np
import torch

from stillhouse.errors import TrainingError
from stillhouse.model.lsq import activation_clips, observed, quantised_parts
from stillhouse.model.lsq_parts import ACTIVATION_BITS, levels_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from transformers import PreTrainedModel

RangeRule: TypeAlias = Literal["error", "quantile", "kl"]
OUTSIDE_FRACTION = 0.05
"""Share of the values that the quantile rule leaves outside, both tails together."""
LEAST_MASS = 1e-12
ERROR_BINS = 4096
ERROR_CANDIDATES = 128


def first_clip(values: Tensor, bits: int, rule: RangeRule) -> float:
    """Chooses the clip of a tensor by its values.

    Args:
        values: Any shape, at least one.
        bits: Of the quantised values.
        rule: `error`, `quantile`, or `kl`.
    """
    match rule:
        case "error":
            return error_clip(values, bits)
        case "quantile":
            return quantile_clip(values)
        case "kl":
            return kl_clip(values, bits)
        case _:
            assert_never(rule)


def error_clip(values: Tensor, bits: int) -> float:
    """Returns the clip of least squared error, of 128 evenly spaced ones up to the largest |x|.

    Args:
        values: N values of any shape, counted in 4,096 bins of |x|.
        bits: Of the quantised values.

    Source: ours. The published rules lose more of values that crowd at 0 and have a long tail,
    as probabilities of attention and outputs of GELU do: of those of 128 tokens the quantile rule
    and, with as many values as a batch has, the divergence rule leave the largest outside.
    """
    magnitude_N = values.detach().abs().float().flatten().cpu().numpy()
    largest = float(magnitude_N.max())
    if not (np.isfinite(largest) and largest > 0):
        return largest
    count_J, edges_J = np.histogram(magnitude_N, bins=ERROR_BINS, range=(0.0, largest))
    centre_J = (edges_J[:-1] + edges_J[1:]) / 2
    levels = levels_of(bits)

    def error(clip: float) -> float:
        rounded_J = np.round(np.minimum(centre_J / clip, 1.0) * levels) / levels * clip
        return float(count_J @ (centre_J - rounded_J) ** 2)

    candidates = largest * np.arange(1, ERROR_CANDIDATES + 1) / ERROR_CANDIDATES
    return float(min(candidates, key=error))


def quantile_clip(values: Tensor, *, outside_fraction: float = OUTSIDE_FRACTION) -> float:
    """Returns max(|x_(i)|, |x_(N−1−i)|) of the sorted values, i = round(fraction·N/2).

    Args:
        values: N values of any shape.
        outside_fraction: Share of the values outside, 0 to below 1.

    Source: KDLSQ-BERT, section 3.2. Its x_(N−i) counts from 1; where i is 0, ours is the largest.
    """
    ordered_N = values.detach().float().flatten().sort().values
    count = len(ordered_N)
    tail = min(round(outside_fraction * count / 2), (count - 1) // 2)
    return max(abs(ordered_N[tail].item()), abs(ordered_N[count - 1 - tail].item()))


def kl_clip(values: Tensor, bits: int) -> float:
    """Returns the clip below which few steps keep the distribution of the values best.

    |x| is counted in ⌈√N⌉ bins up to the largest; each upper edge of a bin beyond the first
    2^(bits−1) is a candidate. The bins below it, with all that lies beyond in the last of them, are
    compared with the same bins without that, requantised: shared out among 2^(bits−1) groups, the
    count of a group spread evenly over its bins that are not empty. What is compared are cumulative
    counts, each divided by their sum, by KL(before ‖ after).

    Args:
        values: N values of any shape.
        bits: Of the quantised values.

    Returns:
        The candidate of least divergence, of equals the smallest; the largest |x| where there are
        too few values for a candidate.

    Source: the final scripts of KDLSQ-BERT, of which bins, candidates and the comparison of
    cumulative counts are known; what lies beyond and empty bins are treated as in Migacz 2017,
    "8-bit Inference with TensorRT". Of normal values it takes 1.5 to 1.7 standard deviations in 2
    bits and 2.2 to 2.4 in 4; the squared error is least at 1.2 and 2.4. Of values that crowd at 0
    the cut goes with the number of bins, hence of values: no rule for probabilities of attention.
    """
    magnitude_N = values.detach().abs().float().flatten().cpu().numpy()
    largest = float(magnitude_N.max())
    if not (np.isfinite(largest) and largest > 0):
        return largest
    bins = int(np.ceil(np.sqrt(len(magnitude_N))))
    count_J, _ = np.histogram(magnitude_N, bins=bins, range=(0.0, largest))
    groups = 2 ** (bits - 1)
    edges = range(min(groups + 1, bins), bins + 1)
    best = min(edges, key=lambda edge: _divergence(count_J, edge, groups))
    return largest * best / bins


def _divergence(count_J: NDArray[np.int64], edge: int, groups: int) -> float:
    """KL divergence of the bins below an edge from what few groups leave of them."""
    before_J, after_J = count_J[:edge].astype(float), count_J[:edge]
    before_J[-1] += count_J[edge:].sum()
    group_J = np.arange(edge) * groups // edge
    total = np.bincount(group_J, weights=after_J, minlength=groups)
    filled = np.bincount(group_J, weights=after_J > 0, minlength=groups)
    spread_J = np.where(after_J > 0, (total / np.maximum(filled, 1))[group_J], 0.0)
    sums_J, spread_sums_J = np.cumsum(before_J), np.cumsum(spread_J)
    known_J = sums_J > 0
    sums_J, spread_sums_J = sums_J / sums_J.sum(), spread_sums_J / max(spread_sums_J.sum(), 1.0)
    ratio_J = sums_J[known_J] / np.maximum(spread_sums_J[known_J], LEAST_MASS)
    return float(np.sum(sums_J[known_J] * np.log(ratio_J)))


@torch.no_grad()
def set_weight_clips(model: PreTrainedModel, rule: RangeRule) -> None:
    """Sets the clip of every quantised weight, in place.

    Raises:
        TrainingError: Naming the first weight whose clip would be 0 or not finite.
    """
    for name, part in quantised_parts(model).items():
        clip = first_clip(part.weight, part.weight_bits, rule)
        _check(f"{name}.weight", clip)
        part.weight_clip.fill_(clip)


@torch.no_grad()
def set_activation_clips(
    model: PreTrainedModel, batch: Mapping[str, Tensor], rule: RangeRule
) -> None:
    """Sets the clip of every quantised activation from one forward pass, in place.

    Each is set when the pass comes to it, so what follows is computed as it will be: from
    quantised weights and activations.

    Args:
        model: Its weights have their clips.
        batch: Inputs by name, padding included, of examples that are not reported on.
        rule: How a clip follows from values.

    Raises:
        TrainingError: Naming the first activation whose clip would be 0 or not finite, or that the
            pass did not come to.

    Source: KDLSQ-BERT, which takes a batch of the development set.
    """
    names = {id(clip): name for name, clip in activation_clips(model).items()}

    def observe(module: nn.Module, name: str, values: Tensor) -> None:
        clip = getattr(module, name)
        found = first_clip(values, ACTIVATION_BITS, rule)
        _check(names[id(clip)].removesuffix("_clip"), found)
        clip.fill_(found)

    model.eval()
    with observed(model, observe):
        model(**batch)
    for name, clip in activation_clips(model).items():
        if torch.isnan(clip):
            raise TrainingError(
                f"the batch that sets ranges never came to {name.removesuffix('_clip')}: give one "
                "that runs the whole model"
            )


def _check(name: str, clip: float) -> None:
    if not (np.isfinite(clip) and clip > 0):
        raise TrainingError(
            f"the values of {name} give a range of {clip:g}, and nothing can be quantised within "
            "that: take the other rule of quantise.ranges, or a model whose values are finite and "
            "not all 0"
        )
