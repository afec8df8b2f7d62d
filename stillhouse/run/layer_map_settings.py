"""Settings of the search for a layer map: how maps are proposed, and how one is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict

from stillhouse.errors import SettingsError
from stillhouse.run.rules import STRICT
from stillhouse.search.genetic import Evolution

MapStrategyName: TypeAlias = Literal["genetic", "random"]

PROXY_TASKS = ("glue/sst2", "glue/mrpc", "glue/rte")


def _listed(value: object) -> object:
    """Splits names with commas between, as a command line has them."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerMapSettings:
    """The search for the layer map of a student (`distill.layer_map: search`).

    Attributes:
        judge: `layer-map` alone: whether its student learns on the corpus or on a task.
        strategy: ELM's genetic algorithm, or distinct maps by chance.
        evaluations: Different maps to judge, at most; `None` for as many as the generations have.
        population: Maps of a generation.
        generations: Gives the number of evaluations where none is given.
        elite_fraction: Share of a generation that goes on as it is.
        crossover: Probability that a child has genes of two parents.
        mutation: Probability that a gene of a child is drawn anew.
        any_order: Whether genes may fall from one student layer to the next.
        seeds: Trainings whose mean score judges a map: fine-tunings of each proxy task, or
            distillations on the task; more are less noisy.
        sequences: Of the corpus, that each map is distilled on; `None` for a tenth.
        epochs: Passes over them.
        tasks: Proxy tasks that a student is fine-tuned on after it learnt from text. Several, for
            the score of one small task is mostly noise.
        directory: Folder with the original GLUE folders, for these.
        task_examples: Training examples of each proxy task, at most.
        task_validation: Search-validation examples of each that scores are told on, at most.
        task_epochs: Passes over the training examples.
        task_learning_rate: Peak of the fine-tuning's schedule.
        task_batch_size: Examples a step of it.
        task_max_length: Most tokens of an example.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    judge: Literal["corpus", "task"] = "corpus"
    strategy: MapStrategyName = "genetic"
    evaluations: int | None = None
    population: int = 20
    generations: int = 10
    elite_fraction: float = 0.25
    crossover: float = 0.5
    mutation: float = 0.1
    any_order: bool = False
    seeds: int = 1
    sequences: int | None = None
    epochs: float = 1.0
    tasks: Annotated[tuple[str, ...], BeforeValidator(_listed)] = PROXY_TASKS
    directory: str | None = None
    task_examples: int = 2_000
    task_validation: int = 1_000
    task_epochs: float = 3.0
    task_learning_rate: float = 1e-4
    task_batch_size: int = 32
    task_max_length: int = 128

    def __post_init__(self) -> None:
        """Refuses a search that cannot judge a map, or a generation that cannot breed."""
        for name in (
            "evaluations",
            "generations",
            "seeds",
            "sequences",
            "epochs",
            "task_examples",
            "task_validation",
            "task_epochs",
            "task_learning_rate",
            "task_batch_size",
            "task_max_length",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"layer_map.{name} must be above 0, got {value!r}")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(
                f"layer_map.tasks must be different tasks, at least one, got {list(self.tasks)}"
            )
        try:
            _ = self.evolution
        except SettingsError as error:
            raise ValueError(str(error)) from error

    @property
    def evolution(self) -> Evolution:
        """The constants of the genetic algorithm.

        Raises:
            SettingsError: If no generation can be bred with them.
        """
        return Evolution(
            population=self.population,
            elite_fraction=self.elite_fraction,
            crossover=self.crossover,
            mutation=self.mutation,
        )

    @property
    def most_evaluations(self) -> int:
        """Different maps to judge, at most."""
        return self.evaluations or self.evolution.judged_in(self.generations)
