"""The model card that lies beside every exported student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse.data.metric_names import TaskKind

CARD = """---
library_name: transformers
tags: [knowledge-distillation, neural-architecture-search, stillhouse]
---

# {architecture}

A student of `{teacher}`, distilled for the task `{task}` with stillhouse.

| measure | student | teacher |
| --- | --- | --- |
| {metric} (dev, n = {quality_count}) | {quality:.4f} | {teacher_quality:.4f} |
| its 95 % interval | {quality_low:.4f} to {quality_high:.4f} | |
| latency (median) | {latency_ms:.3f} ms | {teacher_latency_ms:.3f} ms |
| parameters | {parameters:,} | {teacher_parameters:,} |

Latency on {device}: {workload}; {speedup:.2f} times the teacher's speed.

```python
from transformers import pipeline

classify = pipeline("text-classification", model="path/to/this/folder"{every_class}{trust})
classify("a sentence of the task")
```

First weights: {initialisation}. The student was chosen on examples held out of the training set;
the measures above are of the dev set, read once. The teacher's licence and the licence of the
training data apply.
"""


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
    return CARD.format(
        **{
            **metrics,
            "architecture": metrics["architecture_label"],
            "workload": metrics["workload_label"],
            "initialisation": metrics["initialisation"]["kind"],
            "teacher": teacher,
            "task": task,
            "every_class": ", top_k=None" if kind == "multi_label" else "",
            "trust": _trust(has_code=has_code),
        }
    )


ENCODER_CARD = """---
library_name: transformers
tags: [knowledge-distillation, neural-architecture-search, stillhouse]
---

# {architecture_label}

A task-agnostic student of `{teacher}`: a subnet of a supernet, distilled on `{corpus}` with
stillhouse. It has no head yet; fine-tune it on a task.

| measure | student | teacher |
| --- | --- | --- |
| parameters | {parameters:,} | {teacher_parameters:,} |
| FLOPs, share of the teacher's | {flops_fraction:.3f} | 1 |
| latency (median) | {latency_ms:.3f} ms | {teacher_latency_ms:.3f} ms |

Latency on {device}: {workload_label}. Relation loss on held-out text: {relation_loss:.4f}.

```python
from transformers import AutoModelForSequenceClassification

model = AutoModelForSequenceClassification.from_pretrained("path/to/this/folder"{trust})
```

The teacher's licence and the licence of the text apply.
"""


def encoder_card(metrics: Mapping[str, Any], *, teacher: str, corpus: str, has_code: bool) -> str:
    """Writes the card of a student without a task from its measures.

    Args:
        metrics: Content of the student's `metrics.json`.
        teacher: Name of the teacher.
        corpus: Name of the text.
        has_code: Whether the checkpoint brings its own code.
    """
    trust = _trust(has_code=has_code)
    return ENCODER_CARD.format(**{**metrics, "teacher": teacher, "corpus": corpus, "trust": trust})


def _trust(*, has_code: bool) -> str:
    return ", trust_remote_code=True" if has_code else ""


PRETRAINED_CARD = """---
library_name: transformers
tags: [knowledge-distillation, neural-architecture-search, stillhouse]
---

# {architecture_label}

A task-agnostic student of `{teacher}`: {how}, pre-trained on `{corpus}` with stillhouse.

| measure | student | teacher |
| --- | --- | --- |
| masked words told right | {mlm_accuracy_fraction:.3f} | {teacher_mlm_accuracy_fraction:.3f} |
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
    given = {"how": how, "teacher": teacher, "corpus": corpus, "trust": _trust(has_code=has_code)}
    return PRETRAINED_CARD.format(**{**metrics, **given})
