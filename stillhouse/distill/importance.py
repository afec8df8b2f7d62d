"""Importance of a teacher's neurons: what its loss would change by without them, to first order.

Letters in names: B batch, T tokens, D hidden, L layers, H heads, K per-head width, F feed-forward
width, N chosen tokens.

Source: ETD (Chen et al., arXiv 2104.11928), ETD-Impt, in the form of DynaBERT's code: the product
of weights and gradients, summed over what a matrix has of a neuron, absolute, and summed over
matrices and batches. A feed-forward neuron has |Σ W₁∂W₁ + b₁∂b₁| + |Σ W₂∂W₂|. The paper's tables of
what a hidden neuron has could not be read; ours has all that the embeddings and the layers have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from stillhouse.data.batching import collate, plan_ordered
from stillhouse.data.encoding import NO_CLASS
from stillhouse.distill.losses import hidden_mse, label_cross_entropy
from stillhouse.distill.signals import Signals
from stillhouse.distill.terms import LabelTerm
from stillhouse.errors import DataError, TeacherError
from stillhouse.model.anatomy import (
    LayeredAnatomy,
    architecture_of,
    factored_size,
    layered_anatomy_of,
)
from stillhouse.model.extraction import Importance
from stillhouse.model.heads import outputs_of
from stillhouse.model.inputs import model_inputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stillhouse.data.batching import Batch
    from stillhouse.data.encoding import EncodedSet
    from stillhouse.data.masking import Masker
    from stillhouse.data.metric_names import TaskKind
    from stillhouse.model.mlm_teachers import MlmHead

BATCH_SIZE = 16
"""Examples whose gradients are added before the absolute value is taken."""


class SampleLoss(Protocol):
    """What neurons are important for."""

    def __call__(self, model: PreTrainedModel, batch: Batch, step: int) -> Tensor:
        """Computes the loss of a batch, a scalar; `step` is the batch's number."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsLoss:
    """Cross-entropy at masked words: what most teachers were trained on.

    The word embeddings count as what the encoder reads, not as what its head compares with.

    Attributes:
        head: Of the teacher, trained.
        masker: Hides words.
        seed: Decides which.
    """

    head: MlmHead
    masker: Masker
    seed: int

    def __call__(self, model: PreTrainedModel, batch: Batch, step: int) -> Tensor:  # noqa: D102
        masked, labels_BT = _masked(batch, self.masker, seed=self.seed, step=step)
        hidden_BTD = _last_states(model, masked)
        chosen_BT = labels_BT != NO_CLASS
        return label_cross_entropy(self.head(hidden_BTD[chosen_BT]), labels_BT[chosen_BT])


@dataclass(frozen=True, slots=True, kw_only=True)
class StatesLoss:
    """Mean squared difference of the last hidden states with masked words and without.

    It stands in for masked words where a teacher has no head for them: a neuron matters as far as
    states of whole text are told from what the masks leave of it.

    Attributes:
        masker: Hides words.
        seed: Decides which.
    """

    masker: Masker
    seed: int

    def __call__(self, model: PreTrainedModel, batch: Batch, step: int) -> Tensor:  # noqa: D102
        with torch.no_grad():
            whole_BTD = _last_states(model, batch)
        masked, _ = _masked(batch, self.masker, seed=self.seed, step=step)
        return hidden_mse(_last_states(model, masked), whole_BTD, batch.attention_mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLoss:
    """The loss of fine-tuning, through the task's head. Not ETD's, which knows no task.

    Attributes:
        kind: What the labels are.
    """

    kind: TaskKind

    def __call__(self, model: PreTrainedModel, batch: Batch, step: int) -> Tensor:  # noqa: D102, ARG002
        outputs = outputs_of(model(**model_inputs(model.config, batch)))
        return LabelTerm(kind=self.kind)(Signals(logits=outputs), None, batch)


def measure_importance(
    teacher: PreTrainedModel,
    sample: EncodedSet,
    loss: SampleLoss,
    *,
    on_progress: Callable[[float], None] | None = None,
) -> Importance:
    """Measures the importance of every neuron, in float32 and without dropout.

    Args:
        teacher: Left as it was, in evaluation mode.
        sample: Examples to measure on; all are read.
        loss: What the neurons are important for.
        on_progress: Told the finished fraction, 0..1.

    Raises:
        DataError: If all neurons of some part have no gradient.
        TeacherError: If some gradient is not finite.
    """
    teacher.eval()
    plan = plan_ordered(sample.lengths, BATCH_SIZE)
    tally = _Tally(teacher)
    with _with_gradients(teacher):
        for step, indices in enumerate(plan):
            batch = collate(sample, indices).to(teacher.device)
            with torch.enable_grad():
                value = loss(teacher, batch, step)
            tally.add(value)
            if on_progress is not None:
                on_progress((step + 1) / len(plan))
    return tally.total(examples=len(sample))


def _last_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    output = model.base_model(**model_inputs(model.config, batch))
    hidden_BTD: Tensor = output.last_hidden_state
    return hidden_BTD


def _masked(batch: Batch, masker: Masker, *, seed: int, step: int) -> tuple[Batch, Tensor]:
    """Hides words of a batch; returns it with what they were, `[B, T]`, −100 at all others."""
    device = batch.input_ids.device
    ids_BT, labels_BT = masker.mask(batch.input_ids.cpu().numpy(), seed=seed, step=step)
    masked = replace(batch, input_ids=torch.from_numpy(ids_BT).to(device))
    return masked, torch.from_numpy(labels_BT).to(device)


@contextmanager
def _with_gradients(model: PreTrainedModel) -> Iterator[None]:
    """Lets the encoder of a frozen model have gradients for a while."""
    before = {parameter: parameter.requires_grad for parameter in model.base_model.parameters()}
    try:
        model.base_model.requires_grad_()
        yield
    finally:
        for parameter, needed in before.items():
            parameter.requires_grad = needed


class _Tally:
    """Adds up importance, batch by batch."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._anatomy = layered_anatomy_of(model.config)
        self._shape = architecture_of(model.config)
        self._is_factored = factored_size(model.config) is not None
        parts = (self._anatomy.embeddings, self._anatomy.layers)
        if self._is_factored:
            assert self._anatomy.factored_projection is not None
            parts = (self._anatomy.factored_projection, self._anatomy.layers)
        self._parameters = {
            name: parameter
            for name, parameter in model.named_parameters()
            if name.startswith(tuple(f"{part}." for part in parts))
        }
        shape = self._shape
        self._hidden_D = torch.zeros(shape.hidden_size)
        self._heads_LW = torch.zeros(shape.layers, shape.attention_width)
        self._ffn_LF = torch.zeros(shape.layers, shape.ffn_size)

    def add(self, loss: Tensor) -> None:
        """Adds what the gradients of a batch's loss tell."""
        found = torch.autograd.grad(loss, list(self._parameters.values()), materialize_grads=True)
        products = _Products(
            {
                name: (parameter.detach() * gradient).float()
                for (name, parameter), gradient in zip(self._parameters.items(), found, strict=True)
            }
        )
        self._hidden_D += self._of_embeddings(products)
        for layer in range(self._shape.layers):
            part = products.below(f"{self._anatomy.layers}.{layer}")
            hidden_D, heads_W, ffn_F = _of_layer(part, self._anatomy)
            self._hidden_D += hidden_D
            self._heads_LW[layer] += heads_W
            self._ffn_LF[layer] += ffn_F

    def _of_embeddings(self, products: _Products) -> Tensor:
        if self._is_factored:
            assert self._anatomy.factored_projection is not None
            return products.rows(self._anatomy.factored_projection)
        return products.below(self._anatomy.embeddings).tables_and_norms()

    def total(self, *, examples: int) -> Importance:
        """Returns the sums.

        Raises:
            DataError: If all neurons of some part have no gradient.
            TeacherError: If some gradient is not finite.
        """
        _check("the hidden neurons", self._hidden_D, examples)
        for layer in range(self._shape.layers):
            _check(f"the head neurons of layer {layer + 1}", self._heads_LW[layer], examples)
            _check(f"the feed-forward neurons of layer {layer + 1}", self._ffn_LF[layer], examples)
        heads_LHK = self._heads_LW.unflatten(1, (self._shape.heads, self._shape.head_size))
        return Importance(hidden_D=self._hidden_D, heads_LHK=heads_LHK, ffn_LF=self._ffn_LF)


@dataclass(frozen=True, slots=True)
class _Products:
    """Weights times gradients by the names of parameters, and what neurons have of them."""

    named: Mapping[str, Tensor]

    def below(self, path: str) -> _Products:
        """Returns those of a part, named from there."""
        return _Products(
            {
                name.removeprefix(f"{path}."): product
                for name, product in self.named.items()
                if name.startswith(f"{path}.")
            }
        )

    def rows(self, path: str) -> Tensor:
        """What the outputs of a projection have, with their biases."""
        return (self.named[f"{path}.weight"].sum(dim=1) + self.named[f"{path}.bias"]).abs().cpu()

    def columns(self, path: str) -> Tensor:
        """What the inputs of a projection have."""
        return self.named[f"{path}.weight"].sum(dim=0).abs().cpu()

    def norm(self, path: str) -> Tensor:
        """What the neurons of a norm have."""
        return (self.named[f"{path}.weight"] + self.named[f"{path}.bias"]).abs().cpu()

    def tables_and_norms(self) -> Tensor:
        """What hidden neurons have of embeddings."""
        parts = {name.rpartition(".")[0]: one.ndim for name, one in sorted(self.named.items())}
        return torch.stack(
            [self.norm(part) if ndim == 1 else self.columns(part) for part, ndim in parts.items()]
        ).sum(dim=0)


def _of_layer(products: _Products, anatomy: LayeredAnatomy) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what the hidden, head and feed-forward neurons have of a layer."""
    attended = (anatomy.query, anatomy.key, anatomy.value)
    hidden_D = products.norm(anatomy.attention_norm) + products.norm(anatomy.ffn_norm)
    for path in (anatomy.attention_output, anatomy.ffn_output):
        hidden_D += products.rows(path)
    for path in (*attended, anatomy.ffn_input):
        hidden_D += products.columns(path)
    heads_W = products.columns(anatomy.attention_output)
    for path in attended:
        heads_W += products.rows(path)
    ffn_F = products.rows(anatomy.ffn_input) + products.columns(anatomy.ffn_output)
    return hidden_D, heads_W, ffn_F


def _check(part: str, scores: Tensor, examples: int) -> None:
    if not scores.isfinite().all():
        raise TeacherError(
            f"the importance of {part} is not finite: the teacher's loss overflows on some of "
            f"{examples} examples. Take another extract.loss, or extract.indices random"
        )
    if not scores.any():
        raise DataError(
            f"{part} have no gradient on {examples} examples, so none is more important than "
            "another: take longer texts, another extract.loss, or extract.indices random"
        )
