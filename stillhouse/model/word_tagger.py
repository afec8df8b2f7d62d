"""A BiLSTM tagger of words with restricted views of the sentence, after CVT.

Source: Clark et al., "Semi-Supervised Sequence Modeling with Cross-View Training" (EMNLP 2018) and
its code (tensorflow/models, research/cvt_text). Ours differs where the code leaves the choice open
or PyTorch has no counterpart: convolutions over characters never see how long other words of the
batch are; a projection of the second LSTM, which would be as wide as its units, is left out; and
there are no tokens for the ends of a sentence, which the first states of the LSTMs stand for.

Letters in names: B sentences, T words of the longest, U forms of a batch, J characters of a form,
D any width, C tags, W words of all sentences in a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from stillhouse.data.batching import plan_ordered
from stillhouse.data.lexicon import PADDING
from stillhouse.data.word_batches import collate_words
from stillhouse.model.ragged import token_places

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stillhouse.data.word_batches import WordBatch, WordSet

RestrictedView: TypeAlias = Literal["full", "forward", "backward", "future", "past"]
LSTM_SPAN = 0.1
"""LSTM weights begin within ± this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggerSizes:
    """Widths of a tagger; the defaults are the published ones.

    Attributes:
        word: Of a word's vector.
        character: Of a character's vector.
        filters: For each width of a window of characters.
        windows: Widths of those windows, in characters.
        first_units: Cells of the first LSTM, in each direction.
        first: What they are projected to.
        second: Cells, and so outputs, of the second LSTM in each direction.
        module: Hidden width of the modules that tell tags.
    """

    word: int = 300
    character: int = 50
    filters: int = 100
    windows: tuple[int, ...] = (2, 3, 4)
    first_units: int = 1024
    first: int = 512
    second: int = 512
    module: int = 512


PUBLISHED = TaggerSizes()
SMALL = TaggerSizes(
    word=100, character=25, filters=25, first_units=256, first=128, second=128, module=128
)


class Views(NamedTuple):
    """What a tagger knows at every word.

    Attributes:
        forward_BTD: Of the words up to this one.
        backward_BTD: Of the words from this one on.
        both_BTD: Of the whole sentence.
    """

    forward_BTD: Tensor  # noqa: N815
    backward_BTD: Tensor  # noqa: N815
    both_BTD: Tensor  # noqa: N815

    @property
    def full_BTD(self) -> Tensor:  # noqa: N802
        """All three side by side."""
        return torch.cat(self, dim=-1)


class WordEncoder(nn.Module):
    """Words and their characters, a BiLSTM, and another one upon it."""

    def __init__(self, sizes: TaggerSizes, *, words: int, characters: int) -> None:
        """Makes the layers.

        Args:
            sizes: Their widths.
            words: Rows of the table of words.
            characters: Rows of the table of characters.
        """
        super().__init__()
        self.words = nn.Embedding(words, sizes.word, padding_idx=PADDING)
        self.word_scale = nn.Parameter(torch.ones(()))
        self.characters = nn.Embedding(characters, sizes.character, padding_idx=PADDING)
        self.windows = nn.ModuleList(
            nn.Conv1d(sizes.character, sizes.filters, width) for width in sizes.windows
        )
        self.first = nn.LSTM(
            sizes.word + len(sizes.windows) * sizes.filters,
            sizes.first_units,
            proj_size=sizes.first,
            bidirectional=True,
            batch_first=True,
        )
        self.second = nn.LSTM(2 * sizes.first, sizes.second, bidirectional=True, batch_first=True)

    def forward(self, batch: WordBatch, dropout: float = 0.0) -> Views:
        """Reads sentences.

        Args:
            batch: B sentences.
            dropout: Share of the numbers between layers that are dropped, 0..1.

        Returns:
            The views, 0 at padding.
        """
        words_BTD = functional.dropout(self.words(batch.words_BT), dropout) * self.word_scale
        spelt_BTD = self._spelt(batch.spellings_UJ)[batch.forms_BT]
        spelt_BTD = functional.dropout(spelt_BTD, dropout)
        read_BTD = torch.cat([words_BTD, spelt_BTD], dim=-1)
        first_BTD = functional.dropout(_run(self.first, read_BTD, batch.lengths_B), dropout)
        second_BTD = functional.dropout(_run(self.second, first_BTD, batch.lengths_B), dropout)
        forward_BTD, backward_BTD = first_BTD.chunk(2, dim=-1)
        return Views(forward_BTD, backward_BTD, second_BTD)

    def _spelt(self, spellings_UJ: Tensor) -> Tensor:
        """Finds what the windows of characters hold at most, `[U, D]`.

        A window begins at a character, and may reach beyond the last one.
        """
        is_character_U1J = (spellings_UJ != PADDING)[:, None]
        vectors_UDJ = self.characters(spellings_UJ).transpose(1, 2)
        parts = []
        for window in self.windows:
            assert isinstance(window, nn.Conv1d)
            room = functional.pad(vectors_UDJ, (0, window.kernel_size[0] - 1))
            found_UDJ = functional.relu(window(room)) * is_character_U1J
            parts.append(found_UDJ.amax(dim=2))
        return torch.cat(parts, dim=-1)


class TagModule(nn.Module):
    """Tells tags from a view: a layer, perhaps a ReLU, another layer."""

    def __init__(self, width: int, hidden: int, tags: int, *, is_bent: bool = True) -> None:
        """Makes the layers; `is_bent` has a ReLU between them."""
        super().__init__()
        self.project = nn.Linear(width, hidden)
        self.tell = nn.Linear(hidden, tags)
        self.is_bent = is_bent

    def forward(self, view_BTD: Tensor) -> Tensor:
        """Returns logits `[B, T, C]`."""
        hidden_BTD = self.project(view_BTD)
        if self.is_bent:
            hidden_BTD = functional.relu(hidden_BTD)
        logits_BTC: Tensor = self.tell(hidden_BTD)
        return logits_BTC


class WordTagger(nn.Module):
    """The tagger that is served: the encoder and the primary module."""

    def __init__(self, sizes: TaggerSizes, *, words: int, characters: int, tags: int) -> None:
        """Makes the layers; the arguments are those of the encoder, and the number of tags."""
        super().__init__()
        self.encoder = WordEncoder(sizes, words=words, characters=characters)
        width = 2 * sizes.first + 2 * sizes.second
        self.primary = TagModule(width, sizes.module, tags)

    def forward(self, batch: WordBatch, dropout: float = 0.0) -> Tensor:
        """Returns logits `[B, T, C]`; those of padding mean nothing."""
        logits_BTC: Tensor = self.primary(self.encoder(batch, dropout).full_BTD)
        return logits_BTC


class AuxiliaryModules(nn.Module):
    """The five modules that learn to tell from less what the primary one tells from all.

    `future` and `past` tell the tag of the word after and before the one whose state they read, so
    that they have not seen the word itself. Only `full` reads the second LSTM.
    """

    def __init__(self, sizes: TaggerSizes, *, tags: int) -> None:
        """Makes a module for each view."""
        super().__init__()
        width = 2 * sizes.first + 2 * sizes.second
        self.full = TagModule(width, sizes.module, tags, is_bent=False)
        self.forwards = TagModule(sizes.first, sizes.module, tags)
        self.backwards = TagModule(sizes.first, sizes.module, tags)
        self.future = TagModule(sizes.first, sizes.module, tags)
        self.past = TagModule(sizes.first, sizes.module, tags)

    def forward(self, views: Views) -> dict[RestrictedView, Tensor]:
        """Returns the logits `[B, T, C]` of every view."""
        return {
            "full": self.full(views.full_BTD),
            "forward": self.forwards(views.forward_BTD),
            "backward": self.backwards(views.backward_BTD),
            "future": self.future(views.forward_BTD),
            "past": self.past(views.backward_BTD),
        }


class CrossViewTagger(nn.Module):
    """A tagger with the modules that only its training needs."""

    def __init__(
        self, sizes: TaggerSizes, *, words: int, characters: int, tags: int, seed: int
    ) -> None:
        """Makes both, with first weights that are a function of the seed."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.tagger = WordTagger(sizes, words=words, characters=characters, tags=tags)
            self.auxiliary = AuxiliaryModules(sizes, tags=tags)
            for module in self.modules():
                _initialise(module)


def set_word_vectors(tagger: WordTagger, rows: NDArray[np.int64], vectors_RD: object) -> None:
    """Writes vectors into rows of the table of words, in place.

    Args:
        tagger: Whose table it is.
        rows: R rows.
        vectors_RD: `[R, D]` as float32.
    """
    table = tagger.encoder.words.weight
    with torch.no_grad():
        table[torch.from_numpy(rows)] = torch.as_tensor(vectors_RD).to(table)


@torch.inference_mode()
def word_logits(
    tagger: WordTagger, encoded: WordSet, *, batch_size: int = 64
) -> NDArray[np.float32]:
    """Computes the logits of every word.

    Args:
        tagger: Any tagger.
        encoded: N sentences.
        batch_size: Sentences at once.

    Returns:
        `[W, C]` in the set's own order.
    """
    weight = tagger.primary.tell.weight
    logits_WC = np.empty((int(encoded.offsets[-1]), weight.shape[0]), dtype=np.float32)
    for indices in plan_ordered(encoded.lengths, batch_size=batch_size):
        batch = collate_words(encoded, indices).to(weight.device)
        told_WC = tagger(batch)[batch.mask_BT]
        logits_WC[token_places(encoded.offsets, indices)] = told_WC.float().cpu().numpy()
    return logits_WC


def _run(lstm: nn.LSTM, inputs_BTD: Tensor, lengths_B: Tensor) -> Tensor:
    """Runs an LSTM over the words alone: backwards it begins at the last word, not at padding."""
    packed = pack_padded_sequence(inputs_BTD, lengths_B, batch_first=True, enforce_sorted=False)
    outputs, _ = lstm(packed)
    states_BTD, _ = pad_packed_sequence(outputs, batch_first=True, total_length=inputs_BTD.shape[1])
    return states_BTD


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """Draws a layer's first weights as CVT's code does; forget gates begin open, biases at 0."""
    if isinstance(module, nn.LSTM):
        for name, parameter in module.named_parameters():
            if not name.startswith("bias"):
                nn.init.uniform_(parameter, -LSTM_SPAN, LSTM_SPAN)
                continue
            nn.init.zeros_(parameter)
            if name.startswith("bias_ih"):  # gates in the order input, forget, cell, output
                parameter[module.hidden_size : 2 * module.hidden_size] = 1.0
    elif isinstance(module, nn.Linear | nn.Conv1d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        span = math.sqrt(3 / module.embedding_dim)  # rows of length 1 in the mean
        nn.init.uniform_(module.weight, -span, span)
        module.weight[PADDING] = 0.0
