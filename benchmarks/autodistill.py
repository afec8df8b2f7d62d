"""AutoDistill at small scale: does flash distillation rank students, and is MobileBERT beaten?

Teacher all-MiniLM-L6-v2, English Wikipedia, MobileBERTs in its proportions. Each part resumes:

    python -m benchmarks.autodistill --small --part fidelity  # flash scores against regular ones
    python -m benchmarks.autodistill --small --part found     # found against hand-crafted

Flash scores are on the half of the held-out text that chooses, regular ones on the other. Beside
them stands what always telling the most frequent piece would score: a student is counted as trained
from twice that on.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, replace

from accelerate import Accelerator

from benchmarks.common import WORK, Records, enwiki_folder, heading, minilm_folder
from stillhouse.api import run_search_job
from stillhouse.distill.masked_lm import held_out_mlm, hidden_tokens
from stillhouse.evaluate.agreement import rank_agreement
from stillhouse.recipe.flash import judge_by_flash, transfer
from stillhouse.recipe.mlm_nursery import with_mlm_head
from stillhouse.recipe.mobile_nursery import MobileNursery, open_mobile_nursery
from stillhouse.recipe.pretrain import train_student
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, settings_from_dict
from stillhouse.space.architecture import Architecture
from stillhouse.space.published import autodistill_references

TRAINED_FROM = 2.0
"""Times the score of the most frequent piece."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained.

    Attributes:
        transfer_steps: Of a regular distillation, all layers together.
        pretrain_steps: Those that follow.
        flash_steps: Flash budgets, in steps of one layer.
        judged: Students whose flash scores are compared with their regular ones.
        trials: Of the search.
    """

    length: int
    batch: int
    held_out: int
    head_steps: int
    transfer_steps: int
    pretrain_steps: int
    flash_steps: tuple[int, ...]
    judged: int
    trials: int


SMALL = Size(
    length=64,
    batch=16,
    held_out=256,
    head_steps=300,
    transfer_steps=180,
    pretrain_steps=300,
    flash_steps=(2, 4, 16),
    judged=16,
    trials=16,
)
FULL = Size(
    length=128,
    batch=64,
    held_out=2_000,
    head_steps=5_000,
    transfer_steps=12_000,
    pretrain_steps=25_000,
    flash_steps=(60, 300, 1_200),
    judged=24,
    trials=60,
)


def run_settings(size: Size) -> RunSettings:
    """Settings of a search on this processor."""
    regular = size.transfer_steps + size.pretrain_steps
    return settings_from_dict(
        {
            "recipe": "autodistill",
            "teacher": {"model": minilm_folder()},
            "corpus": {
                "name": str(enwiki_folder()),
                "length": size.length,
                "held_out": size.held_out,
                "max_tokens": 2 * regular * size.batch * size.length,
            },
            "mlm": {"head_steps": size.head_steps},
            "transfer": {
                "steps": size.transfer_steps,
                "batch_size": size.batch,
                "learning_rate": 1e-3,
                "flash_fraction": 0.05,
            },
            "pretrain": {
                "steps": size.pretrain_steps,
                "batch_size": size.batch,
                "learning_rate": 1e-3,
            },
            "search": {"candidates": size.trials},
            "final": {"students": 3},
            "limit": {"speedup": 1.0},
            "device": {"threads": 1, "length": 128},
        }
    )


def open_nursery(size: Size) -> MobileNursery:
    """Teacher with its head, corpus and space, made or taken up again."""
    settings = run_settings(size)
    path = WORK / "autodistill" / f"nursery-{size.length}-{size.head_steps}"
    with open_run(path, settings, asks=("transfer", "pretrain", "search")) as run:
        nursery = open_mobile_nursery(settings, run, LoggingNarrator(), Accelerator(cpu=True))
        return with_mlm_head(nursery, nursery.text_of(size.batch))


def most_frequent_fraction(nursery: MobileNursery) -> float:
    """What always telling the most frequent hidden piece would score on the report text."""
    counts = Counter(hidden_tokens(nursery.report_text, nursery.masker))
    return counts.most_common(1)[0][1] / counts.total()


def spread(nursery: MobileNursery, count: int) -> list[Architecture]:
    """Students spread evenly over the space by their size, the same each time."""
    ordered = sorted(nursery.space, key=nursery.parameters)
    return [ordered[round(n * (len(ordered) - 1) / (count - 1))] for n in range(count)]


def regular(nursery: MobileNursery, architecture: Architecture, records: Records) -> float:
    """Accuracy of a student after the regular distillation, on text that chose nothing."""
    job = {"regular": architecture.key, "pretrain": nursery.settings.pretrain.steps}
    known = records.find(job)
    if known is None:
        student = nursery.build(architecture)
        steps_a_layer = nursery.steps_a_layer(architecture)
        transfer(nursery, student, f"regular-{architecture.key}", steps_a_layer=steps_a_layer)
        train_student(nursery, student, f"regular-{architecture.key}")
        score = held_out_mlm(
            student, nursery.report_text, nursery.masker, precision=nursery.precision
        )
        known = records.add(job, {"accuracy": score.accuracy_fraction, "n": score.chosen_count})
        print(f"  {architecture.label}: {known['accuracy']:.4f}", flush=True)
    return float(known["accuracy"])


def flash(
    nursery: MobileNursery, architecture: Architecture, steps: int, records: Records
) -> float:
    """Score of a student after a flash distillation of so many steps a layer."""
    job = {"flash": architecture.key, "steps_a_layer": steps}
    known = records.find(job)
    if known is None:
        wanted = nursery.settings.transfer
        layers = nursery.teacher_architecture.layers
        whole = wanted.steps + nursery.settings.pretrain.steps
        short = replace(wanted, flash_fraction=steps * layers / whole)
        changed = replace(nursery, settings=replace(nursery.settings, transfer=short))
        assert changed.flash_steps_a_layer(architecture) == steps
        judgement = judge_by_flash(changed, 0, architecture)
        known = records.add(job, {"accuracy": judgement.quality})
    return float(known["accuracy"])


def check_fidelity(size: Size) -> None:
    """Rank agreement of flash scores and regular ones, at each flash budget."""
    nursery = open_nursery(size)
    records = Records(f"autodistill_{size.transfer_steps}_{size.pretrain_steps}")
    chosen = spread(nursery, size.judged)
    finished = [regular(nursery, one, records) for one in chosen]
    floor = most_frequent_fraction(nursery)
    trained = sum(score >= TRAINED_FROM * floor for score in finished)
    print(
        f"regular, {size.transfer_steps} + {size.pretrain_steps} steps: accuracy "
        f"{min(finished):.4f} to {max(finished):.4f}; the most frequent piece {floor:.4f}; "
        f"{trained} of {len(finished)} count as trained"
    )
    for steps in size.flash_steps:
        scores = [flash(nursery, one, steps, records) for one in chosen]
        share = steps * nursery.teacher_architecture.layers
        share_of = share / (size.transfer_steps + size.pretrain_steps)
        print(
            f"flash of {steps} steps a layer ({share_of:.1%} of the regular steps), scores "
            f"{min(scores):.4f} to {max(scores):.4f}: {rank_agreement(scores, finished, seed=0)}",
            flush=True,
        )


def compare_found(size: Size) -> None:
    """What a search finds against the hand-crafted ones, trained alike and timed in turn."""
    settings = run_settings(size)
    path = WORK / "autodistill" / f"search-{size.trials}-{size.transfer_steps}"
    result = run_search_job(settings, path, LoggingNarrator())
    nursery = open_nursery(size)
    records = Records(f"autodistill_{size.transfer_steps}_{size.pretrain_steps}")
    floor = most_frequent_fraction(nursery)
    print(f"{len(result.trials)} trials; the most frequent piece {floor:.4f}")
    for rank, one in enumerate(result.students, start=1):
        told = one.metrics
        print(
            f"found {rank:<10}{told['quality']:.4f} ({told['quality_low']:.4f} to "
            f"{told['quality_high']:.4f})  {told['latency_ms']:.2f} ms  {told['speedup']:.2f}x  "
            f"{told['architecture_label']}"
        )
    for name, architecture in autodistill_references(nursery.teacher_architecture).items():
        accuracy = regular(nursery, architecture, records)
        comparison = nursery.device.compare(architecture, nursery.workload)
        print(
            f"{name:16}{accuracy:.4f}                      {comparison.student.median_ms:.2f} ms  "
            f"{comparison.speedup:.2f}x  {architecture.label}"
        )
        better = [
            rank
            for rank, one in enumerate(result.students, start=1)
            if one.metrics["quality"] > accuracy and one.metrics["speedup"] > comparison.speedup
        ]
        print(f"  better in both: {', '.join(map(str, better)) or 'none'} of the found")


PARTS = {"fidelity": check_fidelity, "found": compare_found}


def main() -> None:
    """Answers one question, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="size", action="store_const", const=SMALL, default=SMALL)
    parser.add_argument("--full", dest="size", action="store_const", const=FULL)
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    given = parser.parse_args()
    heading("benchmarks.autodistill")
    for name, part in PARTS.items():
        if given.part in (name, "all"):
            part(given.size)


if __name__ == "__main__":
    main()
