"""Checkpoints of quantised models, checked by loading them again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from stillhouse.errors import ExportError
from stillhouse.export.checkpoint import METRICS_FILE
from stillhouse.files import folder_written_aside
from stillhouse.model.lsq import load_quantised, settle
from stillhouse.model.own_families import add_code, needs_code
from stillhouse.model.packing_bits import PACKED_FILE, load_packed, write_packed

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

QUANTISED_FOLDER = "quantised"
"""Of a student's form in few bits, in its own folder."""
BYTES_A_MB = 1e6
BYTES_A_FLOAT = 4
CARD = """---
library_name: stillhouse
tags: [quantization, knowledge-distillation, stillhouse]
---

# {architecture_label}, weights in {weight_bits} bits, activations in {activation_bits}

`{model}`, which learnt from itself on the task `{task}` with stillhouse to have few bits.

| measure | quantised | in float32 | quantised without training |
| --- | --- | --- | --- |
| {metric} (dev, n = {quality_count}) | {quality:.4f} | {float_quality:.4f} | \
{post_training_quality:.4f} |
| 95 % interval | {quality_low:.4f} to {quality_high:.4f} | {float_quality_low:.4f} to \
{float_quality_high:.4f} | {post_training_quality_low:.4f} to {post_training_quality_high:.4f} |
| size of the weights | {size_mb:.2f} MB | {float_size_mb:.2f} MB | {size_mb:.2f} MB |

```python
from stillhouse.model.lsq import load_quantised

model = load_quantised("path/to/this/folder")
```

`{packed}` holds the same weights as whole numbers of {weight_bits} bits. In
`model.safetensors` they are rounded, in float32: transformers alone loads that{loading}, and
computes the activations in float32.

All choices were made on examples held out of the training set; dev was read once. The licences of
`{model}` and of the training data apply.
"""


def save_quantised(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    measure: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    *,
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Writes a quantised model, packed and not, as one folder, whole or not at all.

    Args:
        folder: Where the checkpoint ends.
        model: Quantised; its weights are rounded for good.
        tokenizer: The tokeniser that made its inputs.
        measure: Given sizes as they stand in `metrics.json`, returns all of that file, with what
            the card tells.
        files: Further ones by name.

    Raises:
        ExportError: If what was written does not give the model's own outputs.
    """
    settle(model)
    with folder_written_aside(folder) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        if needs_code(model.config):
            add_code(aside)
        write_packed(model, aside / PACKED_FILE)
        for written in (load_quantised(aside), load_packed(aside)):
            _check_same(model, written, folder)
        packed_bytes = (aside / PACKED_FILE).stat().st_size
        float_bytes = BYTES_A_FLOAT * _float_parameters(model)
        metrics = measure(
            {
                "size_mb": packed_bytes / BYTES_A_MB,
                "float_size_mb": float_bytes / BYTES_A_MB,
                "compression": float_bytes / packed_bytes,
            }
        )
        loading = " with `trust_remote_code=True`" if needs_code(model.config) else ""
        card = CARD.format(**metrics, packed=PACKED_FILE, loading=loading)
        (aside / "README.md").write_text(card, encoding="utf-8")
        text = json.dumps(metrics, indent=2, ensure_ascii=False)
        (aside / METRICS_FILE).write_text(text + "\n", encoding="utf-8")
        for name, content in files.items():
            (aside / name).write_bytes(content)


def _float_parameters(model: PreTrainedModel) -> int:
    """Counts the parameters of the model before it was quantised: all but the clips."""
    return sum(p.numel() for name, p in model.named_parameters() if not name.endswith("_clip"))


def _check_same(model: PreTrainedModel, written: PreTrainedModel, folder: Path) -> None:
    theirs = written.state_dict()
    for name, tensor in model.state_dict().items():
        if not torch.equal(tensor.cpu(), theirs[name]):
            gap = (tensor.cpu() - theirs[name]).abs().max().item()
            raise ExportError(f"checkpoint {folder} has {name} that differs by {gap:g}")
