"""Signals: what a loss reads of a model, captured by hooks without changing the model.

Letters in names: B batch, T tokens, D hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from stillhouse.model.anatomy import encoder_layers
from stillhouse.model.heads import outputs_of
from stillhouse.model.inputs import model_inputs

if TYPE_CHECKING:
    from types import TracebackType

    from transformers import PreTrainedModel

    from stillhouse.data.batching import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Signals of one batch.

    Attributes:
        logits: Outputs of the head: `[B, C]`; `[B, T, C]` of every token; or `[B, T, 2]`, of every
            token's being first and last of an answer. At padding they may be anything.
        hidden_BTD: Output of an encoder layer by its 0-based number, for the layers asked for.
    """

    logits: Tensor
    hidden_BTD: Mapping[int, Tensor] = field(default_factory=dict)  # noqa: N815


class SignalReader:
    """Runs a model on a batch and returns the signals that were asked for.

    Use it as a context manager, so that its hooks leave the model again.
    """

    def __init__(self, model: PreTrainedModel, layers: frozenset[int]) -> None:
        """Hooks the 0-based encoder layers whose outputs are wanted."""
        self.model = model
        self._captured: dict[int, Tensor] = {}
        modules = encoder_layers(model)
        self._handles = [
            modules[layer].register_forward_hook(self._capture(layer)) for layer in sorted(layers)
        ]

    def _capture(self, layer: int) -> Any:
        def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            self._captured[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    def __call__(self, batch: Batch) -> Signals:
        """Runs the model forward.

        Returns:
            Signals with gradients, unless the caller switched them off.
        """
        self._captured.clear()
        output = self.model(**model_inputs(self.model.config, batch))
        return Signals(logits=outputs_of(output), hidden_BTD=dict(self._captured))

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
