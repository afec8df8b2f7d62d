"""A fine-tuned transformer that tells a word tagger what text without tags should have.

A word's distribution is that of its first piece. Where the tagger marks the ends of chunks and the
teacher does not, it is spread over the tagger's tags (`data/bioes.py`).

Letters in names: B sentences, T words of the longest, P tokens of all sentences in a row, S tokens
of the longest sentence, W words of all sentences in a row, C tags of the task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from stillhouse.data.batching import collate
from stillhouse.data.encoding import EncodedSet
from stillhouse.data.labels import abbreviated
from stillhouse.data.word_pieces import cut_words
from stillhouse.distill.cross_view import Targets
from stillhouse.errors import TeacherError
from stillhouse.model.anatomy import label_names, usable_positions
from stillhouse.model.teachers import (
    label_order_by_name,
    load_model,
    load_tokenizer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stillhouse.data.bioes import TagCode
    from stillhouse.distill.teacher import TeacherSignals


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggingTeacher:
    """A frozen tagger of words.

    Attributes:
        order: Its output for each tag of the task.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    order: tuple[int, ...]


def load_tagging_teacher(name: str, tags: Sequence[str]) -> TaggingTeacher:
    """Loads a tagger of words, and finds its output for each of the task's tags.

    Args:
        name: Hub id or folder of a checkpoint that was fine-tuned on the task.
        tags: Names of the task's tags.

    Raises:
        TeacherError: If it has no trained head for tags, or lacks some of them; it names them.
    """
    model, has_head = load_model(name, kind="tags")
    if not has_head:
        raise TeacherError(
            f"{name} has no trained head for tags of words: fine-tune it first, with `stillhouse "
            f"finetune {name} --task TASK`, and give the folder of the result as the teacher"
        )
    order = label_order_by_name(model, tags)
    if order is None:
        theirs = label_names(model.config)
        missing = [tag for tag in tags if tag not in theirs]
        if missing:
            raise TeacherError(
                f"the teacher {name} lacks {len(missing)} of the task's {len(tags)} tags: "
                f"{abbreviated(missing)}; it has {abbreviated(theirs)}. Give one that was "
                "fine-tuned on this task"
            )
        order = tuple(theirs.index(tag) for tag in tags)
    model.requires_grad_(requires_grad=False)
    return TaggingTeacher(model=model, tokenizer=load_tokenizer(name), order=order)


class TaggingTargets:
    """What a teacher tells of text without tags."""

    def __init__(
        self,
        teacher: TaggingTeacher,
        code: TagCode,
        sentences: Mapping[int, Sequence[str]],
        *,
        max_length: int,
        ask: Callable[[PreTrainedModel, EncodedSet], TeacherSignals],
    ) -> None:
        """Tokenises the sentences and lets the teacher read them.

        Args:
            teacher: On the device that it works on.
            code: How the tagger writes the task's tags.
            sentences: Those that are going to be asked for, by the numbers that they have then.
            max_length: Most tokens of a sentence; words beyond have no target.
            ask: Makes the source of a teacher's signals for a set.
        """
        self._teacher, self._code = teacher, code
        self._places = {number: place for place, number in enumerate(sentences)}
        tokenizer = teacher.tokenizer
        limit = min(max_length, usable_positions(teacher.model.config), tokenizer.model_max_length)
        pieces = cut_words(list(sentences.values()), tokenizer, limit)
        offsets = _offsets(pieces.lengths)
        self._encoded = EncodedSet(
            input_ids=pieces.input_ids,
            token_type_ids=pieces.token_type_ids,
            offsets=offsets,
            pad_id=tokenizer.pad_token_id or 0,
        )
        self._word_offsets = _offsets([len(words) for words in sentences.values()])
        # Token of each word, counted in its sentence; -1 of a word that was cut off.
        self._token_W = np.full(self._word_offsets[-1], -1, dtype=np.int64)
        place_P = np.arange(offsets[-1]) - np.repeat(offsets[:-1], pieces.lengths)
        is_first_P = pieces.words >= 0
        self._token_W[pieces.words[is_first_P]] = place_P[is_first_P]
        self._signals = ask(teacher.model, self._encoded)

    def __call__(self, indices: NDArray[np.int64], words: int) -> Targets:
        """Returns the targets of sentences, as `TeacherTargets` says."""
        places = np.array([self._places[int(one)] for one in indices])
        batch = collate(self._encoded, places).to(self._teacher.model.device)
        logits_BSC = self._signals(batch).logits[..., list(self._teacher.order)]
        chances_BSC = logits_BSC.float().softmax(dim=-1).cpu().numpy()
        token_BT = np.full((len(places), words), -1, dtype=np.int64)
        for row, place in enumerate(places):
            start, end = self._word_offsets[place : place + 2]
            token_BT[row, : end - start] = self._token_W[start:end]
        known_BT = token_BT >= 0
        chances_BTC = chances_BSC[np.arange(len(places))[:, None], token_BT.clip(min=0)]
        chances_BTC[~known_BT] = 0.0
        return Targets(torch.from_numpy(self._code.spread(chances_BTC)), torch.from_numpy(known_BT))


def _offsets(lengths: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
