"""Skeletons: ordinary models without weights, which run whatever tensors they are called with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.func import functional_call

from stillhouse.distill.relations import QueryKeyValue
from stillhouse.model.encoders import bare_anatomy, build_encoder
from stillhouse.model.students import student_config

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from stillhouse.model.anatomy import LayeredAnatomy
    from stillhouse.space.architecture import Architecture


class Skeleton:
    """An encoder of one architecture without weights, up to the projections of its last layer.

    Attributes:
        shapes: Shape of every parameter that it must be called with, by name.
    """

    def __init__(
        self,
        architecture: Architecture,
        teacher: PreTrainedConfig,
        *,
        attention: str,
        dropout: float,
    ) -> None:
        """Builds the model on no memory.

        Args:
            architecture: Its shape.
            teacher: Configuration of everything else.
            attention: Kernel of transformers that computes attention.
            dropout: Probability while training.
        """
        # Buffers stay real: one that is left without memory gives wrong numbers and no error.
        with init_empty_weights(include_buffers=False):
            model = build_encoder(student_config(architecture, teacher, dropout=dropout), seed=0)
        model.set_attn_implementation(attention)
        self._reader = ProjectionReader(model)
        self.shapes = {name: p.shape for name, p in model.named_parameters()}

    def __call__(
        self,
        state: Mapping[str, Tensor],
        words_BTD: Tensor,
        mask_BT: Tensor | None,
        *,
        training: bool,
    ) -> QueryKeyValue:
        """Runs on given tensors.

        Args:
            state: A tensor for each of `shapes`.
            words_BTD: Word embeddings of the input.
            mask_BT: 1 at tokens, 0 at padding; `None` without padding.
            training: Whether dropout is active.
        """
        model = self._reader.model.train(training)
        device = words_BTD.device
        buffers = {name: b.to(device) for name, b in model.named_buffers()}
        given = {f"model.{name}": tensor for name, tensor in {**buffers, **state}.items()}
        result: QueryKeyValue = functional_call(
            self._reader, given, (), {"words_BTD": words_BTD, "mask_BT": mask_BT}, strict=True
        )
        return result


class ProjectionReader(nn.Module):
    """Runs an encoder up to the queries, keys and values of its last layer.

    It takes the model over: the last layer loses everything behind these projections.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Cuts the model's last layer."""
        super().__init__()
        self.model = model
        anatomy = bare_anatomy(model.config)
        layers = model.get_submodule(anatomy.layers)
        assert isinstance(layers, nn.ModuleList)
        last = _LastLayer(layers[-1], anatomy)
        layers[-1] = last
        self._last = (last,)  # in a tuple, so that its parameters do not get a second name
        read = (anatomy.embeddings, anatomy.factored_projection, anatomy.layers.partition(".")[0])
        for name, _ in list(model.named_children()):
            if name not in read:
                setattr(model, name, None)  # a pooler, which nothing reads here

    def forward(
        self,
        input_ids_BT: Tensor | None = None,
        mask_BT: Tensor | None = None,
        words_BTD: Tensor | None = None,
    ) -> QueryKeyValue:
        """Returns queries, keys and values, each `[B, T, heads × head size]`.

        Args:
            input_ids_BT: Tokens, or else their word embeddings.
            mask_BT: 1 at tokens, 0 at padding; `None` without padding.
            words_BTD: Word embeddings of the tokens.
        """
        self.model(input_ids=input_ids_BT, inputs_embeds=words_BTD, attention_mask=mask_BT)
        return self._last[0].take()


class _LastLayer(nn.Module):
    """A layer that projects and does nothing more; parameters keep their names."""

    def __init__(self, layer: nn.Module, anatomy: LayeredAnatomy) -> None:
        super().__init__()
        self._paths = (anatomy.query, anatomy.key, anatomy.value)
        for path in self._paths:
            _put(self, path, layer.get_submodule(path))
        self._taken: QueryKeyValue | None = None

    def forward(self, hidden_BTD: Tensor, *_: Any, **__: Any) -> Tensor:
        self._taken = QueryKeyValue(*(self.get_submodule(path)(hidden_BTD) for path in self._paths))
        return hidden_BTD

    def take(self) -> QueryKeyValue:
        """Hands the projections over and forgets them, so that they free their memory."""
        taken, self._taken = self._taken, None
        assert taken is not None
        return taken


def _put(module: nn.Module, path: str, child: nn.Module) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in dict(module.named_children()):
            module.add_module(parent, nn.Module())
        module = module.get_submodule(parent)
    module.add_module(name, child)
