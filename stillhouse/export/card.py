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

Checked on {texts} texts of {checked}.{agreement}{calibration}

```sh
pip install onnxruntime tokenizers numpy
python infer.py "a sentence"
```

{provenance}
"""


def onnx_card(told: Mapping[str, Any], *, metrics: Mapping[str, Any]) -> str:
    """Writes the card of a folder with an ONNX file.

    Args:
        told: Content of its `export.json`.
        metrics: Content of the checkpoint's `metrics.json`, or nothing.
    """
    source, names = told["source"], list(next(iter(told["scores"].values()), {}))
    agreement, calibrated = told["int8_agreement_fraction"], told["calibrated_on"]
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
        checked=told["checked_on"]["name"],
        agreement=""
        if agreement is None
        else f" Of the answers in {told['precision']}, {agreement:.2%} are those in float32.",
        calibration=""
        if calibrated is None
        else f" Scales fixed on {calibrated['texts']} texts of {calibrated['name']}.",
        provenance=_provenance(source),
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
