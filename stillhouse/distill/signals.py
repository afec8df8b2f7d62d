"""Signals: what a loss reads of a model, captured by hooks without changing the model.

Letters in names: B batch, T tokens, D hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from stillhouse.distill.attention import Attention
from stillhouse.model.anatomy import anatomy_of, encoder_layers, factored_size, layered_anatomy_of
from stillhouse.model.heads import outputs_of
from stillhouse.model.inputs import model_inputs

if TYPE_CHECKING:
    from types import TracebackType

    from transformers import PreTrainedModel

    from stillhouse.data.batching import Batch


EMBEDDINGS = -1
"""Number of the hidden state that the first encoder layer reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Signals of one batch.

    Attributes:
        logits: Outputs of the head: `[B, C]`; `[B, T, C]` of every token; or `[B, T, 2]`, of every
            token's being first and last of an answer. At padding they may be anything.
        hidden_BTD: Output of an encoder layer by its 0-based number, for the layers asked for; that
            of the embeddings by `EMBEDDINGS`.
        attention: Queries and keys of an encoder layer by its number, for the layers asked for.
    """

    logits: Tensor
    hidden_BTD: Mapping[int, Tensor] = field(default_factory=dict)  # noqa: N815
    attention: Mapping[int, Attention] = field(default_factory=dict)


class SignalReader:
    """Runs a model on a batch and returns the signals that were asked for.

    Use it as a context manager, so that its hooks leave the model again.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layers: frozenset[int],
        *,
        attention: frozenset[int] = frozenset(),
    ) -> None:
        """Hooks the parts whose outputs are wanted.

        Args:
            model: Model with a head.
            layers: 0-based encoder layers whose outputs are wanted, and perhaps `EMBEDDINGS`.
            attention: Encoder layers whose queries and keys are wanted.

        Raises:
            TeacherError: If attention is asked of a family that is no plain encoder.
        """
        self.model = model
        self._attention = sorted(attention)
        self._captured: dict[tuple[str, int], Tensor] = {}
        wanted = {("hidden", layer): _output_of(model, layer) for layer in sorted(layers)}
        if attention:
            names, modules = layered_anatomy_of(model.config), encoder_layers(model)
            for layer in self._attention:
                wanted["query", layer] = modules[layer].get_submodule(names.query)
                wanted["key", layer] = modules[layer].get_submodule(names.key)
        self._handles = [
            module.register_forward_hook(self._capture(key)) for key, module in wanted.items()
        ]

    def _capture(self, key: tuple[str, int]) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            self._captured[key] = output[0] if isinstance(output, tuple) else output

        return hook

    def __call__(self, batch: Batch) -> Signals:
        """Runs the model forward.

        Returns:
            Signals with gradients, unless the caller switched them off.
        """
        self._captured.clear()
        output = self.model(**model_inputs(self.model.config, batch))
        heads = self.model.config.num_attention_heads if self._attention else 0
        return Signals(
            logits=outputs_of(output),
            hidden_BTD={
                n: state for (part, n), state in self._captured.items() if part == "hidden"
            },
            attention={
                layer: Attention(
                    query_BTW=self._captured["query", layer],
                    key_BTW=self._captured["key", layer],
                    heads=heads,
                )
                for layer in self._attention
            },
        )

    def __enter__(self) -> SignalReader:
        """Returns the reader itself; its hooks are in place since construction."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Takes the hooks out of the model."""
        for handle in self._handles:
            handle.remove()


def _output_of(model: PreTrainedModel, layer: int) -> nn.Module:
    """Returns the module whose output is a hidden state."""
    if layer != EMBEDDINGS:
        return encoder_layers(model)[layer]
    anatomy = anatomy_of(model.config)
    is_factored = factored_size(model.config) is not None
    path = anatomy.factored_projection if is_factored else anatomy.embeddings
    assert path is not None
    return model.get_submodule(path)
