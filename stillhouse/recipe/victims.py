"""Classifiers under attack: what they answer to texts.

Letters in names: N texts, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import softmax

from stillhouse.data.encoding import encode
from stillhouse.data.examples import Examples
from stillhouse.errors import DataError
from stillhouse.export.checkpoint import known_max_length
from stillhouse.model.anatomy import label_names, usable_positions
from stillhouse.model.checkpoint_heads import load_headed
from stillhouse.model.predict import predict
from stillhouse.model.teachers import label_order_by_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOGIT_DECIMALS = 4
"""What lies behind depends on the other texts of a batch, and shall decide nothing."""
CPU_BATCH_SIZE, GPU_BATCH_SIZE = 16, 256
"""Texts at once; on a processor more of them are slower, because they leave its caches."""
NO_UNKNOWN = "<oov>"
"""In the place of a blanked word, where a tokeniser has no unknown token; the official code's."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Victim:
    """A classifier under attack.

    Attributes:
        name: Folder or hub id.
        model: The network.
        tokenizer: The tokeniser of its inputs.
        order: For each class of the task the model's output.
        longest: Most tokens of an example.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    order: tuple[int, ...]
    longest: int

    @property
    def unknown(self) -> str:
        """What the tokeniser reads as a word that it does not know."""
        return str(self.tokenizer.unk_token or NO_UNKNOWN)

    def answer(self, texts: Sequence[tuple[str, ...]]) -> NDArray[np.float64]:
        """Computes `[N, C]` probabilities of the task's classes for texts or pairs of texts.

        Those of a text do not depend on what else is asked.
        """
        columns = list(zip(*texts, strict=True))
        examples = Examples(text_a=columns[0], text_b=columns[1] if len(columns) > 1 else None)
        encoded = encode(examples.to_dataset(()), self.tokenizer, max_length=self.longest)
        on_cpu = self.model.device.type == "cpu"
        batch_size = CPU_BATCH_SIZE if on_cpu else GPU_BATCH_SIZE
        logits_NC = predict(self.model, encoded, batch_size=batch_size).astype(np.float64)
        logits_NC = logits_NC[:, list(self.order)]
        probabilities_NC: NDArray[np.float64] = softmax(logits_NC.round(LOGIT_DECIMALS), axis=1)
        return probabilities_NC


def load_victim(name: str, classes: Sequence[str], *, max_length: int) -> Victim:
    """Loads a classifier and finds its output for each class by name.

    Args:
        name: Folder or hub id.
        classes: The task's, by number.
        max_length: Most tokens of an example; fewer where the model was trained on fewer.

    Raises:
        TeacherError: If it cannot be loaded.
        DataError: If it is no classifier, or one of other classes.
    """
    loaded = load_headed(name)
    if loaded.head != "classifier":
        raise DataError(
            f"{name} is no classifier of texts, which alone can be attacked, but brings the head "
            f"of: {loaded.head}. Fine-tune it on the task first (stillhouse finetune)"
        )
    order = label_order_by_name(loaded.model, classes)
    if order is None:
        raise DataError(
            f"{name} has the labels {label_names(loaded.model.config)}, the task has "
            f"{list(classes)}: attack it on its own task"
        )
    module: torch.nn.Module = loaded.model
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    longest = min(known_max_length(name, max_length), usable_positions(loaded.model.config))
    return Victim(
        name=name,
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        order=order,
        longest=longest,
    )
