"""Teachers of masked words: an encoder, and a head that scores the vocabulary.

Letters in names: N chosen tokens, D hidden, E width of the word embeddings, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the name that everybody knows
from transformers import AutoModelForMaskedLM
from transformers.activations import ACT2FN
from transformers.utils import logging

from stillhouse.errors import TeacherError
from stillhouse.model.anatomy import anatomy_of
from stillhouse.model.encoders import load_encoder

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from stillhouse.model.encoders import Encoder

HEAD_MODULES = (
    ("cls",),
    ("predictions",),
    ("lm_head",),
    ("generator_predictions", "generator_lm_head"),
    ("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
)
"""How models name the parts of their head, each applied to what the one before gives: those after
BERT, FreeHeadBert, RoBERTa, ELECTRA, DistilBERT."""
GELU_ALWAYS = frozenset({"camembert", "electra", "roberta", "xlm-roberta"})
"""Families whose heads have this activation, whatever that of their layers is."""


class MlmHead(nn.Module):
    """Scores the vocabulary: a projection, an activation, a norm, and the word embeddings.

    The embeddings are the encoder's own: they are no parameter, have no gradient, and are not in
    the state. Where they are narrower than the layers, the projection leads to their width.
    """

    def __init__(self, model: PreTrainedModel, *, seed: int = 0) -> None:
        """Makes a fresh head.

        Args:
            model: Bare encoder that it will stand on.
            seed: First weights.
        """
        super().__init__()
        config = model.config
        table = model.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        words, width = table.weight.shape
        activation = getattr(config, anatomy_of(config).activation)
        self.dense = nn.Linear(config.hidden_size, width)
        self.activation = ACT2FN["gelu" if config.model_type in GELU_ALWAYS else activation]
        self.norm = nn.LayerNorm(width, eps=getattr(config, "layer_norm_eps", 1e-12))
        self.bias = nn.Parameter(torch.zeros(words))
        self.words_VE: Tensor
        self.register_buffer("words_VE", table.weight.detach(), persistent=False)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.dense.weight.normal_(std=config.initializer_range, generator=generator)
            self.dense.bias.zero_()
        self.to(table.weight.device)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """Scores the words at chosen tokens.

        Args:
            hidden_ND: Last hidden states of these tokens alone.

        Returns:
            Logits `[N, V]` in float32.
        """
        features_NE = self.norm(self.activation(self.dense(hidden_ND)))
        return F.linear(features_NE, self.words_VE, self.bias).float()


@dataclass(frozen=True, slots=True, kw_only=True)
class MlmTeacher:
    """An encoder that may know masked words.

    Attributes:
        encoder: Without a head.
        head: Trained, or `None` where the checkpoint brought none that fits.
    """

    encoder: Encoder
    head: MlmHead | None


def load_mlm_teacher(name: str) -> MlmTeacher:
    """Loads an encoder, and its trained head for masked words where the checkpoint holds one.

    A head whose decoder is not tied to the word embeddings counts as none.

    Args:
        name: Hub id or folder.

    Raises:
        TeacherError: As `load_encoder` does.
    """
    encoder = load_encoder(name)
    return MlmTeacher(encoder=encoder, head=_trained_head(encoder))


def save_mlm_head(head: MlmHead, file: Path) -> None:
    """Writes the weights of a head, without the word embeddings, as safetensors."""
    save_file({name: t.contiguous() for name, t in head.state_dict().items()}, file)


def load_mlm_head(file: Path, model: PreTrainedModel) -> MlmHead:
    """Reads what `save_mlm_head` wrote.

    Args:
        file: In safetensors.
        model: The bare encoder that the head was trained on.

    Raises:
        TeacherError: If the file is missing or damaged, or holds the head of another encoder.
    """
    head = MlmHead(model)
    try:
        head.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise TeacherError(
            f"{file} holds no head for this teacher: {reason}. Delete it to train the head anew"
        ) from error
    return head


def mlm_logits(model: PreTrainedModel, hidden_ND: Tensor) -> Tensor:
    """Runs the head of a `...ForMaskedLM` model on chosen tokens alone.

    Args:
        model: Of any family in `HEAD_MODULES`.
        hidden_ND: Last hidden states of `model.base_model` at these tokens.

    Returns:
        Logits `[N, V]` in float32.

    Raises:
        TeacherError: If the model has no such head.
    """
    scored = hidden_ND
    for part in _head_parts(model):
        scored = part(scored)
    return scored.float()


def _head_parts(model: PreTrainedModel) -> list[nn.Module]:
    for names in HEAD_MODULES:
        parts = [getattr(model, name, None) for name in names]
        modules = [part for part in parts if isinstance(part, nn.Module)]
        if len(modules) == len(names):
            return modules
    raise TeacherError(
        f"{type(model).__name__} has no head for masked words that is known; take a ForMaskedLM "
        "model of a supported family"
    )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _trained_head(encoder: Encoder) -> MlmHead | None:
    # A head that is missing is drawn by chance, and nothing to warn of: one is trained then.
    with torch.random.fork_rng(devices=[]), _quiet_transformers():
        model, info = AutoModelForMaskedLM.from_pretrained(
            encoder.name, dtype=torch.float32, output_loading_info=True
        )
    base = f"{model.base_model_prefix}."
    if any(not key.startswith(base) for key in info["missing_keys"]):
        return None
    decoder, head = model.get_output_embeddings(), MlmHead(encoder.model)
    if not torch.equal(decoder.weight, head.words_VE):
        return None
    found = [module for part in _head_parts(model) for module in part.modules()]
    projections = [one for one in found if isinstance(one, nn.Linear) and one is not decoder]
    if len(projections) != 1:  # MobileBERT's, of which a part is not tied to the embeddings
        return None
    [dense] = projections
    (norm,) = (one for one in found if isinstance(one, nn.LayerNorm))
    head.dense.load_state_dict(dense.state_dict())
    head.norm.load_state_dict(norm.state_dict())
    with torch.no_grad():
        head.bias.copy_(decoder.bias)
    return head
