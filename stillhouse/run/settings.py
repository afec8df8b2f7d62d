"""The settings of a run: a YAML file or command-line values ↔ one frozen, validated object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from stillhouse.data.corpus import CorpusSettings
from stillhouse.data.task import TaskSettings
from stillhouse.distill.layer_maps import Genes, LayerMapName
from stillhouse.distill.relations import RelationTarget
from stillhouse.errors import SettingsError
from stillhouse.model.kept_layers import KeptLayersRule
from stillhouse.model.students import InitialisationKind
from stillhouse.run.chain_settings import (
    BlocksSettings,
    MlmSettings,
    PretrainSettings,
    SelectSettings,
)
from stillhouse.run.cross_view_settings import CrossViewSettings
from stillhouse.run.device_settings import DeviceSettings, LimitSettings
from stillhouse.run.extract_settings import ExtractSettings
from stillhouse.run.layer_map_settings import LayerMapSettings
from stillhouse.run.quantise_settings import QuantiseSettings
from stillhouse.run.recipes import RecipeName, with_recipe
from stillhouse.run.refused_settings import explain
from stillhouse.run.rules import STRICT, check
from stillhouse.run.transfer_settings import TransferSettings
from stillhouse.search.objectives import ObjectiveName, checked_objectives

StrategyName: TypeAlias = Literal["random", "tpe", "gp", "nsga2", "controller"]
PROVENANCE_KEY = "provenance"
"""Section of a written settings file that tells what the run stood on; ignored when read."""

RENAMED = (("distill", "hidden_map", "layer_map"),)
"""Section, old and new name of settings, so that runs of older versions resume."""
DEFAULT_CANDIDATES = 30
TWO_OBJECTIVES: tuple[ObjectiveName, ...] = ("quality", "latency_ms")
CONTROLLER_CANDIDATES = {"default": 60, "published": 300}
"""Candidates of a search by the controller: its episodes are planned, so time alone is no end."""


def _listed(value: object) -> object:
    """Splits names with commas between, as a command line has them."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSettings:
    """The teacher.

    Attributes:
        model: Hub id or folder of a BERT, RoBERTa, DistilBERT or ELECTRA, or `scratch`: a small
            BERT and its tokeniser are then trained on the task itself.
        finetune: `auto` fine-tunes unless the checkpoint has a trained head for the task.
        epochs: Passes over the training set; `None` means 2, from scratch 8.
        learning_rates: Each is tried on a tenth of the examples; the best one trains to the end.
            Empty means three around 1.2e-4, from scratch 5e-4 alone.
        batch_size: Examples a step.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    model: str = "scratch"
    finetune: Literal["auto", "always", "never"] = "auto"
    epochs: float | None = None
    learning_rates: tuple[float, ...] = ()
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Refuses amounts that are not above 0."""
        amounts = {"epochs": self.epochs, "batch_size": self.batch_size}
        for name, value in amounts.items():
            check(
                holds=value is None or value > 0,
                rule=f"teacher.{name} must be above 0",
                value=value,
            )
        check(
            holds=all(rate > 0 for rate in self.learning_rates),
            rule="teacher.learning_rates must be above 0",
            value=self.learning_rates,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSettings:
    """The search space: values for dimensions that shall differ from the base space's.

    Attributes:
        base: `default` is made for any teacher; `kd-nas` is the published space of KD-NAS in the
            teacher's proportions, `kd-nas-wide` the same with four more widths.
        layers, hidden_size, heads, head_size, ffn_size, ffn_ratio, activation: Allowed values, or
            `None` for the base's. Giving `heads` replaces `head_size` and the other way round, but
            in a base of free heads, which has both, each replaces itself alone. Likewise
            `ffn_size` and `ffn_ratio` replace each other.
        bottleneck_size, ffn_count, embedding_size: The same of MobileBERTs: the narrow width inside
            a layer, feed-forward networks a layer, width of the embeddings.
        size_fraction: Students must stay below this share of the teacher's parameters, 0..1.
        size_count: What is counted for that: encoder layers, or everything with the embeddings.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    base: Literal["default", "kd-nas", "kd-nas-wide"] = "default"
    layers: tuple[int, ...] | None = None
    hidden_size: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    head_size: tuple[int, ...] | None = None
    ffn_size: tuple[int, ...] | None = None
    ffn_ratio: tuple[float, ...] | None = None
    activation: tuple[str, ...] | None = None
    bottleneck_size: tuple[int, ...] | None = None
    ffn_count: tuple[int, ...] | None = None
    embedding_size: tuple[int, ...] | None = None
    size_fraction: float = 0.5
    size_count: Literal["encoder", "total"] = "encoder"

    def __post_init__(self) -> None:
        """Refuses an impossible fraction."""
        check(
            holds=0 < self.size_fraction <= 1,
            rule="space.size_fraction must be above 0 and at most 1",
            value=self.size_fraction,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How candidates are proposed and judged.

    Attributes:
        strategy: Optuna's sampler of candidates, or `controller` for that of KD-NAS.
        candidates: Candidates to train, at most; `None` means as many as the time allows, and 30
            where no time is given either. The controller plans its episodes and so always has a
            number: 60, or 300 with the published constants.
        seconds: Time for the whole run, the final training included; `None` for no limit.
        proxy_examples: Training examples that every candidate sees, fixed before the search.
        epochs: Passes over them; more where the training set has fewer examples, so that as many
            are seen, but no more than in the final training.
        candidate_seconds: A candidate that trains longer becomes a failed trial.
        ask: Candidates that a sampler proposes at a time, before it learns what became of any; they
            are trained one after the other. The controller plans its episodes itself and takes 1.
        controller: Constants of the controller: `default` learns within 60 candidates,
            `published` are those of the paper, for 15 episodes of 20.
        quality: What candidates are judged by: the score on the task, or `hidden`, 1 less the loss
            of the hidden states on search-validation, after training on that loss alone.
        alpha: Exponent of the latency in the reward, 0 or below; `None` means that of the paper
            with the published constants, −0.02 with the default ones, −0.07 in autodistill.
        beta: Share of the teacher's latency at which the reward is the quality itself, where no
            limit on latency says it.
        objectives: What a sampler weighs against each other: `quality` with at least one of
            `latency_ms`, `size_mb` and `flops_fraction`; or `reward` alone, quality and latency in
            one number, as the controller has it always.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    strategy: StrategyName = "tpe"
    candidates: int | None = None
    seconds: float | None = None
    proxy_examples: int = 8192
    epochs: float = 1.0
    candidate_seconds: float | None = None
    ask: int = 1
    controller: Literal["default", "published"] = "default"
    quality: Literal["task", "hidden"] = "task"
    alpha: float | None = None
    beta: float = 0.6  # KD-NAS, as its re-implementations quote it
    objectives: Annotated[tuple[ObjectiveName, ...], BeforeValidator(_listed)] = TWO_OBJECTIVES

    def __post_init__(self) -> None:
        """Refuses budgets that are not above 0."""
        check(
            holds=self.alpha is None or self.alpha <= 0,
            rule="search.alpha must be 0 or below",
            value=self.alpha,
        )
        object.__setattr__(self, "objectives", checked_objectives(self.objectives))
        check(
            holds=self.strategy != "controller" or self.objectives == TWO_OBJECTIVES,
            rule="search.objectives is of Optuna's samplers (search.strategy gp, tpe, nsga2 or "
            "random); the controller learns its reward alone. Leave it out",
            value=",".join(self.objectives),
        )
        check(
            holds=self.strategy != "controller" or self.ask == 1,
            rule="search.ask must stay 1 with the controller, which plans its episodes itself",
            value=self.ask,
        )
        for name in ("proxy_examples", "epochs", "ask", "beta"):
            value = getattr(self, name)
            check(holds=value > 0, rule=f"search.{name} must be above 0", value=value)
        for name in ("candidates", "seconds", "candidate_seconds"):
            value = getattr(self, name)
            check(
                holds=value is None or value > 0,
                rule=f"search.{name} must be above 0 or absent",
                value=value,
            )

    @property
    def most_candidates(self) -> int | None:
        """Candidates to train at most, or `None` where only the time ends the search."""
        if self.candidates is None and self.strategy == "controller":
            return CONTROLLER_CANDIDATES[self.controller]
        if self.candidates is None and self.seconds is None:
            return DEFAULT_CANDIDATES
        return self.candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSettings:
    """The objective and the pace of distillation, for candidates and final students alike.

    Attributes:
        logit_weight: Weight of the teacher's outputs.
        temperature: Softening of both distributions.
        label_weight: Weight of the gold labels.
        hidden_weight: Weight of hidden states; 0 leaves them out.
        attention_weight: Weight of the attention before its softmax; 0 leaves it out.
        embeddings: Whether the output of the embeddings counts among the hidden states.
        layer_map: Which teacher layers the student's layers learn from: by a rule, or a list of
            genes, one for each student layer: the teacher layer, counted from 1, or 0 for none.
            With `search` the genes are searched for each student before its final distillation;
            candidates have the uniform map.
        initialisation: First weights: leading slices of the teacher, an `extract` of its neurons
            (see the section of that name), or random.
        kept_layers: Teacher layers that slices are of: the first, the last and `spread` ones
            between, or those of the `uniform` map, which extracts have. `auto` is the latter where
            states or attention are learnt by that map, or by one that is searched.
        learning_rate: Peak of the schedule.
        batch_size: Examples a step.
        dropout: In the student while it learns.
        precision: Arithmetic of training; `auto` is bfloat16 where the machine has it.
        cache_gb: Largest teacher cache on disk, in 10⁹ bytes.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    logit_weight: float = 1.0
    temperature: float = 1.0
    label_weight: float = 0.0
    hidden_weight: float = 0.0
    attention_weight: float = 0.0
    embeddings: bool = False
    layer_map: LayerMapName | Literal["search"] | Genes = "uniform"
    initialisation: InitialisationKind = "slices"
    kept_layers: Literal["auto"] | KeptLayersRule = "auto"
    learning_rate: float = 3e-4
    batch_size: int = 32
    dropout: float = 0.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    cache_gb: float = 8.0

    def __post_init__(self) -> None:
        """Refuses an objective without any term, and negative weights."""
        weights = (
            self.logit_weight,
            self.label_weight,
            self.hidden_weight,
            self.attention_weight,
        )
        check(holds=min(weights) >= 0, rule="distill weights must not be negative", value=weights)
        check(holds=sum(weights) > 0, rule="one distill weight must be above 0", value=weights)
        layered = self.hidden_weight + self.attention_weight
        check(
            holds=self.layer_map != "search" or layered > 0,
            rule="distill.layer_map = search needs distill.hidden_weight or "
            "distill.attention_weight above 0: a map of layers is of nothing else",
            value=layered,
        )
        check(
            holds=self.kept_layers == "auto" or self.initialisation == "slices",
            rule="distill.kept_layers is of slices alone (distill.initialisation); leave it out",
            value=self.kept_layers,
        )
        for name in ("temperature", "learning_rate", "batch_size", "cache_gb"):
            value = getattr(self, name)
            check(holds=value > 0, rule=f"distill.{name} must be above 0", value=value)
        check(
            holds=0 <= self.dropout < 1, rule="distill.dropout must be in 0..1", value=self.dropout
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalSettings:
    """The final distillation of the winners.

    Attributes:
        students: Winners to train to the end: the best within the limits, then the rest of the
            front.
        epochs: Passes over the full training set.
        controls: Trials from evenly spaced places of the ranking that are trained to the end as
            well, to see whether the search's short trainings rank as the final ones do.
        noise_candidates: Trials that are judged again with another seed, which tells how well any
            ranking could agree.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    students: int = 3
    epochs: float = 3.0
    controls: int = 0
    noise_candidates: int = 0

    def __post_init__(self) -> None:
        """Refuses to train no student."""
        check(holds=self.students > 0, rule="final.students must be above 0", value=self.students)
        check(holds=self.epochs > 0, rule="final.epochs must be above 0", value=self.epochs)
        for name in ("controls", "noise_candidates"):
            value = getattr(self, name)
            check(holds=value >= 0, rule=f"final.{name} must not be negative", value=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetSettings:
    """Supernets: what they hold, what they learn, and how their subnets are judged.

    Attributes:
        spaces: Sub-spaces of AutoDistil in the teacher's proportions, a supernet each: `tiny`,
            `small`, `base`.
        one_shot: Whether one supernet holds the box around all of these spaces instead.
        steps: Optimiser steps of each supernet.
        batch_size: Sequences a step, over all workers.
        learning_rate: Peak of the schedule, linear down to 0.
        warmup_fraction: Share of the steps spent warming up, 0..1.
        weight_decay: On weight matrices, 0..1.
        dropout: In subnets that are being trained, 0..1.
        random_subnets: Random subnets a step, beside the largest and the smallest.
        relation_heads: Heads that queries, keys and values are re-split into; `None` means as many
            as the teacher has attention heads.
        target: What of the relations is compared.
        judge: What students are chosen by: the relation loss on held-out text, or the quality on
            the task of the settings after a short fine-tuning (`search.proxy_examples`,
            `search.epochs`, the first of `finetune.learning_rates`).
        judged: With `task`, how many of the students within the limit are fine-tuned, drawn by
            chance; `None` means all.
        per_space: Whether a search gives the best student of each space instead of one over all.
        runners_up: How many of the next best a search names.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    spaces: tuple[Literal["tiny", "small", "base"], ...] = ("tiny", "small", "base")
    one_shot: bool = False
    steps: int = 10_000
    batch_size: int = 128
    learning_rate: float = 4e-5
    warmup_fraction: float = 0.0
    weight_decay: float = 0.01
    dropout: float = 0.1
    random_subnets: int = 2
    relation_heads: int | None = None
    target: RelationTarget = "scores"
    judge: Literal["relation", "task"] = "relation"
    judged: int | None = None
    per_space: bool = False
    runners_up: int = 5

    def __post_init__(self) -> None:
        """Refuses what cannot train."""
        check(
            holds=bool(self.spaces) and len(set(self.spaces)) == len(self.spaces),
            rule="supernet.spaces must be different ones of tiny, small, base, at least one",
            value=self.spaces,
        )
        for name in ("steps", "batch_size", "learning_rate", "relation_heads", "judged"):
            value = getattr(self, name)
            check(
                holds=value is None or value > 0,
                rule=f"supernet.{name} must be above 0",
                value=value,
            )
        for name in ("warmup_fraction", "weight_decay"):
            value = getattr(self, name)
            check(holds=0 <= value <= 1, rule=f"supernet.{name} must be in 0..1", value=value)
        check(
            holds=0 <= self.dropout < 1,
            rule="supernet.dropout must be at least 0 and below 1",
            value=self.dropout,
        )
        for name in ("random_subnets", "runners_up"):
            value = getattr(self, name)
            check(holds=value >= 0, rule=f"supernet.{name} must not be negative", value=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """Fine-tuning one checkpoint on a task with labels, for `finetune`.

    Attributes:
        model: Folder or hub id of the checkpoint.
        epochs: Passes over the training set, at most.
        learning_rates: Peaks of the schedule, the best on search-validation wins: each trains to
            the end on 10,000 examples or fewer; on more, each trains once over a tenth of them and
            the best one to the end.
        batch_size: Examples a step.
        warmup_fraction: Share of the steps spent warming up, 0..1.
        weight_decay: On weight matrices, 0..1.
        dropout: While it learns, 0..1.
        evaluate_every: Epochs from one evaluation to the next; the best one's weights are kept.
        patience: So many evaluations in a row that are no better end the training; `None` for
            never.
        stop_on: What those evaluations read. With `dev`, as papers do it, the figure on dev is
            optimistic, and is called so.
        trust_remote_code: Whether code that lies in the checkpoint may run.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    model: str | None = None
    epochs: float = 4.0
    learning_rates: tuple[float, ...] = (3e-5, 1e-4, 3e-4)
    batch_size: int = 32
    warmup_fraction: float = 0.06
    weight_decay: float = 0.01
    dropout: float = 0.1
    evaluate_every: float = 1.0
    patience: int | None = None
    stop_on: Literal["validation", "dev"] = "validation"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot train."""
        rates = self.learning_rates
        check(
            holds=bool(rates) and all(rate > 0 for rate in rates) and len(set(rates)) == len(rates),
            rule="finetune.learning_rates must be different ones above 0, at least one",
            value=rates,
        )
        for name in ("epochs", "batch_size", "evaluate_every"):
            value = getattr(self, name)
            check(holds=value > 0, rule=f"finetune.{name} must be above 0", value=value)
        for name in ("warmup_fraction", "weight_decay"):
            value = getattr(self, name)
            check(holds=0 <= value <= 1, rule=f"finetune.{name} must be in 0..1", value=value)
        check(
            holds=0 <= self.dropout < 1,
            rule="finetune.dropout must be at least 0 and below 1",
            value=self.dropout,
        )
        check(
            holds=self.patience is None or self.patience > 0,
            rule="finetune.patience must be above 0 or absent",
            value=self.patience,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Everything that decides a run."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    space: SpaceSettings = field(default_factory=SpaceSettings)
    limit: LimitSettings = field(default_factory=LimitSettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    final: FinalSettings = field(default_factory=FinalSettings)
    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    supernet: SupernetSettings = field(default_factory=SupernetSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    blocks: BlocksSettings = field(default_factory=BlocksSettings)
    mlm: MlmSettings = field(default_factory=MlmSettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    pretrain: PretrainSettings = field(default_factory=PretrainSettings)
    transfer: TransferSettings = field(default_factory=TransferSettings)
    quantise: QuantiseSettings = field(default_factory=QuantiseSettings)
    extract: ExtractSettings = field(default_factory=ExtractSettings)
    layer_map: LayerMapSettings = field(default_factory=LayerMapSettings)
    cross_view: CrossViewSettings = field(default_factory=CrossViewSettings)
    limits: tuple[LimitSettings, ...] = ()
    """`nas-bert` only: several budgets, a student for each; `limit` stays empty."""
    recipe: RecipeName = "plain"
    """The method whose defaults fill what is not given."""
    student: str | None = None
    """`distill` and `layer-map` only: the one student, instead of a search."""
    compare: tuple[str, ...] = ()
    """Shapes and checkpoints that are distilled like the winners, to be compared with them;
    `autodistill` takes shapes, and `MobileBERT` and `MobileBERT-tiny` by name."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses a seed that NumPy or PyTorch would not take."""
        check(
            holds=0 <= self.seed < 2**63, rule="seed must be at least 0, below 2⁶³", value=self.seed
        )
        check(
            holds=self.distill.initialisation == "extract" or self.extract == ExtractSettings(),
            rule="the section extract is for distill.initialisation extract alone; leave it out",
            value=self.distill.initialisation,
        )
        check(
            holds=self.distill.layer_map == "search"
            or self.recipe == "layer-map"  # which has a word of its own
            or self.layer_map == LayerMapSettings(),
            rule="the section layer_map is for distill.layer_map search alone; leave it out",
            value=self.distill.layer_map,
        )
        check(
            holds=self.quantise.weight_bits is not None
            or self.quantise.model is not None  # of the job of its own, which asks for bits
            or self.quantise == QuantiseSettings(),
            rule="the section quantise is for quantise.weight_bits alone, 2 to 8; give them, or "
            "leave it out",
            value=self.quantise.weight_bits,
        )
        check(
            holds=not self.limits or self.recipe == "nas-bert",
            rule="limits, several budgets, are for nas-bert alone; give `limit`",
            value=[limits.given() for limits in self.limits],
        )
        check(
            holds=not (self.recipe == "nas-bert" and self.limit.given()),
            rule="nas-bert takes a list of budgets, `limits`, instead of `limit`",
            value=self.limit.given(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, as it is written into a settings file."""
        return dict(TypeAdapter(RunSettings).dump_python(self, mode="json"))


def settings_from_dict(data: Mapping[str, Any]) -> RunSettings:
    """Validates plain data.

    Raises:
        SettingsError: Naming the path, the rule and the value of everything that is wrong.
    """
    given = {key: value for key, value in data.items() if key != PROVENANCE_KEY}
    known = with_recipe(_with_new_names(given))
    try:
        return TypeAdapter(RunSettings).validate_python(known)
    except ValidationError as error:
        raise SettingsError(explain(error, RunSettings)) from error


def _with_new_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings with what had another name in an older version under the one of today."""
    renamed = dict(data)
    for section, old, new in RENAMED:
        found = renamed.get(section)
        if isinstance(found, Mapping) and old in found and new not in found:
            renamed[section] = {new if key == old else key: found[key] for key in found}
    return renamed
