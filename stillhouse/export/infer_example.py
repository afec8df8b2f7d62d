"""The example in an exported folder: it needs onnxruntime, tokenizers and numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BEGIN = '''"""{does}: python infer.py "a sentence" "another"{pairs}."""
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = Path(__file__).resolve().parent
export = json.loads((folder / "export.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.enable_truncation(export["max_length"])
tokenizer.enable_padding(pad_id=export["pad_id"], pad_token=export["pad_token"])
texts = sys.argv[1:] or sys.exit(__doc__)
pairs = [tuple(text.split(" ||| ", 1)) if " ||| " in text else text for text in texts]
tokens = tokenizer.encode_batch(pairs)
parts = {{"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}}
inputs = {{
    name: np.array([getattr(one, parts[name]) for one in tokens], dtype=np.int64)
    for name in export["inputs"]
}}
session = onnxruntime.InferenceSession(
    folder / "model.onnx", providers=["CPUExecutionProvider"]
)
[{output}] = session.run(["{output}"], inputs)
'''

_CLASSES = """odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
for text, row in zip(texts, odds / odds.sum(axis=-1, keepdims=True), strict=True):
    print(f"{export['labels'][row.argmax()]}\\t{row.max():.4f}\\t{text}")
"""
_MULTI_LABEL = """for text, row in zip(texts, 1 / (1 + np.exp(-logits)), strict=True):
    for label, score in zip(export["labels"], row, strict=True):
        print(f"{label}\\t{score:.4f}\\t{text}")
"""
_SCORE = """for text, row in zip(texts, logits, strict=True):
    for label, score in zip(export["labels"], row, strict=True):
        print(f"{label}\\t{score:.4f}\\t{text}")
"""
_WORDS = """for text, ids, row in zip(texts, inputs["input_ids"], logits, strict=True):
    for place in np.flatnonzero(ids == export["mask_id"]):
        odds = np.exp(row[place] - row[place].max())
        for word in np.argsort(-odds)[:5]:
            print(f"{tokenizer.id_to_token(word)}\\t{odds[word] / odds.sum():.4f}\\t{text}")
"""
_VECTORS = """kept = inputs["attention_mask"][:, :, None]
vectors = (last_hidden_state * kept).sum(axis=1) / kept.sum(axis=1)
vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
for text, row in zip(texts, vectors, strict=True):
    print(f"cosine with the first\\t{row @ vectors[0]:.4f}\\t{text}")
"""


def infer_example(told: Mapping[str, Any]) -> str:
    """Writes the program.

    Args:
        told: Content of `export.json`.
    """
    does, rest = _part(told)
    output = "last_hidden_state" if told["head"] == "encoder" else "logits"
    pairs = ' "first of a pair ||| second"' if told["head"] != "masked words" else ""
    return _BEGIN.format(does=does, output=output, pairs=pairs) + rest


def _part(told: Mapping[str, Any]) -> tuple[str, str]:
    if told["head"] == "encoder":
        return "Likeness of sentences (cosines of mean states)", _VECTORS
    if told["head"] == "masked words":
        return "Likeliest words at each mask token", _WORDS
    if told["problem_type"] == "regression":
        return "Scores of sentences", _SCORE
    if told["problem_type"] == "multi_label_classification":
        return "Every label of sentences with its score", _MULTI_LABEL
    return "Labels of sentences with their scores", _CLASSES
