"""Hugging Face checkpoints that load without stillhouse, checked by loading them again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForSequenceClassification

from stillhouse.errors import ExportError
from stillhouse.files import folder_written_aside

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

METRICS_FILE = "metrics.json"


def save_checkpoint(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    metrics: Mapping[str, Any],
    card: str,
) -> None:
    """Writes a model, its tokeniser, its measures and its card as one folder, whole or not at all.

    Args:
        folder: Where the checkpoint ends.
        model: A model that transformers has a class for.
        tokenizer: The tokeniser that made its inputs.
        metrics: Content of `metrics.json`.
        card: Content of `README.md`.

    Raises:
        ExportError: If the written checkpoint does not give the model's own outputs.
    """
    with folder_written_aside(folder) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        _check_parity(aside, model)
        (aside / "README.md").write_text(card, encoding="utf-8")
        text = json.dumps(metrics, indent=2, ensure_ascii=False)
        (aside / METRICS_FILE).write_text(text + "\n", encoding="utf-8")


def read_metrics(folder: Path) -> dict[str, Any]:
    """Reads the measures of a checkpoint folder; they are written last, so it is complete."""
    return dict(json.loads((folder / METRICS_FILE).read_text(encoding="utf-8")))


@torch.inference_mode()
def _check_parity(folder: Path, model: PreTrainedModel) -> None:
    """Compares outputs on eight tokens, which touch every weight but unused table rows."""
    again = AutoModelForSequenceClassification.from_pretrained(folder).to(model.device).eval()
    model.eval()
    tokens_BT = torch.arange(8, device=model.device)[None, :] % model.config.vocab_size
    gap = (again(input_ids=tokens_BT).logits - model(input_ids=tokens_BT).logits).abs().max().item()
    if not gap < 1e-4:  # noqa: PLR2004  float32 kernels differ by 1e-6 between two loads
        raise ExportError(f"checkpoint {folder} gives logits that differ by {gap:g} from its model")
