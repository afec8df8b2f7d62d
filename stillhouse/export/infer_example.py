"""The example in an exported folder: it needs onnxruntime, tokenizers and numpy alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALL_BITS = 8
"""Of weights whose products may be too large for what adds them."""
_BEGIN = '''"""{does}: python infer.py {arguments}."""
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
{tokens}
parts = {{"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}}
inputs = {{
    name: np.array([getattr(one, parts[name]) for one in tokens], dtype=np.int64)
    for name in export["inputs"]
}}
{options}session = onnxruntime.InferenceSession(
    folder / "model.onnx", {given}providers=["CPUExecutionProvider"]
)
[{names}] = session.run([{outputs}], inputs)
'''

_EXACT = """options = onnxruntime.SessionOptions()
# Without this, sums saturate on x86 processors that lack VNNI; on all others leave it out.
options.add_session_config_entry("session.x64quantprecision", "1")
"""
_TEXTS = """pairs = [tuple(text.split(" ||| ", 1)) if " ||| " in text else text for text in texts]
tokens = tokenizer.encode_batch(pairs)"""
_SENTENCES = """sentences = [text.split() for text in texts]
words = [[f" {word}" for word in sentence] for sentence in sentences]  # as within a text
tokens = tokenizer.encode_batch(words, is_pretokenized=True)"""
_QUESTIONS = """pairs = [text.partition(" ||| ")[::2] for text in texts]
pairs = [(question, passage) for question, passage in pairs if passage.strip()]
tokens = tokenizer.encode_batch(pairs or sys.exit(__doc__))"""

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
_TAGS = """odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
odds /= odds.sum(axis=-1, keepdims=True)
for sentence, one, row in zip(sentences, tokens, odds, strict=True):
    for number, word in enumerate(sentence):
        if number in one.word_ids:  # or it was cut off
            first = row[one.word_ids.index(number)]
            print(f"{word}\\t{export['labels'][first.argmax()]}\\t{first.max():.4f}")
    print()
"""
_ANSWERS = """for (question, passage), one, start, end in zip(
    pairs, tokens, start_logits, end_logits, strict=True
):
    places = np.flatnonzero(np.array(one.sequence_ids) == 1)  # of the passage
    length = places - places[:, None] + 1
    fits = (length > 0) & (length <= export["longest_answer"])
    scores = np.where(fits, start[places][:, None] + end[places], -np.inf)
    first, last = places[list(np.unravel_index(scores.argmax(), scores.shape))]
    answer = passage[one.offsets[first][0] : one.offsets[last][1]].strip()
    lead = scores.max() - start[0] - end[0]  # over the score of no answer
    if export["no_answer_threshold"] is not None and -lead > export["no_answer_threshold"]:
        answer = "(no answer)"
    print(f"{answer}\\t{lead:.4f}\\t{question}")
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


_TOKENS = {"tagger": _SENTENCES, "reader": _QUESTIONS}
_OUTPUTS = {"encoder": ("last_hidden_state",), "reader": ("start_logits", "end_logits")}
_ARGUMENTS = {
    "masked words": '"a sentence" "another"',
    "tagger": '"words of a sentence" "another"',
    "reader": '"a question ||| the passage that answers it"',
}
_PARTS = {
    "encoder": ("Likeness of sentences (cosines of mean states)", _VECTORS),
    "masked words": ("Likeliest words at each mask token", _WORDS),
    "tagger": ("Tags of words with their scores", _TAGS),
    "reader": ("Answers, and by how much they score above having none", _ANSWERS),
    "regression": ("Scores of sentences", _SCORE),
    "multi_label_classification": ("Every label of sentences with its score", _MULTI_LABEL),
    "classifier": ("Labels of sentences with their scores", _CLASSES),
}


def infer_example(told: Mapping[str, Any]) -> str:
    """Writes the program.

    Args:
        told: Content of `export.json`.
    """
    head = told["head"]
    part = told["problem_type"] if head == "classifier" else head
    does, rest = _PARTS.get(part, _PARTS["classifier"])
    names = _OUTPUTS.get(head, ("logits",))
    is_exact = told.get("trained_weight_bits") == ALL_BITS
    begin = _BEGIN.format(
        options=_EXACT if is_exact else "",
        given="options, " if is_exact else "",
        does=does,
        arguments=example_arguments(head),
        tokens=_TOKENS.get(head, _TEXTS),
        names=", ".join(names),
        outputs=", ".join(f'"{name}"' for name in names),
    )
    return begin + rest


def example_arguments(head: str) -> str:
    """Returns arguments to try the program with, for a model with a head."""
    return _ARGUMENTS.get(head, '"a sentence" "another" "first of a pair ||| second"')
