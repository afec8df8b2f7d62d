"""AutoDistill at small scale: does flash distillation rank students, and is MobileBERT beaten?

English Wikipedia; teacher all-MiniLM-L6-v2 (`--full`), or a smaller one of masked words made of it
(`benchmarks.mlm_teacher`); MobileBERTs in its proportions. Each part resumes:

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
from benchmarks.mlm_teacher import TeacherSize, mlm_teacher, text_for_students
from stillhouse.api import run_search_job
from stillhouse.data.packing import PackedSet
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

TRAINED_FROM = 2.0
"""Times the score of the most frequent piece."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained.

    Attributes:
        transfer_steps: Of a regular distillation, all layers together.
        pretrain_steps: Those that follow.
        flash_steps: Flash budgets that are compared, in steps of all layers together.
        search_flash_steps: That of a search.
        judged: Students whose flash scores are compared with their regular ones.
        trials: Of the search.
        small_teacher: Of a teacher that is made for this, or `None`.
    """

    length: int
    batch: int
    held_out: int
    head_steps: int
    transfer_steps: int
    pretrain_steps: int
    flash_steps: tuple[int, ...]
    search_flash_steps: int
    judged: int
    trials: int
    small_teacher: TeacherSize | None


SMALL = Size(
    length=64,
    batch=16,
    held_out=512,
    head_steps=1,
    transfer_steps=320,
    pretrain_steps=320,
    flash_steps=(32, 96, 192),
    search_flash_steps=96,
    judged=16,
    trials=20,
    small_teacher=TeacherSize(),
)
FULL = Size(
    length=128,
    batch=64,
    held_out=2_000,
    head_steps=5_000,
    transfer_steps=12_000,
    pretrain_steps=25_000,
    flash_steps=(360, 1_800, 7_200),
    search_flash_steps=1_800,
    judged=24,
    trials=60,
    small_teacher=None,
)


def run_settings(size: Size) -> RunSettings:
    """Settings of a search on this processor."""
    regular = size.transfer_steps + size.pretrain_steps
    small = size.small_teacher
    return settings_from_dict(
        {
            "recipe": "autodistill",
            "teacher": {"model": minilm_folder() if small is None else mlm_teacher(small)},
            "corpus": {
                "name": str(enwiki_folder() if small is None else text_for_students()),
                "length": size.length,
                "held_out": size.held_out,
                "max_tokens": 2 * regular * size.batch * size.length,
            },
            "mlm": {"head_steps": size.head_steps},
            "transfer": {
                "steps": size.transfer_steps,
                "batch_size": size.batch,
                "learning_rate": 1e-3,
                "flash_fraction": size.search_flash_steps / regular,
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


def open_nursery(size: Size, name: str) -> MobileNursery:
    """Teacher with its head, corpus and space, made or taken up again.

    Args:
        size: How much is trained.
        name: Of a run directory, which one process at a time has.
    """
    settings = run_settings(size)
    path = WORK / "autodistill" / f"{name}-{size.length}-{size.head_steps}"
    with open_run(path, settings, asks=("transfer", "pretrain", "search")) as run:
        nursery = open_mobile_nursery(settings, run, LoggingNarrator(), Accelerator(cpu=True))
        return with_mlm_head(nursery, nursery.text_of(size.batch))


def most_frequent_fraction(nursery: MobileNursery, text: PackedSet) -> float:
    """What always telling the most frequent hidden piece of a text would score on it."""
    counts = Counter(hidden_tokens(text, nursery.masker))
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
    """Score of a student after a flash distillation of so many steps."""
    job = {"flash": architecture.key, "steps": steps}
    known = records.find(job)
    if known is None:
        wanted = nursery.settings.transfer
        whole = wanted.steps + nursery.settings.pretrain.steps
        short = replace(wanted, flash_fraction=steps / whole)
        changed = replace(nursery, settings=replace(nursery.settings, transfer=short))
        judgement = judge_by_flash(changed, 0, architecture)
        known = records.add(job, {"accuracy": judgement.quality})
    return float(known["accuracy"])


def check_fidelity(size: Size) -> None:
    """Rank agreement of flash scores and regular ones, at each flash budget."""
    nursery = open_nursery(size, "fidelity")
    records = Records(f"autodistill_{size.transfer_steps}_{size.pretrain_steps}")
    chosen = spread(nursery, size.judged)
    finished = [regular(nursery, one, records) for one in chosen]
    floor = most_frequent_fraction(nursery, nursery.report_text)
    trained = sum(score >= TRAINED_FROM * floor for score in finished)
    print(
        f"regular, {size.transfer_steps} + {size.pretrain_steps} steps: accuracy "
        f"{min(finished):.4f} to {max(finished):.4f}; the most frequent piece {floor:.4f}; "
        f"{trained} of {len(finished)} count as trained"
    )
    for steps in size.flash_steps:
        scores = [flash(nursery, one, steps, records) for one in chosen]
        share = steps / (size.transfer_steps + size.pretrain_steps)
        print(
            f"flash of {steps} steps ({share:.1%} of the regular ones), scores "
            f"{min(scores):.4f} to {max(scores):.4f}: {rank_agreement(scores, finished, seed=0)}",
            flush=True,
        )


def compare_found(size: Size) -> None:
    """What a search finds against the hand-crafted ones, trained alike and timed in turn."""
    settings = replace(run_settings(size), compare=("MobileBERT", "MobileBERT-tiny"))
    path = WORK / "autodistill" / f"search-{size.trials}-{size.transfer_steps}"
    result = run_search_job(settings, path, LoggingNarrator())
    print(f"{len(result.trials)} trials, then {size.transfer_steps} + {size.pretrain_steps} steps")
    named = [(f"found {rank}", one) for rank, one in enumerate(result.students, start=1)]
    crafted = list(zip(settings.compare, result.competitors, strict=True))
    for name, one in [*named, *crafted]:
        told = one.metrics
        print(
            f"{name:16}{told['quality']:.4f} ({told['quality_low']:.4f} to "
            f"{told['quality_high']:.4f}, n = {told['quality_count']})  "
            f"{told['latency_ms']:.2f} ms  {told['speedup']:.2f}x  {told['architecture_label']}"
        )
    for name, one in crafted:
        better = [
            f"{found} ({(theirs.metrics['quality'] - one.metrics['quality']) * 100:+.2f} points, "
            f"{theirs.metrics['speedup'] / one.metrics['speedup']:.2f} times as fast)"
            for found, theirs in named
            if theirs.metrics["quality"] > one.metrics["quality"]
            and theirs.metrics["speedup"] > one.metrics["speedup"]
        ]
        print(f"better than {name} in both: {', '.join(better) or 'none'}")


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
