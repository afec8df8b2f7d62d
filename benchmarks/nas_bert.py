"""NAS-BERT at small scale: do block losses judge, does selection pay, and what does shrinking do?

Teacher all-MiniLM-L6-v2, two blocks of three of its layers, English Wikipedia. Each part resumes:

    python -m benchmarks.nas_bert --small --part cost     # tokens a second beside the teacher's own
    python -m benchmarks.nas_bert --small --part judge    # block losses against training alone
    python -m benchmarks.nas_bert --small --part random   # selected against 8 of its size
    python -m benchmarks.nas_bert --small --part shrink   # the same steps without shrinking
    python -m benchmarks.nas_bert --small --part serve    # three limits, fine-tuned on two tasks

"Trained alone" is pre-training from scratch with the teacher's logits for a fixed number of steps,
the same for all; its loss is the cross-entropy at masked tokens of held-out text, which chose
nothing here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from scipy import stats
from torch import nn

from benchmarks.common import WORK, Records, enwiki_folder, glue_folder, heading, minilm_folder
from stillhouse.api import run_finetune_job, run_select_job, run_train_job
from stillhouse.device.operations import OperationTable
from stillhouse.distill.losses import label_cross_entropy
from stillhouse.distill.masked_lm import held_out_mlm
from stillhouse.model.precision import autocast
from stillhouse.recipe.chain_blocks import begin_shrinking, train_blocks
from stillhouse.recipe.chain_nursery import (
    ChainNursery,
    load_chain_teacher,
    open_chain_nursery,
    open_operations,
    set_up_chains,
)
from stillhouse.recipe.chain_rows import BlockRow, block_row, open_rows
from stillhouse.recipe.chain_selection import mlm_loss
from stillhouse.recipe.chain_table import ChainTable
from stillhouse.recipe.mlm_nursery import with_mlm_head
from stillhouse.recipe.pretrain import fresh_student, train_student
from stillhouse.run.device_settings import LimitSettings
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, settings_from_dict
from stillhouse.space.chain import ChainArchitecture
from stillhouse.supernet.blocks import Alone, BlockStep, BlockSupernet, block_losses

NEVER = 1_000_000_000
RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is searched and trained.

    Attributes:
        steps_per_epoch: Of the blocks.
        alone_steps: Of an architecture that is trained alone.
        serve_steps: Of a student that is fine-tuned afterwards.
        judged: Architectures that are trained alone.
        most_train: Most training examples of a task.
    """

    hidden_sizes: tuple[int, ...]
    operations: int
    steps_per_epoch: int
    dev_batches: int
    batch: int
    length: int
    head_steps: int
    alone_steps: int
    serve_steps: int
    judged: int = 16
    rivals: int = 8
    most_train: int


SMALL = Size(
    hidden_sizes=(64, 128, 256),
    operations=5,
    steps_per_epoch=50,
    dev_batches=2,
    batch=16,
    length=64,
    head_steps=300,
    alone_steps=200,
    serve_steps=600,
    most_train=4000,
)
FULL = Size(
    hidden_sizes=(),
    operations=6,
    steps_per_epoch=2_000,
    dev_batches=5,
    batch=64,
    length=128,
    head_steps=5_000,
    alone_steps=5_000,
    serve_steps=50_000,
    most_train=70_000,
)


def run_settings(size: Size, *, shrinks: bool, epochs: int = 3) -> RunSettings:
    """Settings of a search; without shrinking, all epochs are warm ones."""
    return settings_from_dict(
        {
            "recipe": "nas-bert",
            "teacher": {"model": minilm_folder()},
            "corpus": {
                "name": str(enwiki_folder()),
                "length": size.length,
                "held_out": 256,
                "max_tokens": 200 * size.steps_per_epoch * size.batch * size.length,
            },
            "blocks": {
                "operations": size.operations,
                "hidden_sizes": list(size.hidden_sizes),
                "steps_per_epoch": size.steps_per_epoch,
                "warm_epochs": epochs,
                "bins_by": "size",
                "kept": 10 if shrinks else NEVER,
                "dev_batches": size.dev_batches,
                "batch_size": size.batch,
                "learning_rate": 1e-3,
            },
            "mlm": {"head_steps": size.head_steps},
            "pretrain": {
                "steps": size.alone_steps,
                "batch_size": size.batch,
                "learning_rate": 1e-3,
                "dropout": 0.0,
            },
            "limits": [{"flops_fraction": 0.5}],
            "device": {"threads": 1, "length": 128},
        }
    )


class Search:
    """A search up to its table, made or taken up again."""

    def __init__(self, name: str, settings: RunSettings) -> None:
        self.path = WORK / "nas_bert" / name
        with open_run(self.path, settings, asks=("limits", "select", "pretrain")) as run:
            start_s = time.monotonic()
            setup = set_up_chains(settings, load_chain_teacher(settings.teacher.model))
            opened = open_chain_nursery(setup, run, LoggingNarrator(), Accelerator(cpu=True))
            self.nursery: ChainNursery = with_mlm_head(opened, opened.text)
            self.operations: OperationTable = open_operations(self.nursery)
            self.supernets: list[BlockSupernet] = train_blocks(self.nursery, self.operations)
            self.rows: list[BlockRow] = self._rows(settings)
            run.update_state({"status": "complete"})
            print(f"  {name}: {time.monotonic() - start_s:.0f} s", flush=True)

    def _rows(self, settings: RunSettings) -> list[BlockRow]:
        """The survivors, or without shrinking the best of a sample of every bin."""
        if settings.blocks.kept != NEVER:
            return open_rows(self.nursery, self.operations, self.supernets)
        shrinking = replace(settings.blocks, kept=10, warm_epochs=0)
        nursery = replace(self.nursery, settings=replace(settings, blocks=shrinking))
        rows, dev = [], nursery.dev()
        starts = begin_shrinking(nursery, self.operations)
        for place, (supernet, start) in enumerate(zip(self.supernets, starts, strict=True)):
            sampled = start.sample()
            blocks = [nursery.space.block[int(index)] for index in sampled]
            losses = block_losses(supernet, place, blocks, dev, precision=nursery.precision)
            bins = start.bins_of(sampled)
            for number in np.unique(bins):
                inside = np.flatnonzero(bins == number)
                best = inside[np.argsort(np.array(losses)[inside])[:10]]
                rows += [
                    block_row(nursery, self.operations, place, blocks[n], losses[n]) for n in best
                ]
        return rows

    def chain(self, rows: Sequence[BlockRow]) -> ChainArchitecture:
        """Puts rows of the blocks together, with embeddings of the middle width."""
        sizes = self.nursery.space.embedding_sizes
        blocks = [row.block for row in rows]
        return self.nursery.space.architecture(blocks, sizes[len(sizes) // 2])

    def alone(self, chain: ChainArchitecture, records: Records) -> float:
        """Loss of an architecture that is trained alone for the fixed number of steps."""
        job = {"chain": chain.key, "steps": self.nursery.settings.pretrain.steps}
        known = records.find(job)
        if known is None:
            student = fresh_student(self.nursery, chain)
            train_student(self.nursery, student, f"alone-{chain.key}")
            nursery = self.nursery
            score = held_out_mlm(
                student, nursery.corpus.held_out, nursery.masker, precision=nursery.precision
            )
            known = records.add(job, {"nats": score.cross_entropy_nats})
            print(f"    {chain.label}: {known['nats']:.4f} nats", flush=True)
        return float(known["nats"])


def searched(size: Size) -> Search:
    """The search with shrinking that all parts share."""
    return Search(f"shrinking-{size.steps_per_epoch}", run_settings(size, shrinks=True))


def check_judge(size: Size) -> None:
    """Rank correlation of the sum of block losses and the loss after training alone."""
    search, records = searched(size), Records(f"nas_bert_alone_{size.alone_steps}")
    by_place = _by_size(search)
    sums, alone, complete, dev = [], [], [], search.nursery.dev()
    for number in range(size.judged):
        share = (number + 0.5) / size.judged
        chosen = [rows[int(share * len(rows))] for rows in by_place]
        chain = search.chain(chosen)
        sums.append(sum(row.loss for row in chosen))
        complete.append(mlm_loss(search.nursery, search.supernets, chain.blocks, dev))
        alone.append(search.alone(chain, records))
    for name, judge in (("sum of block losses", sums), ("complete model", complete)):
        tau = stats.kendalltau(judge, alone).statistic
        low, high = _kendall_interval(np.array(judge), np.array(alone))
        evidence = "" if low > 0 or high < 0 else " (small: not evidence)"
        print(
            f"{name} against {size.alone_steps} steps alone, n = {size.judged}: "
            f"Kendall {tau:+.2f} ({low:+.2f} to {high:+.2f}){evidence}"
        )


def _kendall_interval(
    judge: np.ndarray[Any, Any], alone: np.ndarray[Any, Any]
) -> tuple[float, float]:
    generator = np.random.default_rng(0)
    count = len(judge)
    resampled = [
        stats.kendalltau(judge[places], alone[places]).statistic
        for places in generator.integers(count, size=(RESAMPLES, count))
    ]
    low, high = np.nanquantile(resampled, (0.025, 0.975))
    return float(low), float(high)


def _by_size(search: Search) -> list[list[BlockRow]]:
    """Rows of each block, smallest first."""
    places = range(search.nursery.space.blocks)
    return [
        sorted((row for row in search.rows if row.place == place), key=lambda row: row.parameters)
        for place in places
    ]


def compare_random(size: Size) -> None:
    """The selected one against chains of its size, drawn from all of the space, trained alike."""
    search, records = searched(size), Records(f"nas_bert_alone_{size.alone_steps}")
    _against_rivals(search, records, size, "with shrinking")


def compare_shrinking(size: Size) -> None:
    """The same number of steps without shrinking: its selected one against the same rivals."""
    search, records = searched(size), Records(f"nas_bert_alone_{size.alone_steps}")
    facts = search.nursery.supernet_folder(0) / "supernet.json"
    steps = int(json.loads(facts.read_text())["steps"])
    epochs = steps // size.steps_per_epoch
    settings = run_settings(size, shrinks=False, epochs=epochs)
    plain = Search(f"no-shrinking-{size.steps_per_epoch}", settings)
    _against_rivals(search, records, size, f"with shrinking, {steps} steps")
    _against_rivals(plain, records, size, f"without shrinking, {steps} steps")


def _against_rivals(search: Search, records: Records, size: Size, name: str) -> None:
    best = selected(search, LimitSettings(flops_fraction=0.1))
    table = ChainTable(search.nursery, search.operations, search.rows)
    rivals = _rivals(search, table, size.rivals)
    ours = search.alone(best, records)
    theirs = [search.alone(rival, records) for rival in rivals]
    print(
        f"{name}: selected {ours:.4f} nats ({best.label}); {len(theirs)} random ones of its size "
        f"bin: median {np.median(theirs):.4f}, best {min(theirs):.4f}, "
        f"{sum(ours < one for one in theirs)} of {len(theirs)} are worse than the selected",
        flush=True,
    )


def selected(search: Search, limits: LimitSettings) -> ChainArchitecture:
    """What selection would choose, without measuring it; embeddings of the middle width."""
    table = ChainTable(search.nursery, search.operations, search.rows)
    dev = search.nursery.dev()
    proposed = [chain for chain, _ in table.select(limits, 100)]
    best = min(proposed, key=lambda c: mlm_loss(search.nursery, search.supernets, c.blocks, dev))
    return search.nursery.space.architecture(best.blocks, _middle(search))


def _middle(search: Search) -> int:
    sizes = search.nursery.space.embedding_sizes
    return sizes[len(sizes) // 2]


def _rivals(search: Search, table: ChainTable, count: int) -> list[ChainArchitecture]:
    """Random chains whose FLOPs are 80 to 100 % of the limit, the same for every search."""
    generator = np.random.default_rng(1)
    space, found = search.nursery.space, []
    while len(found) < count:
        blocks = [space.block[int(n)] for n in generator.integers(space.block.size, size=2)]
        chain = space.architecture(blocks, _middle(search))
        if 0.08 <= table.flops(chain) / table.teacher_flops <= 0.1:
            found.append(chain)
    return found


def compare_cost(size: Size) -> None:
    """Tokens a second of a step of all blocks, and of training the teacher on masked words."""
    search = searched(size)
    nursery, text = search.nursery, search.nursery.text
    batch = text.batch(0, Alone(device=torch.device("cpu")))
    head = nursery.teacher.head
    assert head is not None
    model = nursery.teacher.encoder.model
    generator = np.random.default_rng(0)
    draws = generator.integers(nursery.space.block.size, size=10_000)
    blocks = BlockStep(
        search.supernets,
        range(nursery.space.blocks),
        nursery.reader,
        text,
        lambda place, step: nursery.space.block[int(draws[2 * step + place])],
        precision=nursery.precision,
    )

    def teach(_: int) -> None:
        with autocast(torch.device("cpu"), nursery.precision):
            states = model(input_ids=batch.input_ids).last_hidden_state
            logits = head(states.flatten(0, 1)[batch.places])
        label_cross_entropy(logits, batch.labels).backward()

    both: list[tuple[str, nn.Module, Callable[[int], object]]] = [
        ("blocks", nn.ModuleList(search.supernets), blocks),
        ("teacher", nn.ModuleList([model, head]), teach),
    ]
    model.requires_grad_()
    head.requires_grad_()
    times: dict[str, list[float]] = {"blocks": [], "teacher": []}
    optimizers = {name: torch.optim.AdamW(modules.parameters()) for name, modules, _ in both}
    for step in range(25):
        for name, _, backward in both:
            start_s = time.perf_counter()
            backward(step)
            optimizers[name].step()
            optimizers[name].zero_grad()
            times[name].append(time.perf_counter() - start_s)
    rates = {name: text.tokens / np.median(all_s[5:]) for name, all_s in times.items()}
    print(
        f"{nursery.space.blocks} blocks together {rates['blocks']:,.0f} tokens/s, the teacher's "
        f"own step {rates['teacher']:,.0f}: {rates['blocks'] / rates['teacher']:.2f} times"
    )


def serve(size: Size) -> None:
    """Three limits from one table; each student is pre-trained and fine-tuned on two tasks."""
    search, records = searched(size), Records(f"nas_bert_serve_{size.serve_steps}")
    teacher_ms = search.operations.teacher_ms
    budgets = [{"latency_ms": round(teacher_ms * share, 2)} for share in (0.5, 0.25, 0.12)]
    result = run_select_job(search.path, budgets, LoggingNarrator())
    for student in result.students:
        told = student.metrics
        trained = run_train_job(
            student.path, {"pretrain.steps": size.serve_steps}, LoggingNarrator()
        )
        qualities = [finetuned(records, trained.path, task, size) for task in ("sst2", "mrpc")]
        print(
            f"{told['limits']}: measured {told['latency_ms']:.2f} ms (up to "
            f"{told['latency_high_ms']:.2f}; predicted {told['predicted_latency_ms']:.2f}), "
            f"{told['parameters'] / 1e6:.2f} M parameters, {told['architecture_label']}; masked "
            f"words {trained.metrics['mlm_accuracy_fraction']:.1%}; {', '.join(qualities)}",
            flush=True,
        )


def finetuned(records: Records, folder: Path, task: str, size: Size) -> str:
    """Fine-tunes a student on a task, or takes it from the records."""
    job = {"student": str(folder), "task": task}
    known = records.find(job)
    if known is None:
        settings = settings_from_dict(
            {
                "task": {
                    "name": f"glue/{task}",
                    "directory": str(glue_folder()),
                    "max_train": size.most_train,
                },
                "finetune": {
                    "model": str(folder),
                    "learning_rates": [3e-4],
                    "trust_remote_code": True,
                },
            }
        )
        result = run_finetune_job(
            settings, records.folder / "runs" / f"{folder.name}-{task}", LoggingNarrator()
        )
        known = records.add(
            job, {key: result.metrics[key] for key in ("metric", "quality", "quality_count")}
        )
    return f"{task} {known['metric']} {known['quality']:.4f} (n = {known['quality_count']})"


PARTS = {
    "cost": compare_cost,
    "judge": check_judge,
    "random": compare_random,
    "shrink": compare_shrinking,
    "serve": serve,
}


def main() -> None:
    """Answers one question, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="size", action="store_const", const=SMALL, default=SMALL)
    parser.add_argument("--full", dest="size", action="store_const", const=FULL)
    parser.add_argument("--part", choices=[*PARTS, "all"], default="all")
    given = parser.parse_args()
    heading("benchmarks.nas_bert")
    for name, part in PARTS.items():
        if given.part in (name, "all"):
            part(given.size)


if __name__ == "__main__":
    main()
