"""The task-proxy search: subnets are judged by what they learn of one task, not by a corpus.

Source: AutoDistil (Xu et al., NeurIPS 2022), section 3.5 of its account: all subnets of a space are
fine-tuned on MNLI. Differs: only those within the limit are, on as many examples as the settings
say, and the score is of search-validation, so that dev stays unread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.data.encoding import encode
from stillhouse.data.proxy import check_proxy, choose_proxy
from stillhouse.data.splits import split_task
from stillhouse.data.task import load_task
from stillhouse.distill.loop import TrainSettings, train
from stillhouse.distill.terms import LabelTerm
from stillhouse.evaluate.metrics import score
from stillhouse.model.predict import predict
from stillhouse.model.students import build_student, student_config
from stillhouse.model.teachers import name_labels
from stillhouse.recipe.logbook import watched

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.data.splits import Splits
    from stillhouse.data.task import Task
    from stillhouse.recipe.supernets import Nursery, ScoredSubnet
    from stillhouse.supernet.subnets import Supernet

QUALITIES_FILE = "task_qualities.jsonl"


@dataclass(frozen=True, kw_only=True)
class TaskProxy:
    """Judges subnets by a short fine-tuning.

    Attributes:
        supernets: Shared weights by space.
    """

    nursery: Nursery
    supernets: Mapping[str, Supernet]

    @property
    def file(self) -> Path:
        """Where the qualities are kept, a line each."""
        return self.nursery.run.supernets / QUALITIES_FILE

    def judge(self, subnets: Sequence[ScoredSubnet]) -> list[ScoredSubnet]:
        """Returns the subnets with their quality; what was judged before is read."""
        known = self._known()
        judged = []
        for place, subnet in enumerate(subnets, start=1):
            key = f"{self._terms} {subnet.space} {subnet.architecture.key}"
            if key not in known:
                title = f"Judging student {place} of {len(subnets)} on {self.task.name}"
                known[key] = self._quality(subnet, title)
                with self.file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"subnet": key, "quality": known[key]}) + "\n")
            judged.append(replace(subnet, quality=known[key]))
        return judged

    @cached_property
    def _terms(self) -> str:
        """Names what a quality stands on, beside the subnet."""
        settings = self.nursery.settings
        return (
            f"{self.task.fingerprint()[:12]} {len(self._examples)}x{settings.search.epochs:g} "
            f"rate {settings.finetune.learning_rates[0]:g} batch {settings.finetune.batch_size} "
            f"length {settings.task.max_length} stride {settings.task.stride} "
            f"seed {settings.seed}"
        )

    @cached_property
    def task(self) -> Task:
        """The task of the settings."""
        return load_task(self.nursery.settings.task)

    @cached_property
    def _splits(self) -> Splits:
        return split_task(self.task, self.nursery.settings.seed)

    @cached_property
    def _examples(self) -> EncodedSet:
        """The examples that every subnet learns from: fixed, each class among them."""
        everything = self._encoded("train")
        settings = self.nursery.settings
        count = min(settings.search.proxy_examples, len(everything))
        chosen = choose_proxy(
            everything.classes,
            total=len(everything),
            count=count,
            generator=np.random.default_rng([settings.seed, 1]),
        )
        if everything.classes is not None:
            check_proxy(everything.classes, chosen, self.task.label_names)
        return everything.select(chosen)

    @cached_property
    def _validation(self) -> EncodedSet:
        return self._encoded("validation")

    def _encoded(self, part: str) -> EncodedSet:
        settings = self.nursery.settings.task
        return encode(
            getattr(self._splits, part),
            self.nursery.teacher.tokenizer,
            max_length=settings.max_length,
            stride=settings.stride,
        )

    def _known(self) -> dict[str, float]:
        if not self.file.exists():
            return {}
        known = {}
        for line in self.file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the last line of a killed process
                continue
            known[str(entry["subnet"])] = float(entry["quality"])
        return known

    def _quality(self, subnet: ScoredSubnet, title: str) -> float:
        nursery, settings = self.nursery, self.nursery.settings
        model = self._classifier(subnet)
        name = f"{subnet.space}-{subnet.architecture.key}"
        with watched(nursery.narrator, nursery.run.tensorboard / f"proxy-{name}", title) as watch:
            train(
                model,
                self._examples,
                [LabelTerm(kind=self.task.kind)],
                TrainSettings(
                    epochs=settings.search.epochs,
                    learning_rate=settings.finetune.learning_rates[0],
                    batch_size=settings.finetune.batch_size,
                    precision=nursery.lesson.precision,
                    seed=settings.seed,
                ),
                accelerator=nursery.accelerator,
                watch=watch,
            )
        metric = self.task.metrics[0]
        logits = predict(model, self._validation, precision=nursery.lesson.precision)
        return score([metric], logits, self._validation.gold)[metric]

    def _classifier(self, subnet: ScoredSubnet) -> PreTrainedModel:
        """Gives a subnet's copy a fresh head."""
        settings = self.nursery.settings
        encoder = self.supernets[subnet.space].extract(subnet.architecture)
        config = student_config(subnet.architecture, self.nursery.teacher.model.config)
        config.num_labels = self.task.output_count
        model = build_student(config, seed=settings.seed, kind=self.task.kind)
        # Families after RoBERTa have no pooler in a classifier.
        model.base_model.load_state_dict(encoder.state_dict(), strict=False)
        name_labels(model, self.task.label_names, kind=self.task.kind)
        return model
