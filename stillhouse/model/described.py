"""The architecture of a model of any family, from its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import MobileBertConfig

from stillhouse.model.anatomy import architecture_of
from stillhouse.model.chains import chain_of
from stillhouse.model.mobilebert import mobilebert_of
from stillhouse.model.modeling_chain_bert import ChainBertConfig

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from stillhouse.space.architecture import Architecture
    from stillhouse.space.chain import ChainArchitecture


def described(config: PreTrainedConfig) -> Architecture | ChainArchitecture:
    """Returns the architecture of any model that can be fine-tuned.

    Raises:
        TeacherError: If the family is not in the table, or no student is built like that.
        SpaceError: If it is a chain that no chain of ours is like.
    """
    match config:
        case ChainBertConfig():
            return chain_of(config)
        case MobileBertConfig():
            return mobilebert_of(config)
        case _:
            return architecture_of(config)
