"""Progressive transfer: a student learns the layers of its teacher one after the other.

The training has a phase of equally many steps for each student layer, in which the losses of that
layer alone count. So a step runs student and teacher only up to the layers that it compares.

Source: MobileBERT (Sun et al. 2020), progressive knowledge transfer, with the schedule of
google-research/mobilebert. AutoDistill (Zhang et al. 2022) tells promising students from others by
a much shorter one, which it calls flash distillation.

Letters in names: B batch, T tokens, D hidden, W width of a projection.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import BertConfig

from stillhouse.distill.steps import Part, Schedule
from stillhouse.distill.transfer_losses import LayerSignals, TransferMix, transfer_losses
from stillhouse.distill.workers import average_gradients, mean_over_workers
from stillhouse.errors import SettingsError
from stillhouse.model.encoders import bare_anatomy
from stillhouse.model.kept_layers import uniform_layer
from stillhouse.model.precision import autocast

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedConfig, PreTrainedModel

    from stillhouse.distill.masked_lm import MaskedText
    from stillhouse.model.anatomy import LayeredAnatomy
    from stillhouse.model.precision import Precision

RATE_IN_PHASE = 3.0
RATE_AFTER_PHASE = 0.3
"""Of a layer, relative to the background; google-research/mobilebert has 3.0 × 0.1."""


def rate_multiplier(layer: int, step: int, *, steps_a_layer: int) -> float:
    """Tells what the learning rate of a layer is multiplied by.

    Args:
        layer: 0-based number of the student layer.
        step: 0-based step of the whole training.
        steps_a_layer: Steps of a phase.

    Returns:
        0 before the layer's phase, 3.0 × background in it, and 0.3 × background after it. The
        background begins anew in every phase: the lesser of a ramp from 0 to 1 over the first
        tenth of the phase, and of a decay from 1.0 towards 0.9 with the root of what is left. So
        the first step of a phase moves nothing, unless it is the only one.

    Source: google-research/mobilebert, distill_util.py.
    """
    phase, place = divmod(step, steps_a_layer)
    if phase < layer:
        return 0.0
    share = RATE_IN_PHASE if phase == layer else RATE_AFTER_PHASE
    return share * _background(place / steps_a_layer) if steps_a_layer > 1 else share


def _background(done_fraction: float) -> float:
    return min(10 * done_fraction, 0.9 + 0.1 * math.sqrt(1 - done_fraction))


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLesson:
    """What a student learns of its teacher, layer by layer.

    Attributes:
        teacher: An encoder, bare or with a head, which is not read.
        mix: Weights of the losses.
        steps_a_layer: Steps of the phase of one student layer.
        precision: Arithmetic of the matrix products.
    """

    teacher: PreTrainedModel
    mix: TransferMix
    steps_a_layer: int
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuses phases without a step."""
        if self.steps_a_layer < 1:
            raise SettingsError(
                "each layer needs at least 1 step of its own, but steps_a_layer is "
                f"{self.steps_a_layer}: allow at least as many steps as the student has layers"
            )


class TransferStep:
    """Computes the gradients of one step of a student that learns its teacher layer by layer.

    Student layer i learns from the teacher's by the uniform layer map. Its losses also move the
    layers below, slowly, but no head. Embeddings learn with the first layer: the published student
    has its teacher's and keeps them, which students of other widths cannot.
    Dropout is off. Where the widths differ, a linear projection for each layer leads from the
    student's to the teacher's, and all losses on states see the projected ones; it is trained with
    its layer and left behind.

    With several workers each has its part of the batch, and gradients are averaged.

    Source: google-research/mobilebert; the projection is that of intel-extension-for-transformers.
    Google's optimiser forgets its moments at the beginning of each phase, that of `run_steps` does
    not.

    Attributes:
        modules: What a checkpoint holds: the student and the projections.
        parts: What `run_steps` trains: the parameters of each layer with their rates; those of the
            embeddings are with the first.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        lesson: TransferLesson,
        text: MaskedText,
        accelerator: Accelerator,
    ) -> None:
        """Keeps the parts.

        Args:
            student: An encoder, bare or with a head, whose layers are trained in place; of the
                family of MobileBERT or any that teachers are of.
            lesson: What it learns.
            text: What it learns from, hidden tokens and all.
            accelerator: Device, on which both networks are, and workers.

        Raises:
            TeacherError: If the family of one of them is not supported.
        """
        self._lesson, self._text, self._accelerator = lesson, text, accelerator
        ours, theirs = student.config, lesson.teacher.config
        count: int = ours.num_hidden_layers
        self._student_readers = [LayerReader(student, layer) for layer in range(count)]
        self._teacher_readers = [
            LayerReader(lesson.teacher, uniform_layer(layer, count, theirs.num_hidden_layers))
            for layer in range(count)
        ]
        projections = _projections(ours.hidden_size, theirs.hidden_size, count, seed=text.seed)
        projections.to(accelerator.device)
        self._projections = list(projections)
        self.modules = nn.ModuleDict({"student": student, "projections": projections})
        embeddings = [_embedding_parameters(student), *([[]] * (count - 1))]
        self.parts = [
            Part(
                parameters=[*before, *reader.layer.parameters(), *projection.parameters()],
                multiplier=partial(rate_multiplier, layer, steps_a_layer=lesson.steps_a_layer),
            )
            for layer, (before, reader, projection) in enumerate(
                zip(embeddings, self._student_readers, self._projections, strict=True)
            )
        ]

    @property
    def tokens(self) -> int:
        """Tokens that a step reads, over all workers."""
        return self._text.tokens

    @property
    def last_projection(self) -> nn.Module:
        """What leads from the student's last states to the teacher's width."""
        return self._projections[-1]

    def schedule(self, *, learning_rate: float, weight_decay: float = 0.01) -> Schedule:
        """Returns the steps of all phases; rates are `learning_rate` × those of the parts."""
        return Schedule(
            steps=len(self.parts) * self._lesson.steps_a_layer,
            learning_rate=learning_rate,
            end_fraction=1.0,
            weight_decay=weight_decay,
        )

    def __call__(self, step: int) -> Tensor:
        """Adds the gradients of a step to those of the layers up to that of its phase.

        Returns:
            The losses of `TransferMix.weights` of that layer, unweighted, over all workers, `[N]`.
        """
        layer = step // self._lesson.steps_a_layer
        batch = self._text.batch(step, self._accelerator)
        inputs = batch.input_ids, batch.mask
        device, precision = batch.input_ids.device, self._lesson.precision
        with torch.no_grad(), autocast(device, precision):
            wanted = self._teacher_readers[layer](*inputs)
        with autocast(device, precision):
            found = self._student_readers[layer](*inputs, self._projections[layer])
        mask_BT = torch.ones_like(batch.input_ids) if batch.mask is None else batch.mask
        losses = transfer_losses(found, wanted, mask_BT, self._lesson.mix)
        reached = [p for part in self.parts[: layer + 1] for p in part.parameters]
        torch.autograd.backward(losses @ self._weights(device), inputs=reached)
        average_gradients(reached, self._accelerator)
        return mean_over_workers(losses.detach(), self._accelerator)

    def _weights(self, device: torch.device) -> Tensor:
        mix = self._lesson.mix
        weights = torch.tensor(list(mix.weights.values()), device=device)
        return weights / len(self.parts) if mix.is_layer_mean else weights


class LayerReader:
    """Runs an encoder up to one of its layers.

    Queries and keys are caught on their way, so that any kernel may compute the attention.

    Attributes:
        layer: The layer.
    """

    def __init__(self, model: PreTrainedModel, layer: int) -> None:
        """Makes a model of the first layers, which shares all weights with the whole one.

        Args:
            model: An encoder, bare or with a head, which is left out; on its device already.
            layer: 0-based number of the layer.
        """
        body = model.base_model
        names = _part_names(model.config)
        layers = body.get_submodule(names.layers)
        assert isinstance(layers, nn.ModuleList)
        shared = [model.config, *body.parameters(), *body.buffers(), *layers]
        memo: dict[int, object] = {id(one): one for one in shared}
        memo[id(layers)] = nn.ModuleList(layers[: layer + 1])
        self._first = copy.deepcopy(body, memo)
        self.layer = layers[layer]
        self._query = self.layer.get_submodule(names.query)
        self._key = self.layer.get_submodule(names.key)
        self._heads: int = model.config.num_attention_heads

    def __call__(
        self, input_ids_BT: Tensor, mask_BT: Tensor | None, projection: nn.Module | None = None
    ) -> LayerSignals:
        """Runs it without dropout.

        Args:
            input_ids_BT: Tokens.
            mask_BT: 1 at tokens, 0 at padding; `None` without padding.
            projection: Applied to the layer's output.
        """
        with _caught(self._query) as query, _caught(self._key) as key:
            output = self._first.eval()(input_ids=input_ids_BT, attention_mask=mask_BT)
        hidden_BTD = output.last_hidden_state
        return LayerSignals(
            hidden_BTD=hidden_BTD if projection is None else projection(hidden_BTD),
            query_BTW=query[-1],
            key_BTW=key[-1],
            heads=self._heads,
        )


@contextmanager
def _caught(module: nn.Module) -> Iterator[list[Tensor]]:
    """Lists what a module returns."""
    outputs: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


def _part_names(config: PreTrainedConfig) -> LayeredAnatomy:
    """MobileBERT, which no teacher is of, names what is read here as BERT does."""
    return bare_anatomy(BertConfig() if config.model_type == "mobilebert" else config)


def _embedding_parameters(student: PreTrainedModel) -> list[nn.Parameter]:
    names, body = _part_names(student.config), student.base_model
    paths = [path for path in (names.embeddings, names.factored_projection) if path is not None]
    found = [body.get_submodule(path) for path in paths if hasattr(body, path.partition(".")[0])]
    return [parameter for module in found for parameter in module.parameters()]


def _projections(width: int, wanted: int, count: int, *, seed: int) -> nn.ModuleList:
    """Makes a projection for each layer, which does nothing where the widths agree."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.ModuleList(
            nn.Identity() if width == wanted else nn.Linear(width, wanted) for _ in range(count)
        )
