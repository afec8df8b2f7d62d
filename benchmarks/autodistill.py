"""AutoDistill at small scale: does flash distillation rank students, and is MobileBERT beaten?

English Wikipedia; teacher all-MiniLM-L6-v2 (`--full`), or a smaller one of masked words made of it
(`benchmarks.mlm_teacher`); MobileBERTs in its proportions. Each part resumes:

    python -m benchmarks.autodistill --small --part fidelity  # flash scores against regular ones
    python -m benchmarks.autodistill --small --part found     # found against hand-crafted

Flash scores are on the half of the held-out text that chooses, regular ones on the other; found and
hand-crafted students are scored on text that the search did not read, and timed in turn. Beside
them stands what always telling the most frequent piece would score: a student is counted as trained
from twice that on.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from transformers import AutoModelForMaskedLM, PreTrainedModel

from benchmarks.common import RESAMPLES, WORK, Records, enwiki_folder, heading, minilm_folder
from benchmarks.mlm_teacher import TeacherSize, mlm_teacher, text_for_students
from stillhouse.api import run_search_job
from stillhouse.data.corpus import CorpusSettings, prepare_corpus
from stillhouse.data.masking import Masker, MaskingRule
from stillhouse.data.packing import PackedSet
from stillhouse.device.latency import Workload
from stillhouse.device.runtimes import TorchRuntime
from stillhouse.device.stopwatch import Pass, time_in_turn
from stillhouse.distill.masked_lm import held_out_mlm, hidden_tokens
from stillhouse.evaluate.agreement import Agreement, rank_agreement
from stillhouse.model.teachers import load_tokenizer
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
UNSEEN_LINES = 4_000
STRETCH = 32
"""Sequences that are resampled together."""


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
            f"{min(scores):.4f} to {max(scores):.4f}: "
            f"{told(rank_agreement(scores, finished, seed=0))}",
            flush=True,
        )


def told(agreement: Agreement) -> str:
    """Both correlations with their intervals."""
    assert agreement.kendall is not None
    assert agreement.spearman is not None
    kendall, spearman = agreement.kendall, agreement.spearman
    return (
        f"Kendall {kendall.value:.2f} ({kendall.low:.2f} to {kendall.high:.2f}), Spearman "
        f"{spearman.value:.2f} ({spearman.low:.2f} to {spearman.high:.2f}), n = {agreement.count}"
    )


def compare_found(size: Size) -> None:
    """What a search finds against the hand-crafted ones, trained alike and timed in turn."""
    settings = replace(run_settings(size), compare=("MobileBERT", "MobileBERT-tiny"))
    path = WORK / "autodistill" / f"search-{size.trials}-{size.transfer_steps}"
    result = run_search_job(settings, path, LoggingNarrator())
    print(f"{len(result.trials)} trials, then {size.transfer_steps} + {size.pretrain_steps} steps")
    named = {f"found {rank}": one for rank, one in enumerate(result.students, start=1)}
    named |= dict(zip(settings.compare, result.competitors, strict=True))
    students = {
        name: AutoModelForMaskedLM.from_pretrained(one.path).eval() for name, one in named.items()
    }
    text, masker = unseen_text(size, str(settings.teacher.model))
    right = {name: hits(student, text, masker) for name, student in students.items()}
    timing = time_in_turn(
        [passes(student.base_model) for student in students.values()], longest_s=60.0
    )
    medians_ms = dict(zip(students, np.median(timing.times_ms, axis=1), strict=True))
    for name, one in named.items():
        counts = right[name].sum(axis=0)
        print(
            f"{name:16}{counts[0] / counts[1]:.4f} of {counts[1]:,} hidden tokens  "
            f"{medians_ms[name]:.2f} ms  {one.metrics['architecture_label']}"
        )
    for crafted in settings.compare:
        for name in students:
            if name not in settings.compare:
                print(
                    f"{name} against {crafted}: {gap(right[name], right[crafted])}, "
                    f"{medians_ms[crafted] / medians_ms[name]:.2f} times as fast"
                )


def unseen_text(size: Size, teacher: str) -> tuple[PackedSet, Masker]:
    """Text that the search did not read, the end of the students' file, and what hides words."""
    folder = WORK / "autodistill" / "unseen"
    file = folder / "text.txt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        lines = text_for_students().read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(lines[-UNSEEN_LINES:]), encoding="utf-8")
    tokenizer = load_tokenizer(teacher)
    corpus = prepare_corpus(
        CorpusSettings(name=str(file), length=size.length, held_out=0),
        tokenizer,
        folder / f"corpus-{size.length}-{len(tokenizer)}",
    )
    return corpus.train, Masker(tokenizer, MaskingRule())


def hits(student: PreTrainedModel, text: PackedSet, masker: Masker) -> NDArray[np.int64]:
    """Hidden tokens told right, and all of them, for every stretch of 32 sequences."""
    rows = []
    for start in range(0, len(text), STRETCH):
        score = held_out_mlm(student, text.part(start, min(start + STRETCH, len(text))), masker)
        rows.append((round(score.accuracy_fraction * score.chosen_count), score.chosen_count))
    return np.array(rows)


def gap(one: NDArray[np.int64], other: NDArray[np.int64]) -> str:
    """Points of accuracy between two students, with the 95 % interval over the same stretches."""
    gaps = one[:, 0] - other[:, 0]
    drawn = np.random.default_rng(0).integers(len(gaps), size=(RESAMPLES, len(gaps)))
    points = 100 * gaps[drawn].sum(axis=1) / one[drawn, 1].sum(axis=1)
    low, high = np.quantile(points, (0.025, 0.975))
    return f"{100 * gaps.sum() / one[:, 1].sum():+.2f} points ({low:+.2f} to {high:+.2f})"


def passes(model: PreTrainedModel) -> Pass:
    """Passes of a bare student at batch 1, length 128, on this processor."""
    return TorchRuntime(torch.device("cpu")).load(model, Workload(length=128, threads=1)).run


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
