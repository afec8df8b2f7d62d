"""Tags of words: chunks of CoNLL-2000 and parts of speech of English Web Treebank.

For each task the teacher, all-MiniLM-L6-v2, is fine-tuned, a student is searched for and distilled,
and both are scored on the official test sentences, which chose nothing, with 95 % intervals over
sentences. CoNLL-2000 has no dev set of its own: its test set is read once a model.

    python -m benchmarks.tagging --small    # 3,000 sentences a task, 6 candidates
    python -m benchmarks.tagging --full     # all sentences, 30 candidates
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import WORK, glue_folder, heading, minilm_folder
from stillhouse.api import run_search_job
from stillhouse.data.encoding import encode
from stillhouse.data.task import load_task
from stillhouse.evaluate.metrics import bootstrap, paired_bootstrap, score
from stillhouse.model.predict import predict
from stillhouse.model.teachers import load_model, load_tokenizer
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, settings_from_dict

FILES = {
    "CoNLL-2000 chunks": ("conll:conll2000/train.txt", "conll:conll2000/test.txt"),
    "EWT parts of speech": ("ud_ewt/en_ewt-ud-train.conllu", "ud_ewt/en_ewt-ud-test.conllu"),
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is read and trained."""

    sentences: int | None
    candidates: int
    proxy: int
    teacher_epochs: float
    epochs: float


SMALL = Size(sentences=3_000, candidates=6, proxy=1_500, teacher_epochs=3.0, epochs=4.0)
FULL = Size(sentences=None, candidates=30, proxy=8_192, teacher_epochs=4.0, epochs=8.0)


def run_settings(size: Size, train: str, test: str) -> RunSettings:
    """Settings of the whole job on one task."""
    folder = glue_folder().parent / "tagging"

    def path(name: str) -> str:
        prefix, _, rest = name.rpartition(":")
        return f"{prefix}:{folder / rest}" if prefix else str(folder / rest)

    return settings_from_dict(
        {
            "teacher": {
                "model": minilm_folder(),
                "learning_rates": [2e-4],
                "epochs": size.teacher_epochs,
                "batch_size": 16,
            },
            "task": {
                "name": path(train),
                "dev": path(test),
                "max_length": 128,
                "max_train": size.sentences,
            },
            "device": {"length": 48, "threads": 1},
            "limit": {"speedup": 2},
            "distill": {"batch_size": 16},
            "search": {
                "strategy": "tpe",
                "candidates": size.candidates,
                "proxy_examples": size.proxy,
            },
            "final": {"students": 1, "epochs": size.epochs},
        }
    )


def test_tags(folder: Path, settings: RunSettings) -> tuple[np.ndarray[Any, Any], Any]:
    """Tags of a checkpoint on the test sentences, and what they are scored against."""
    task = load_task(settings.task)
    model, _ = load_model(str(folder), kind=task.kind)
    test = encode(task.dev, load_tokenizer(str(folder)), max_length=settings.task.max_length)
    return predict(model, test), test.gold


def main() -> None:
    """Searches and scores, one task after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="size", action="store_const", const=SMALL, default=SMALL)
    parser.add_argument("--full", dest="size", action="store_const", const=FULL)
    size = parser.parse_args().size
    heading("benchmarks.tagging")
    print(f"at most {size.sentences or 'all'} training sentences a task, a tenth of them held out")
    for title, (train, test) in FILES.items():
        settings = run_settings(size, train, test)
        name = f"tagging-{title.split()[0].lower()}-{size.sentences or 'all'}-{size.candidates}"
        result = run_search_job(settings, WORK / name, LoggingNarrator())
        student = result.students[0]
        metric = student.metrics["metric"]
        print(f"\n{title}: {len(result.trials)} candidates")
        tags = {}
        for label, folder in (
            ("teacher", Path(result.report).parent / "teacher"),
            ("student", student.path),
        ):
            tags[label], gold = test_tags(folder, settings)
            low, high = bootstrap(metric, tags[label], gold, seed=0)
            scores = score([metric, "tag_accuracy"], tags[label], gold)
            others = "".join(f", {k} {v:.4f}" for k, v in scores.items() if k != metric)
            print(
                f"  {label}: {metric} {scores[metric]:.4f} ({low:.4f} to {high:.4f}){others}; "
                f"n = {len(gold):,} sentences"
            )
        gap, low, high = paired_bootstrap(metric, tags["student"], tags["teacher"], gold, seed=0)
        told = student.metrics
        print(
            f"  student less teacher: {gap:+.4f} ({low:+.4f} to {high:+.4f})\n"
            f"  student: {told['architecture_label']}, {told['speedup']:.2f} times as fast as the "
            f"teacher ({told['workload_label']})",
            flush=True,
        )


if __name__ == "__main__":
    main()
