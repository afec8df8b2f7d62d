"""Hugging Face checkpoints that load without stillhouse, checked by loading them again.

Letters in names: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModel, AutoModelForMaskedLM

from stillhouse.errors import ExportError
from stillhouse.files import folder_written_aside
from stillhouse.model.heads import auto_class_of, head_of
from stillhouse.model.own_families import add_code, needs_code

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

METRICS_FILE = "metrics.json"
_OUTPUTS = ("logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output")
"""All that a model may give."""


def save_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    metrics: Mapping[str, Any],
    card: str,
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Writes a model, its tokeniser, its measures and its card as one folder, whole or not at all.

    The code of a model that transformers has no class for is written beside the weights; such a
    checkpoint loads with `trust_remote_code=True`.

    Args:
        folder: Where the checkpoint ends.
        model: A classifier of texts or tokens, a reader that finds answers, a model of masked
            words, or a bare encoder.
        tokenizer: The tokeniser that made its inputs.
        metrics: Content of `metrics.json`.
        card: Content of `README.md`.
        files: Content of further files, by name.

    Raises:
        ExportError: If the written checkpoint does not give the model's own outputs, or the model
            has another kind of head.
    """
    with folder_written_aside(folder) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        if needs_code(model.config):
            add_code(aside)
        _check_parity(aside, model)
        (aside / "README.md").write_text(card, encoding="utf-8")
        for name, content in files.items():
            (aside / name).write_bytes(content)
        text = json.dumps(metrics, indent=2, ensure_ascii=False)
        (aside / METRICS_FILE).write_text(text + "\n", encoding="utf-8")


def read_metrics(folder: Path) -> dict[str, Any]:
    """Reads the measures of a checkpoint folder; they are written last, so it is complete."""
    return dict(json.loads((folder / METRICS_FILE).read_text(encoding="utf-8")))


def known_max_length(name: str, otherwise: int) -> int:
    """Tells how many tokens of an example a checkpoint has learnt to read, at most.

    Args:
        name: A folder, or a hub id, of which nothing is known.
        otherwise: Most tokens in any case.
    """
    folder = Path(name)
    told = read_metrics(folder).get("max_length") if (folder / METRICS_FILE).exists() else None
    return min(told, otherwise) if isinstance(told, int) else otherwise


@torch.inference_mode()
def _check_parity(folder: Path, model: PreTrainedModel) -> None:
    """Compares outputs on eight tokens, which touch every weight but unused table rows."""
    tokens_BT = torch.arange(8, device=model.device)[None, :] % model.config.vocab_size
    ours = model.eval()(input_ids=tokens_BT)
    auto_class = _loading_class(model, ours.get("logits"))
    # Code that was just written was the model's own, and has run in this process already.
    has_code = needs_code(model.config) or model.is_remote_code()
    with warnings.catch_warnings():
        # MobileBERT's head has a part of no size where embeddings are as wide as the layers.
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        loaded = auto_class.from_pretrained(folder, trust_remote_code=has_code)
    theirs = loaded.to(model.device).eval()(input_ids=tokens_BT)
    for name in _OUTPUTS:
        if ours.get(name) is None:
            continue
        gap = (theirs[name] - ours[name]).abs().max().item()
        if not gap < 1e-4:  # noqa: PLR2004  float32 kernels differ by 1e-6 between two loads
            raise ExportError(
                f"checkpoint {folder} gives {name} that differ by {gap:g} from its model"
            )


def _loading_class(model: PreTrainedModel, logits: Tensor | None) -> Any:
    """Finds the class of transformers that loads a model with its head.

    Raises:
        ExportError: If there is none that checkpoints are written of.
    """
    if model.base_model is model:
        return AutoModel
    head = head_of(model)
    if head is not None:
        return auto_class_of(head)
    shape: tuple[int, ...] = () if logits is None else logits.shape
    if len(shape) == 3 and shape[-1] == model.config.vocab_size:  # noqa: PLR2004  [B, T, V]
        return AutoModelForMaskedLM
    raise ExportError(
        "a checkpoint is written of a classifier of texts or tokens, of a reader that finds "
        "answers, of a model of masked words or of an encoder without a head, got a "
        f"{type(model).__name__}; write it with save_pretrained"
    )
