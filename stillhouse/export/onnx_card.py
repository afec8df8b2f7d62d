"""The model card of an ONNX folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillhouse.export.card import told_threshold

ONNX_CARD = """---
library_name: onnx
tags: [knowledge-distillation, onnx, stillhouse]{licence_line}
---

# {title}

`{name}` as an ONNX file of {precision} (opset {opset}; inputs {inputs}, outputs {outputs}; free
batch and length, at most {max_length} tokens), exported with stillhouse.

| file | MB | largest difference from PyTorch |{score_heads}
| --- | --- | --- |{score_rule}
{rows}

Checked on {texts} {unit} of {checked}.{agreement}{calibration}{trained}

```sh
pip install onnxruntime tokenizers numpy
{example}
```{of_head}

{provenance}
"""


_UNITS_OF_HEADS = {"tagger": "sentences", "reader": "questions"}
_OF_HEADS = {
    "tagger": """

Words are to be parted by spaces. The tag of a word is that of its first token.""",
    "reader": """

The example reads as much of a passage as fits beside its question. Cut longer ones into windows
that overlap, and take the answer with the highest score.""",
}


def onnx_card(told: Mapping[str, Any], *, metrics: Mapping[str, Any]) -> str:
    """Writes the card of a folder with an ONNX file.

    Args:
        told: Content of its `export.json`.
        metrics: Content of the checkpoint's `metrics.json`, or nothing.
    """
    source, names = told["source"], list(next(iter(told["scores"].values()), {}))
    agreement, calibrated = told["int8_agreement_fraction"], told["calibrated_on"]
    trained_bits = told.get("trained_weight_bits")
    licence = source["licence"]
    return ONNX_CARD.format(
        title=metrics.get("architecture_label", source["name"]),
        name=source["name"],
        precision=told["precision"],
        opset=told["opset"],
        inputs=", ".join(told["inputs"]),
        outputs=", ".join(told["outputs"]),
        max_length=told["max_length"],
        licence_line="" if licence is None else f"\nlicense: {licence}",
        score_heads="".join(f" {name} |" for name in names),
        score_rule=" --- |" * len(names),
        rows="\n".join(_onnx_rows(told)),
        texts=told["checked_on"]["texts"],
        unit=_UNITS_OF_HEADS.get(told["head"], "texts"),
        example=told["example"],
        of_head=_OF_HEADS.get(told["head"], "") + told_threshold(told["no_answer_threshold"]),
        checked=told["checked_on"]["name"],
        agreement=""
        if agreement is None
        else f" Of the answers in {told['precision']}, {agreement:.2%} are those "
        f"{'in float32' if trained_bits is None else 'in PyTorch'}.",
        calibration=""
        if calibrated is None
        else f" Scales fixed on {calibrated['texts']} "
        f"{_UNITS_OF_HEADS.get(told['head'], 'texts')} of {calibrated['name']}.",
        trained=_of_training(trained_bits),
        provenance=_provenance(source),
    )


def _of_training(bits: int | None) -> str:
    """Tells of a model that was trained in few bits what its file is."""
    if bits is None:
        return ""
    few = "" if bits == 8 else f" ({bits} bits of which say all)"  # noqa: PLR2004  all of a byte
    return (
        f"\n\nWeights were trained in {bits} bits and activations in 8, and are so in the file, in "
        f"the ranges\nof the training: weights as whole numbers of 8 bits{few}, products of whole "
        "numbers."
    )


def _onnx_rows(told: Mapping[str, Any]) -> list[str]:
    sizes = {"pytorch float32": told["source"]["weights_mb"], **told["size_mb"]}
    rows = []
    for name, size_mb in sizes.items():
        gaps = told["differences"].get(name, {})
        gap = ", ".join(f"{output} {value:.2g}" for output, value in gaps.items()) or "-"
        scores = told["scores"].get(name, {}).values()
        rows.append(f"| {name} | {size_mb:.2f} | {gap} |" + "".join(f" {s:.4f} |" for s in scores))
    return rows


def _provenance(source: Mapping[str, Any]) -> str:
    parts = [f"SHA-256 of the checkpoint's weights: `{source['weights_sha256']}`."]
    if source["teacher"] is not None:
        parts.append(f"A student of `{source['teacher']}`.")
    if source["licence"] is not None:
        parts.append(f"Licence, as its source names it: {source['licence']}.")
    else:
        parts.append("The licences of the teacher and of the training data apply.")
    return " ".join(parts)
