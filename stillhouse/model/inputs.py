"""What a model is called with: each family takes other inputs of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse.model.anatomy import anatomy_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig

    from stillhouse.data.batching import Batch


def input_names(config: PreTrainedConfig) -> tuple[str, ...]:
    """Returns the names of the inputs that a model of `config` reads.

    Token types are left out where the family has none, and where there is one type only: a
    tokeniser may tell the texts of a pair apart though the model does not.
    """
    names = ("input_ids", "attention_mask")
    if anatomy_of(config).has_token_types and config.type_vocab_size > 1:
        return (*names, "token_type_ids")
    return names


def model_inputs(config: PreTrainedConfig, batch: Batch) -> dict[str, Tensor]:
    """Returns the keyword arguments with which a model of `config` reads a batch."""
    return {name: getattr(batch, name) for name in input_names(config)}
