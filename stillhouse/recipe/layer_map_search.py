"""The search for the layer map of a student: which teacher layers its layers learn from, if any.

Source: ELM (Jiao et al., "Improving Task-Agnostic BERT Distillation with Layer Mapping Search",
arXiv 2012.06153): a genetic search whose maps are judged by distillation on a part of the corpus
and fine-tuning on three tasks. Differs: scores are of search-validation and not of dev; the tasks
are smaller ones than MNLI and SQuAD; a student of a task is judged on that task itself.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from stillhouse.errors import RunError
from stillhouse.files import write_text_atomically
from stillhouse.model.described import described
from stillhouse.model.kept_layers import uniform_layers
from stillhouse.recipe.general import TextBench
from stillhouse.recipe.map_judges import TaskJudge, TextJudge
from stillhouse.recipe.objective import learns_without_layers
from stillhouse.recipe.proxy_tasks import load_proxy_tasks, refuse_other_tasks
from stillhouse.search.genetic import GeneticMaps, RandomMaps
from stillhouse.search.map_search import MapTrial, best_map, search_maps
from stillhouse.search.map_space import MapSpace
from stillhouse.space.chain import ChainArchitecture

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from stillhouse.distill.layer_maps import Genes
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.settings import DistillSettings, RunSettings
    from stillhouse.search.map_search import MapStrategy
    from stillhouse.space.architecture import Architecture, BertArchitecture

LAYER_MAPS_FILE = "layer_maps.json"
_LONGER = {
    True: "layer_map.task_epochs, layer_map.task_examples, layer_map.task_learning_rate",
    False: "search.epochs, search.proxy_examples",
}
"""Settings that make a judgement longer, by whether it is one on text."""


def searched_map(bench: Workbench | TextBench, architecture: Architecture) -> Genes:
    """Searches the layer map of a student, once a depth and run; resumes what was begun.

    Args:
        bench: The run's bench: of text, whose maps are judged by proxy tasks, or of a task, whose
            maps are judged on that.
        architecture: The student's shape. Another one of the same depth gets the same map.

    Returns:
        The best map.

    Raises:
        RunError: If no map could be judged, or proxy tasks changed since the search was begun.
        DataError: If a proxy task has too few examples.
    """
    settings, run = bench.settings, bench.run
    space = map_space(settings, architecture, bench.teacher.config.num_hidden_layers)
    wanted = min(settings.layer_map.most_evaluations, space.size())
    judge: TextJudge | TaskJudge
    if isinstance(bench, TextBench):
        judge = TextJudge(bench=bench, architecture=cast("BertArchitecture", architecture))
    else:
        judge = TaskJudge(bench=bench, architecture=architecture)
    facts = _facts(settings, architecture, space, judge.told)
    judged_before = len(read_layer_maps(run).get(str(space.layers), {}).get("maps", ()))
    if isinstance(judge, TextJudge) and judged_before < wanted:
        refuse_other_tasks(run, judge.tasks)  # encoded now: too few examples are told at once
    if not judged_before:
        bench.narrator.say(
            f"There are {space.size():,} layer maps from {space.teacher_layers} teacher layers to "
            f"{space.layers}; up to {wanted:,} are judged by {judge.told}."
        )

    def on_trial(trials: Sequence[MapTrial]) -> None:
        _note_search(run, facts, trials)
        bench.narrator.note(_told_trial(trials, wanted))

    trials = search_maps(
        judge,
        space=space,
        strategy=map_strategy(settings, space),
        evaluations=wanted,
        storage_url=run.storage_url,
        study_name=f"layer-map-{space.layers}",
        on_trial=on_trial,
    )
    _note_search(run, facts, trials)
    best = best_map(trials)
    if best is None:
        raise RunError(
            f"none of {len(trials)} layer maps could be judged; the first: {trials[0].reason}. "
            "Mend that, or name a map (distill.layer_map), in a new run directory: this one holds "
            "their failures"
        )
    if len(trials) > judged_before:
        bench.narrator.say(_told_best(best, trials, space))
        for task, middle, constant in _hardly_taught(trials):
            bench.narrator.say(
                f"The maps have hardly taught {task}: half of them score {middle:.4f} or less, a "
                f"constant answer {constant:.4f}. Its scores are mostly chance; train longer or "
                f"on more ({_LONGER[isinstance(bench, TextBench)]})."
            )
    return best.genes


def with_searched_map(bench: Workbench, student: PreTrainedConfig) -> DistillSettings:
    """Returns what a student is distilled by; a map that is to be searched is found first."""
    distill = bench.settings.distill
    if distill.layer_map != "search":
        return distill
    architecture = described(student)
    assert not isinstance(architecture, ChainArchitecture)  # it learns from outputs alone
    return replace(distill, layer_map=searched_map(bench, architecture))


def map_trainings(
    settings: RunSettings, shapes: Iterable[Architecture], teacher_layers: int
) -> int:
    """Counts the short trainings of the searches for maps, at most; 0 where none is searched.

    Args:
        settings: How maps are searched, and how many students are trained to the end.
        shapes: What these may be like. Each depth among them is searched once, and there are no
            more depths than students.
        teacher_layers: Layers of the teacher.
    """
    if settings.distill.layer_map != "search":
        return 0
    wanted, final = settings.layer_map, settings.final
    one_a_depth = {shape.layers: shape for shape in shapes}.values()
    sizes = [map_space(settings, shape, teacher_layers).size() for shape in one_a_depth]
    maps = sorted((min(wanted.most_evaluations, size) for size in sizes), reverse=True)
    students = final.students + final.controls + len(settings.compare)
    return sum(maps[:students]) * wanted.seeds


def is_map_of_text(settings: RunSettings) -> bool:
    """Tells whether the recipe is a search for the map of a student that learns on a corpus."""
    return settings.recipe == "layer-map" and settings.layer_map.judge == "corpus"


def check_map_search(settings: RunSettings) -> None:
    """Refuses proxy tasks that cannot judge a map on text, before anything is trained.

    Raises:
        SettingsError: If one does not exist, or has no head for whole texts.
        DataError: If one cannot be loaded.
    """
    if settings.distill.layer_map == "search":
        load_proxy_tasks(settings.layer_map)


def map_space(settings: RunSettings, architecture: Architecture, teacher_layers: int) -> MapSpace:
    """Makes the space of a student's maps; the empty one is in it where it leaves a loss to learn.

    Args:
        settings: The objective beside the map, and whether genes may fall.
        architecture: The student's shape.
        teacher_layers: Layers of the teacher.
    """
    return MapSpace(
        layers=architecture.layers,
        teacher_layers=teacher_layers,
        any_order=settings.layer_map.any_order,
        with_empty=learns_without_layers(settings.distill),
    )


def named_maps(space: MapSpace) -> dict[str, Genes]:
    """Spells the maps that have names, as far as genes can."""
    uniform = uniform_layers(space.layers, space.teacher_layers)
    return {
        "uniform": tuple(layer + 1 for layer in uniform),
        "last": (*(0,) * (space.layers - 1), space.teacher_layers),
    }


def map_strategy(settings: RunSettings, space: MapSpace) -> MapStrategy:
    """Builds the strategy that the settings name.

    Either begins with the maps that have names: what is found is then at least as fit as they are,
    and the report can tell by how much.
    """
    wanted, first = settings.layer_map, tuple(named_maps(space).values())
    if wanted.strategy == "random":
        return RandomMaps(space, settings.seed, first=first)
    return GeneticMaps(space, settings.seed, evolution=wanted.evolution, first=first)


def read_layer_maps(run: RunDirectory) -> dict[str, Any]:
    """Reads what the run has searched, by the number of student layers; empty before."""
    file = run.path / LAYER_MAPS_FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))["depths"]) if file.exists() else {}


def _hardly_taught(trials: Sequence[MapTrial]) -> list[tuple[str, float, float]]:
    """Lists what most maps left at the level of a constant answer.

    Returns:
        Task, median score and that of a constant answer.
    """
    judged = [cast("Any", trial.attributes) for trial in trials if trial.fitness is not None]
    medians = {
        task: statistics.median(one["scores"][task] for one in judged)
        for task in judged[0]["scores"]
    }
    constants: Mapping[str, float] = judged[0]["constants"]
    return [
        (task, middle, constants[task])
        for task, middle in medians.items()
        if middle <= constants[task]
    ]


def _facts(
    settings: RunSettings, architecture: Architecture, space: MapSpace, judge: str
) -> dict[str, Any]:
    wanted = settings.layer_map
    return {
        "architecture_label": architecture.label,
        "layers": space.layers,
        "teacher_layers": space.teacher_layers,
        "any_order": space.any_order,
        "size": space.size(),
        "strategy": wanted.strategy,
        "population": wanted.population,
        "evaluations": min(wanted.most_evaluations, space.size()),
        "judge": judge,
        "seeds": wanted.seeds,
        "named": {name: list(genes) for name, genes in named_maps(space).items()},
    }


def _note_search(run: RunDirectory, facts: Mapping[str, Any], trials: Sequence[MapTrial]) -> None:
    """Writes the search of a depth, and leaves those of others as they are."""
    known = read_layer_maps(run)
    before = known.get(str(facts["layers"]), {})
    # Of a depth the first student's shape was searched with.
    shape = before.get("architecture_label", facts["architecture_label"])
    best = best_map(trials)
    known[str(facts["layers"])] = {
        **facts,
        "architecture_label": shape,
        "best": None if best is None else list(best.genes),
        "constants": {} if best is None else best.attributes.get("constants", {}),
        "maps": [_told_map(trial) for trial in trials],
    }
    text = json.dumps({"depths": known}, indent=2)
    write_text_atomically(run.path / LAYER_MAPS_FILE, text + "\n")


def _told_map(trial: MapTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "genes": list(trial.genes),
        "state": trial.state.value,
        "fitness": trial.fitness,
        "reason": trial.reason,
        "cost_s": round(trial.cost_s, 3),
        "scores": trial.attributes.get("scores", {}),
    }


def _told_trial(trials: Sequence[MapTrial], wanted: int) -> str:
    """One line about the map that was judged last, for a person."""
    last, best = trials[-1], best_map(trials)
    found = f"failed: {last.reason}" if last.fitness is None else f"{last.fitness:.4f}"
    ahead = "" if best is None else f"; best so far {list(best.genes)}"
    return f"Layer map {len(trials)} of {wanted}, {list(last.genes)}: {found}{ahead}"


def _told_best(best: MapTrial, trials: Sequence[MapTrial], space: MapSpace) -> str:
    """Tells the best map beside those that have names."""
    fitness = {trial.genes: trial.fitness for trial in trials}
    named = [
        f"{name} {list(genes)} {found:.4f}"
        for name, genes in named_maps(space).items()
        if (found := fitness.get(genes)) is not None
    ]
    beside = f"; {', '.join(named)}" if named else ""
    return (
        f"Best of {len(trials):,} layer maps: {list(best.genes)} with {best.fitness:.4f}{beside}."
    )
