"""A supernet is a set of tensors; a subnet is a view of them, run by an ordinary model.

To run a subnet, the ordinary model of its architecture is built without memory and called on slices
of the supernet's tensors: no layer changes its shape, no model is written twice, and what is
extracted equals what was trained.

Source of the slices: Xu et al., "Few-shot Task-agnostic Neural Architecture Search for Distilling
Large Language Models" (AutoDistil), NeurIPS 2022, section 3.2, and its code: leading rows and
columns of every matrix, leading heads, spread layers. Differs: the supernet holds the largest
slices of its space and not the whole teacher, which changes no number, for the rest is never used.

Letters in names: B batch, T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stillhouse.errors import SpaceError, TeacherError
from stillhouse.model.anatomy import architecture_of, factored_size
from stillhouse.model.encoders import bare_anatomy, build_encoder
from stillhouse.model.students import student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.counts import count_encoder_parameters
from stillhouse.supernet.skeletons import Skeleton

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from stillhouse.distill.relations import QueryKeyValue
    from stillhouse.space.architecture import Architecture


def kept_layers(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """Chooses the teacher's layers for a subnet: floor(i · L / S) for its layer i.

    The first is always 0; the last is the teacher's last one only where both are equally deep.
    Subnets of different depths are not nested.

    Args:
        student_layers: S, at least 1 and at most L.
        teacher_layers: L.

    Source: AutoDistil's code; e.g. 5 of 12 are 0, 2, 4, 7, 9.
    """
    return tuple(i * teacher_layers // student_layers for i in range(student_layers))


def bounding_architecture(architectures: Iterable[Architecture], layers: int) -> BertArchitecture:
    """Returns the smallest architecture of `layers` layers that holds all others' matrices.

    Raises:
        SpaceError: If there is none, or their head sizes or activations differ.
    """
    every = list(architectures)
    shared = {(one.head_size, one.activation) for one in every}
    if len(shared) != 1:
        raise SpaceError(
            "the subnets of a supernet share one head size and one activation, got "
            f"{sorted(shared) or 'no subnet'}; give each kind a space of its own"
        )
    head_size, activation = shared.pop()
    return BertArchitecture(
        layers=layers,
        hidden_size=max(one.hidden_size for one in every),
        heads=max(one.heads for one in every),
        head_size=head_size,
        ffn_size=max(one.ffn_size for one in every),
        activation=activation,
    )


class Supernet(nn.Module):
    """The tensors that the subnets of one space share.

    Attributes:
        encoder: An ordinary encoder as large as the largest subnet in every direction, with all
            layers of the teacher; its parameters are the shared weights.
        architectures: The subnets, from the fewest parameters to the most.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        architectures: Sequence[Architecture],
        *,
        attention: str = "sdpa",
        dropout: float = 0.0,
    ) -> None:
        """Cuts the first weights out of a teacher.

        Args:
            teacher: Bare encoder; it is not changed and shares no memory with the supernet.
            architectures: The subnets; each has the teacher's head size, and none is larger than
                the teacher in any direction.
            attention: Kernel of transformers that subnets compute attention with.
            dropout: Probability in subnets that are being trained.

        Raises:
            TeacherError: If a subnet does not fit into the teacher, or the teacher's embeddings are
                factored, which leading slices do not fit.
        """
        super().__init__()
        bounds = check_cut(teacher.config, architectures)
        self.architectures = tuple(sorted(architectures, key=count_encoder_parameters))
        self.encoder = build_encoder(student_config(bounds, teacher.config), seed=0)
        self._teacher_config = teacher.config
        self._attention, self._dropout = attention, dropout
        self._skeletons: dict[Architecture, Skeleton] = {}
        self._anatomy = bare_anatomy(self.encoder.config)
        source = dict(teacher.named_parameters())
        with torch.no_grad():
            for name, parameter in self.encoder.named_parameters():
                parameter.copy_(_leading(source[name], parameter.shape))

    @property
    def depth(self) -> int:
        """Layers that subnets choose from."""
        return architecture_of(self.encoder.config).layers

    def views(
        self, architecture: Architecture, shapes: Mapping[str, torch.Size]
    ) -> dict[str, Tensor]:
        """Returns the slices that one subnet uses; gradients flow back through them.

        Args:
            architecture: The subnet.
            shapes: Shape of each parameter that is wanted, by its name in the ordinary model.
        """
        kept = kept_layers(architecture.layers, self.depth)
        shared = dict(self.encoder.named_parameters())
        return {
            name: _leading(shared[self._shared_name(name, kept)], shape)
            for name, shape in shapes.items()
        }

    def words(self, input_ids_BT: Tensor) -> Tensor:
        """Looks up word embeddings for all subnets of a step at once, `[B, T, D]`."""
        looked_up: Tensor = self.encoder.get_input_embeddings()(input_ids_BT)
        return looked_up

    def projections(
        self, architecture: Architecture, words_BTD: Tensor, mask_BT: Tensor | None
    ) -> QueryKeyValue:
        """Runs a subnet up to the queries, keys and values of its last layer.

        Args:
            architecture: The subnet.
            words_BTD: What `words` returned.
            mask_BT: 1 at tokens, 0 at padding; `None` without padding.

        Returns:
            Each `[B, T, heads × head size]` of the subnet.
        """
        skeleton = self._skeletons.get(architecture)
        if skeleton is None:
            skeleton = self._skeletons[architecture] = Skeleton(
                architecture,
                self._teacher_config,
                attention=self._attention,
                dropout=self._dropout,
            )
        own_BTD = words_BTD[..., : architecture.hidden_size]
        state = self.views(architecture, skeleton.shapes)
        return skeleton(state, own_BTD, mask_BT, training=self.training)

    def extract(self, architecture: Architecture) -> PreTrainedModel:
        """Copies a subnet into an ordinary encoder, which equals it exactly."""
        model = build_encoder(student_config(architecture, self._teacher_config), seed=0)
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        views = self.views(architecture, shapes)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(views[name])
        model.eval()
        return model

    def reached(self) -> list[nn.Parameter]:
        """Returns the shared weights that the relation loss of some subnet reaches.

        The last layer of a subnet gives its queries, keys and values and nothing more, and its
        pooler gives nothing: what no subnet has before its last layer keeps the teacher's weights.
        """
        depths = {architecture.layers for architecture in self.architectures}
        every_kept = [kept_layers(depth, self.depth) for depth in depths]
        inner = {layer for kept in every_kept for layer in kept[:-1]}
        last = {kept[-1] for kept in every_kept}
        return [
            parameter
            for name, parameter in self.encoder.named_parameters()
            if self._is_reached(name, inner, last)
        ]

    def _is_reached(self, name: str, inner: set[int], last: set[int]) -> bool:
        layer, part = self._split(name)
        if layer is None:
            return name.startswith(f"{self._anatomy.embeddings}.")
        projections = (self._anatomy.query, self._anatomy.key, self._anatomy.value)
        return layer in inner or (layer in last and part.rpartition(".")[0] in projections)

    def _shared_name(self, name: str, kept: tuple[int, ...]) -> str:
        layer, part = self._split(name)
        return name if layer is None else f"{self._anatomy.layers}.{kept[layer]}.{part}"

    def _split(self, name: str) -> tuple[int | None, str]:
        """Parts a parameter's name into its layer, if it is in one, and its name there."""
        prefix = f"{self._anatomy.layers}."
        if not name.startswith(prefix):
            return None, name
        number, _, part = name.removeprefix(prefix).partition(".")
        return int(number), part


def check_cut(teacher: PreTrainedConfig, architectures: Sequence[Architecture]) -> Architecture:
    """Tells whether a supernet of some subnets can be cut out of a teacher, without its weights.

    Args:
        teacher: The teacher's configuration.
        architectures: The subnets.

    Returns:
        The architecture of the supernet.

    Raises:
        TeacherError: If a subnet does not fit into the teacher, its family has no students of that
            shape, or its embeddings are factored, which leading slices do not fit.
    """
    if factored_size(teacher) is not None:
        raise TeacherError(
            f"no supernet can be cut out of a teacher with factored embeddings "
            f"({factored_size(teacher)} wide, its layers {teacher.hidden_size}): "
            "take one whose embeddings are as wide as its layers"
        )
    whole = architecture_of(teacher)
    bounds = bounding_architecture(architectures, whole.layers)
    _check_fits(bounds, max(one.layers for one in architectures), whole)
    free = next((one for one in architectures if one.has_free_heads), bounds)
    student_config(free, teacher)  # refuses a family without free heads
    return bounds


def _leading(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Returns the leading slice of a tensor in every direction, as a view."""
    return tensor[tuple(slice(0, size) for size in shape)]


def _check_fits(bounds: Architecture, layers: int, whole: Architecture) -> None:
    rules = {
        "head size": (bounds.head_size == whole.head_size, bounds.head_size, whole.head_size),
        "activation": (bounds.activation == whole.activation, bounds.activation, whole.activation),
        "layers": (layers <= whole.layers, layers, whole.layers),
        "hidden size": (
            bounds.hidden_size <= whole.hidden_size,
            bounds.hidden_size,
            whole.hidden_size,
        ),
        "heads": (bounds.heads <= whole.heads, bounds.heads, whole.heads),
        "feed-forward size": (bounds.ffn_size <= whole.ffn_size, bounds.ffn_size, whole.ffn_size),
    }
    wrong = [
        f"{name} {own}, the teacher's is {its}" for name, (ok, own, its) in rules.items() if not ok
    ]
    if wrong:
        raise TeacherError(
            "every subnet must fit into the teacher and keep its head size and activation; got "
            f"{'; '.join(wrong)}: choose another space or another teacher"
        )
