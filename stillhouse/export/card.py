"""The model card that lies beside every exported student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse.data.metric_names import TaskKind

CARD = """---
library_name: transformers
pipeline_tag: {pipeline}
tags: [knowledge-distillation, neural-architecture-search, stillhouse]
---

# {architecture}

A student of `{teacher}`, distilled for the task `{task}` with stillhouse.

| measure | student | teacher |
| --- | --- | --- |
| {metric} (dev, n = {quality_count}{unit}{in_8_bits}) | {quality:.4f} | {teacher_quality:.4f} |
| its 95 % interval | {quality_low:.4f} to {quality_high:.4f} | |{other_scores}
| latency (median) | {latency_ms:.3f} ms | {teacher_latency_ms:.3f} ms |
| parameters | {parameters:,} | {teacher_parameters:,} |

Latency on {device}: {workload}; {speedup:.2f} times the teacher's speed.{of_task}

```python
{example}
```

First weights: {initialisation}. The student was chosen on examples held out of the training set;
the measures above are of the dev set, read once. The teacher's licence and the licence of the
training data apply.
"""


_CLASSIFY = """from transformers import pipeline

classify = pipeline("text-classification", model="path/to/this/folder"{every_class}{trust})
classify("a sentence of the task")"""
_TAG = """from transformers import pipeline

tag = pipeline("token-classification", model="path/to/this/folder"{trust})
tag("a sentence of the task")"""
_READ = """import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForQuestionAnswering.from_pretrained("path/to/this/folder"{trust})
tokens = tokenizer("a question", "a passage that answers it", return_tensors="pt")
with torch.no_grad():
    output = model(**tokens)
first, last = output.start_logits.argmax(), output.end_logits.argmax()
tokenizer.decode(tokens.input_ids[0, first : last + 1])"""
_EXAMPLES: dict[TaskKind, str] = {"tags": _TAG, "spans": _READ}
_PIPELINES: dict[TaskKind, str] = {"tags": "token-classification", "spans": "question-answering"}
"""What the hub calls tasks; others are of texts."""
_UNITS: dict[TaskKind, str] = {"tags": " sentences", "spans": " questions"}


def model_card(
    metrics: Mapping[str, Any],
    *,
    teacher: str,
    task: str,
    kind: TaskKind = "classes",
    has_code: bool = False,
) -> str:
    """Writes the card of a student from its measures.

    Args:
        metrics: Content of the student's `metrics.json`.
        teacher: Name of the teacher.
        task: Name of the task.
        kind: What the task's labels are; of a multi-label task the example asks for every class.
        has_code: Whether the checkpoint brings its own code.
    """
    example = _EXAMPLES.get(kind, _CLASSIFY).format(
        every_class=", top_k=None" if kind == "multi_label" else "",
        trust=_trust(has_code=has_code),
    )
    return CARD.format(
        **{
            **metrics,
            "pipeline": _PIPELINES.get(kind, "text-classification"),
            "unit": _UNITS.get(kind, ""),
            "other_scores": "" if kind not in _UNITS else _other_scores(metrics),
            "of_task": _label_table(metrics) + told_threshold(metrics.get("no_answer_threshold")),
            "example": example,
            "architecture": metrics["architecture_label"],
            "workload": metrics["workload_label"],
            "initialisation": _first_weights(metrics["initialisation"]),
            "teacher": teacher,
            "task": task,
            "in_8_bits": _in_8_bits(metrics),
        }
    )


def _first_weights(described: Mapping[str, Any]) -> str:
    """Tells where they came from, of an extract also how its neurons were chosen."""
    rules = {"importance": "the most important neurons", "random": "neurons drawn by chance"}
    kind: str = described["kind"]
    return f"{rules[described['indices']]} of the teacher" if "indices" in described else kind


def _other_scores(metrics: Mapping[str, Any]) -> str:
    """Makes a row of every score but the first."""
    return "".join(
        f"\n| {name} | {value:.4f} | |"
        for name, value in metrics.get("scores", {}).items()
        if name != metrics["metric"]
    )


def _label_table(metrics: Mapping[str, Any]) -> str:
    """Tells the scores of every label, where the task has tags."""
    rows = [
        f"| {_in_table(row['label'])} | {row['precision']:.4f} | {row['recall']:.4f} "
        f"| {row['f1']:.4f} | {row['support']} |"
        for row in metrics.get("labels", ())
    ]
    if not rows:
        return ""
    head = ("| label | precision | recall | F1 | support |", "| --- | --- | --- | --- | --- |")
    return "\n\nOn dev, label by label:\n\n" + "\n".join((*head, *rows))


def _in_table(text: str) -> str:
    """Takes the meaning from characters that would end a cell, or begin code."""
    return text.replace("|", "\\|").replace("`", "\\`")


def told_threshold(threshold: float | None) -> str:
    """Tells when a passage counts as without an answer, where a model may say so."""
    if threshold is None:
        return ""
    return (
        "\n\nA passage counts as without an answer where the score of none (that of the first\n"
        f"token) exceeds that of the best span by more than {threshold:.4f}, which is\n"
        "`no_answer_threshold` in the configuration."
    )


ENCODER_CARD = """---
library_name: transformers
tags: [knowledge-distillation, neural-architecture-search, stillhouse]
---

# {architecture_label}

A task-agnostic student of `{teacher}`: {how}, distilled on `{corpus}` with
stillhouse. It has no head yet; fine-tune it on a task.

| measure | student | teacher |
| --- | --- | --- |
| parameters | {parameters:,} | {teacher_parameters:,} |
| FLOPs, share of the teacher's | {flops_fraction:.3f} | 1 |
| latency (median) | {latency_ms:.3f} ms | {teacher_latency_ms:.3f} ms |

Latency on {device}: {workload_label}.
{learnt}

```python
from transformers import AutoModelForSequenceClassification

model = AutoModelForSequenceClassification.from_pretrained("path/to/this/folder"{trust})
```

The teacher's licence and the licence of the text apply.
"""


def encoder_card(metrics: Mapping[str, Any], *, teacher: str, corpus: str, has_code: bool) -> str:
    """Writes the card of a subnet, a student without a task, from its measures.

    Args:
        metrics: Content of the student's `metrics.json`.
        teacher: Name of the teacher.
        corpus: Name of the text.
        has_code: Whether the checkpoint brings its own code.
    """
    given = {
        "how": "a subnet of a supernet",
        "learnt": f"Relation loss on held-out text: {metrics['relation_loss']:.4f}.",
        "teacher": teacher,
        "corpus": corpus,
        "trust": _trust(has_code=has_code),
    }
    return ENCODER_CARD.format(**{**metrics, **given})


_BEGINNINGS = {
    "slices": "slices of the teacher",
    "extract": "neurons extracted from the teacher",
    "scratch": "scratch",
}


def general_card(metrics: Mapping[str, Any], *, teacher: str, corpus: str, has_code: bool) -> str:
    """Writes the card of a student that was given beforehand and has no task.

    Args:
        metrics: Content of the student's `metrics.json`.
        teacher: Name of the teacher.
        corpus: Name of the text.
        has_code: Whether the checkpoint brings its own code.
    """
    before, after = metrics["held_out_losses_before"], metrics["held_out_losses"]
    told = (f"{name} {before[name]:.4f} to {after[name]:.4f}" for name in after)
    given = {
        "how": f"a given shape, begun from {_BEGINNINGS[metrics['initialisation']['kind']]}",
        "learnt": f"Losses on held-out text, before the distillation and after it: "
        f"{', '.join(told)}.\nTeacher layers by student layer, counted from 1 (0 is none): "
        f"{_told_map(metrics)}.",
        "teacher": teacher,
        "corpus": corpus,
        "trust": _trust(has_code=has_code),
    }
    return ENCODER_CARD.format(**{**metrics, **given})


def _told_map(metrics: Mapping[str, Any]) -> str:
    layer_map = metrics["layer_map"]
    return layer_map if isinstance(layer_map, str) else ", ".join(map(str, layer_map))


def _trust(*, has_code: bool) -> str:
    return ", trust_remote_code=True" if has_code else ""


def _in_8_bits(metrics: Mapping[str, Any]) -> str:
    """Tells of a student that was scored as it is served; the teacher is not."""
    precision = metrics.get("served_precision")
    return "" if precision is None else f", student in {precision}"


PRETRAINED_CARD = """---
library_name: transformers
tags: [knowledge-distillation, neural-architecture-search, stillhouse]
---

# {architecture_label}

A task-agnostic student of `{teacher}`: {how}, pre-trained on `{corpus}` with stillhouse.

| measure | student | teacher |
| --- | --- | --- |
| {measure} | {mlm_accuracy_fraction:.3f} | {teacher_mlm_accuracy_fraction:.3f} |
| parameters, without a head | {parameters:,} | {teacher_parameters:,} |
| FLOPs, share of the teacher's | {flops_fraction:.3f} | 1 |

Latency on {device}: {latency_ms:.3f} ms ({latency_how}); {workload_label}.

```python
from transformers import AutoModelForSequenceClassification

model = AutoModelForSequenceClassification.from_pretrained("path/to/this/folder"{trust})
```

The teacher's licence and the licence of the text apply.
"""


def pretrained_card(
    metrics: Mapping[str, Any], *, how: str, teacher: str, corpus: str, has_code: bool
) -> str:
    """Writes the card of a student that knows masked words and has no task.

    Args:
        metrics: Content of the student's `metrics.json`.
        how: What it is and how it was found.
        teacher: Name of the teacher.
        corpus: Name of the text.
        has_code: Whether the checkpoint brings its own code.
    """
    given = {
        "how": how,
        "teacher": teacher,
        "corpus": corpus,
        "trust": _trust(has_code=has_code),
        "measure": f"masked words told right{_in_8_bits(metrics)}",
    }
    return PRETRAINED_CARD.format(**{**metrics, **given})
