"""One search on SST-2 with the fine-tuned all-MiniLM-L6-v2, and what it found.

Candidates and winners are chosen on search-validation; the figures below are of dev + test_gold
(n = 2,693), which chose nothing. The run resumes when it is started again.

    python -m benchmarks.search_sst2 --small   # 40 candidates, 20,000 sentences, final 1 epoch
    python -m benchmarks.search_sst2 --full    # 40 candidates, all sentences, final 3 epochs
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from benchmarks.common import WORK, glue_folder, heading, read_report_set, teacher_run
from stillhouse.api import search
from stillhouse.data.encoding import encode
from stillhouse.evaluate.metrics import bootstrap, paired_bootstrap, score
from stillhouse.model.predict import predict
from stillhouse.model.teachers import load_model, load_tokenizer
from stillhouse.search.trial import TrialState


def report_logits(folder: Path) -> np.ndarray[Any, Any]:
    """Computes a checkpoint's logits of the report set."""
    model, _ = load_model(str(folder))
    texts, _ = read_report_set()
    encoded = encode(
        Dataset.from_dict({"text_a": texts}), load_tokenizer(str(folder)), max_length=128
    )
    return predict(model, encoded)


def main() -> None:
    """Searches and prints teacher, trials and students."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--full", action="store_true")
    full = parser.parse_args().full
    heading("benchmarks.search_sst2")
    result = search(
        teacher=str(teacher_run()),
        task="glue/sst2",
        limit={"speedup": 3},
        candidates=40,
        run=WORK / ("search_sst2_full" if full else "search_sst2_small"),
        settings={
            "task": {"directory": str(glue_folder()), "max_train": None if full else 20_000},
            "search": {"proxy_examples": 8192 if full else 4096, "epochs": 1},
            "final": {"epochs": 3 if full else 1, "students": 3},
        },
    )
    _, labels = read_report_set()
    teacher = report_logits(result.path / "teacher")
    low, high = bootstrap("accuracy", teacher, labels, seed=0)
    accuracy = score(["accuracy"], teacher, labels)["accuracy"]
    print(f"teacher: accuracy {accuracy:.4f} (95 % interval {low:.4f} to {high:.4f})")
    states = [trial.state for trial in result.trials if trial.repeat_of is None]
    repeats = sum(trial.repeat_of is not None for trial in result.trials)
    print(", ".join(f"{states.count(s)} {s.value}" for s in TrialState), f"and {repeats} repeats")
    trained = [t for t in result.trials if t.state is TrialState.COMPLETE and t.repeat_of is None]
    print(f"a candidate costs {np.median([t.cost_s for t in trained]):.1f} s (median)\n\nfront:")
    for trial in result.front:
        print(f"  {trial.architecture.label:<42} {trial.quality:.4f} {trial.latency_ms:.2f} ms")
    print("\nstudents (accuracy on the report set, difference to the teacher in points):")
    for student in result.students:
        logits = report_logits(student.path)
        gap, low, high = paired_bootstrap("accuracy", logits, teacher, labels, seed=0)
        m = student.metrics
        accuracy = score(["accuracy"], logits, labels)["accuracy"]
        print(
            f"  {m['architecture_label']:<42} {accuracy:.4f} {100 * gap:+.2f} "
            f"({100 * low:+.2f} to {100 * high:+.2f})  {m['latency_ms']:.2f} ms, "
            f"{m['speedup']:.2f}x at length {m['workload']['length']}, {m['speedup_128']:.2f}x at "
            f"128, {'within' if m['within_limit'] else 'over'} the limit"
        )
    print(f"\nreport: {result.report.relative_to(WORK.parents[1])}")


if __name__ == "__main__":
    main()
