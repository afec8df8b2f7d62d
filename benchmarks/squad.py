"""Questions on passages: a teacher fine-tuned on SQuAD v1.1, and a student found and distilled.

The teacher is all-MiniLM-L6-v2, which has never seen a question; it learns from a stated part of
the training set. The search distils every candidate briefly and scores it on questions held out of
the training set, by passage; what it finds learns from the same part. The run reports on the last
articles of the training set; all figures printed here are of the official dev set, which it never
read, with 95 % intervals over questions; what torchmetrics makes of the same answers stands beside
them.

    python -m benchmarks.squad --small    # 3,000 questions, 192 tokens, 4 candidates of full width
    python -m benchmarks.squad --full     # all 87,599, 384 tokens, 30 candidates: for a GPU
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.text import squad as their_squad

from benchmarks.common import WORK, glue_folder, heading, minilm_folder
from stillhouse.api import run_search_job
from stillhouse.data.encoding import encode
from stillhouse.data.task import TaskSettings, load_task
from stillhouse.evaluate.answering import answers
from stillhouse.evaluate.metrics import bootstrap, paired_bootstrap, score
from stillhouse.model.predict import predict
from stillhouse.model.teachers import load_model, load_tokenizer
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, settings_from_dict

REPORTED = 4
"""Articles of the training set that the run reports on."""
METRICS = ("answer_f1", "exact_match")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is read and trained."""

    questions: int | None
    length: int
    stride: int
    candidates: int
    proxy: int
    teacher_epochs: float
    epochs: float
    widths: tuple[int, ...] | None = None


SMALL = Size(
    questions=3_000,
    length=192,
    stride=64,
    candidates=4,
    proxy=1_200,
    teacher_epochs=2.0,
    epochs=4.0,
    widths=(384,),  # narrower ones learn nothing from so few questions: see RESULTS.md
)
FULL = Size(
    questions=None,
    length=384,
    stride=128,
    candidates=30,
    proxy=16_384,
    teacher_epochs=2.0,
    epochs=3.0,
)


def run_files(folder: Path) -> tuple[Path, Path]:
    """Parts the training set: all articles but the last, and these."""
    folder.mkdir(parents=True, exist_ok=True)
    train, dev = folder / "train.json", folder / "dev.json"
    if not dev.exists():
        whole = json.loads((squad_folder() / "train-v1.1.json").read_text(encoding="utf-8"))
        articles = whole["data"]
        train.write_text(json.dumps({**whole, "data": articles[:-REPORTED]}), encoding="utf-8")
        dev.write_text(json.dumps({**whole, "data": articles[-REPORTED:]}), encoding="utf-8")
    return train, dev


def squad_folder() -> Path:
    """Folder of SQuAD's own files."""
    return glue_folder().parent / "squad"


def run_settings(size: Size, folder: Path) -> RunSettings:
    """Settings of the whole job; its files go to a folder."""
    train, dev = run_files(folder)
    return settings_from_dict(
        {
            "teacher": {
                "model": minilm_folder(),
                "learning_rates": [2e-4],
                "epochs": size.teacher_epochs,
                "batch_size": 16,
            },
            "task": {
                "name": str(train),
                "dev": str(dev),
                "max_length": size.length,
                "stride": size.stride,
                "max_train": size.questions,
            },
            "device": {"length": size.length, "threads": 1},
            "limit": {"speedup": 2},
            "space": {"hidden_size": size.widths},
            "distill": {"batch_size": 16},
            "search": {
                "strategy": "tpe",
                "candidates": size.candidates,
                "proxy_examples": size.proxy,
            },
            "final": {"students": 1, "epochs": size.epochs},
        }
    )


def dev_answers(folder: Path, settings: RunSettings) -> tuple[np.ndarray[Any, Any], Any]:
    """Answers of a checkpoint to the official dev set, and what they are scored against."""
    task = load_task(TaskSettings(name="squad", directory=str(squad_folder()), max_train=1))
    model, _ = load_model(str(folder), kind=task.kind)
    length, stride = settings.task.max_length, settings.task.stride
    dev = encode(task.dev, load_tokenizer(str(folder)), max_length=length, stride=stride)
    return predict(model, dev), dev.gold


def their_figures(logits: np.ndarray[Any, Any], gold: Any) -> dict[str, float]:
    """EM and F1 of the same answers by torchmetrics, in percent."""
    texts = {one.key: one.text for one in answers(logits, gold)}
    predictions = [{"prediction_text": text, "id": key} for key, text in texts.items()]
    targets = [
        {"answers": {"text": list(one.answers), "answer_start": []}, "id": one.key}
        for one in gold.sheet.questions
    ]
    found = their_squad(predictions, targets)
    return {name: float(value) for name, value in found.items()}


def main() -> None:
    """Searches and scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="size", action="store_const", const=SMALL, default=SMALL)
    parser.add_argument("--full", dest="size", action="store_const", const=FULL)
    size = parser.parse_args().size
    heading("benchmarks.squad")
    work = WORK / f"squad-{size.questions or 'all'}-{size.length}-{size.candidates}"
    settings = run_settings(size, work / "files")
    result = run_search_job(settings, work / "run", LoggingNarrator())
    run = Path(result.report).parent
    student = result.students[0]
    told = student.metrics
    print(
        f"teacher learnt from {size.questions or 'all'} questions of train-v1.1 (a tenth of them "
        f"held out), {size.length} tokens, windows overlap by {size.stride}; "
        f"{len(result.trials)} candidates; {torch.get_num_threads()} threads\n"
    )
    logits_by_name = {}
    for label, folder in (("teacher", run / "teacher"), ("student", student.path)):
        logits, gold = dev_answers(folder, settings)
        logits_by_name[label] = logits
        scores, theirs = score(METRICS, logits, gold), their_figures(logits, gold)
        bounds = {metric: bootstrap(metric, logits, gold, seed=0) for metric in METRICS}
        print(
            f"{label}: "
            + ", ".join(
                f"{metric} {scores[metric]:.4f} ({bounds[metric][0]:.4f} to "
                f"{bounds[metric][1]:.4f})"
                for metric in METRICS
            )
            + f"; torchmetrics: f1 {theirs['f1']:.2f}, em {theirs['exact_match']:.2f}; "
            f"n = {len(gold):,} questions"
        )
    gap, low, high = paired_bootstrap(
        "answer_f1", logits_by_name["student"], logits_by_name["teacher"], gold, seed=0
    )
    print(
        f"student less teacher, answer_f1: {gap:+.4f} ({low:+.4f} to {high:+.4f})\n"
        f"student: {told['architecture_label']}, {told['speedup']:.2f} times as fast as the "
        f"teacher ({told['workload_label']})\n"
        f"loyalty: {told['loyalty']}"
    )


if __name__ == "__main__":
    main()
