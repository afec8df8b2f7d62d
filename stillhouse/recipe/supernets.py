"""Training and scoring the supernets of a run: one for each sub-space, kept in its directory."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.torch import load_file, save_file

from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.loop import training_attention
from stillhouse.distill.steps import Schedule, run_steps
from stillhouse.files import folder_written_aside, write_text_atomically
from stillhouse.model.anatomy import architecture_of, ends_of
from stillhouse.recipe.logbook import watched_by_main
from stillhouse.recipe.workbench import resolve_workload
from stillhouse.space.architecture import architecture_from_dict
from stillhouse.space.counts import count_flops, count_parameters
from stillhouse.supernet.sandwich import Draws, RelationLesson, SandwichStep, held_out_losses
from stillhouse.supernet.subnets import Supernet

if TYPE_CHECKING:
    from accelerate import Accelerator

    from stillhouse.data.corpus import Corpus
    from stillhouse.model.encoders import Encoder
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings
    from stillhouse.space.architecture import Architecture
    from stillhouse.space.search_space import SearchSpace

WEIGHTS_FILE = "weights.safetensors"
FACTS_FILE = "supernet.json"
LOSSES_FILE = "subnets.csv"
_COLUMNS = ("architecture", "loss", "parameters", "flops", "flops_fraction", "length")
"""Counts are those of `Scales`, of bare encoders; `length` is in tokens, that of the FLOPs."""


@dataclass(frozen=True, kw_only=True)
class Nursery:
    """What every supernet of a run is trained and scored with.

    Attributes:
        teacher: Bare encoder that first weights are cut from.
        lesson: What subnets learn.
        corpus: Text to learn from and held-out text to be scored on.
        accelerator: Device and workers.
    """

    settings: RunSettings
    run: RunDirectory
    narrator: Narrator
    teacher: Encoder
    lesson: RelationLesson
    corpus: Corpus
    accelerator: Accelerator

    def folder(self, name: str) -> Path:
        """Where the supernet of a space is kept."""
        return self.run.supernets / name

    def fresh(self, space: SearchSpace) -> Supernet:
        """Builds a supernet with the teacher's weights, where it will be trained."""
        device = self.accelerator.device
        supernet = Supernet(
            self.teacher.model,
            list(space),
            attention=training_attention(device, self.lesson.precision),
            dropout=self.settings.supernet.dropout,
        )
        return supernet.to(device)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSubnet:
    """A subnet and how good it is.

    Attributes:
        loss: Its relation loss on held-out text.
        quality: Its score on a task's search-validation set, where a task judges.
    """

    space: str
    architecture: Architecture
    loss: float
    quality: float | None = None

    @property
    def order(self) -> float:
        """Lower is better: the loss, or the opposite of the quality where there is one."""
        return self.loss if self.quality is None else -self.quality


def train_supernet(nursery: Nursery, name: str, space: SearchSpace) -> Supernet:
    """Trains the supernet of a space, or loads what an earlier start of the run trained.

    All workers of a data-parallel training call it together; the main one writes.
    """
    supernet = nursery.fresh(space)
    folder = nursery.folder(name)
    is_trained = (folder / WEIGHTS_FILE).exists()
    nursery.accelerator.wait_for_everyone()  # before the main worker may write it
    if is_trained:
        supernet.encoder.load_state_dict(load_file(folder / WEIGHTS_FILE))
        return supernet
    start_s = time.monotonic()
    settings = nursery.settings.supernet
    step = SandwichStep(
        supernet,
        nursery.lesson,
        nursery.corpus.train,
        Draws(
            batch_size=settings.batch_size,
            random_count=settings.random_subnets,
            seed=nursery.settings.seed,
        ),
        nursery.accelerator,
    )
    checkpoint = CheckpointFolder(
        path=nursery.run.work / "supernets" / name, fingerprint=nursery.corpus.fingerprint
    )
    bounds = architecture_of(supernet.encoder.config)
    with watched_by_main(
        nursery.accelerator,
        nursery.narrator,
        nursery.run.tensorboard / f"supernet-{name}",
        f"Supernet {name} ({len(space)} students, {bounds.label})",
        checkpoint=checkpoint,
        tokens_a_step=step.tokens,
    ) as watch:
        report = run_steps(
            supernet,
            step,
            Schedule(
                steps=settings.steps,
                learning_rate=settings.learning_rate,
                warmup_fraction=settings.warmup_fraction,
                weight_decay=settings.weight_decay,
            ),
            accelerator=nursery.accelerator,
            parameters=supernet.reached(),
            watch=watch,
        )
    if nursery.accelerator.is_main_process:
        facts = {
            "students": len(space),
            "steps": report.steps,
            "tokens": report.steps * step.tokens,
            "loss": report.loss,
            "wall_s": round(time.monotonic() - start_s, 3),
        }
        _save(supernet, folder, facts)
        checkpoint.clear()
    nursery.accelerator.wait_for_everyone()
    return supernet


def _save(supernet: Supernet, folder: Path, facts: Mapping[str, object]) -> None:
    with folder_written_aside(folder) as aside:
        weights = {name: t.contiguous() for name, t in supernet.encoder.state_dict().items()}
        save_file(weights, aside / WEIGHTS_FILE)
        (aside / FACTS_FILE).write_text(json.dumps(facts, indent=2) + "\n")


def score_subnets(
    nursery: Nursery, name: str, space: SearchSpace, supernet: Supernet
) -> list[ScoredSubnet]:
    """Scores every subnet of a space on the held-out text, or reads what was scored before."""
    file = nursery.folder(name) / LOSSES_FILE
    architectures = list(space)
    if not file.exists():
        nursery.narrator.begin(f"Scoring {len(architectures)} students of {name}", 1.0)
        try:
            losses = held_out_losses(
                supernet,
                nursery.lesson,
                nursery.corpus.held_out,
                architectures,
                batch_size=nursery.settings.supernet.batch_size,
                on_progress=nursery.narrator.advance,
            )
        finally:
            nursery.narrator.end()
        _write_losses(nursery, file, architectures, losses)
    return [
        ScoredSubnet(space=name, architecture=architecture, loss=loss)
        for architecture, loss in _read_losses(file)
    ]


def _write_losses(
    nursery: Nursery, file: Path, architectures: Sequence[Architecture], losses: list[float]
) -> None:
    config, length = nursery.teacher.model.config, _flops_length(nursery.settings)
    ends = replace(ends_of(config), labels=0)
    whole = count_flops(architecture_of(config), ends, length=length)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for architecture, loss in zip(architectures, losses, strict=True):
        flops = count_flops(architecture, ends, length=length)
        parameters = count_parameters(architecture, ends).total
        described = json.dumps(architecture.to_dict())
        writer.writerow([described, loss, parameters, flops, flops / whole, length])
    write_text_atomically(file, text.getvalue())


def _flops_length(settings: RunSettings) -> int:
    """Returns the tokens of the workload that students are weighed for."""
    lengths = np.array([settings.corpus.length])
    return resolve_workload(settings.device, lengths, settings.device.kind).length


def _read_losses(file: Path) -> list[tuple[Architecture, float]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return [
            (architecture_from_dict(json.loads(row["architecture"])), float(row["loss"]))
            for row in csv.DictReader(opened)
        ]
