"""AutoDistil: supernets trained on plain text, and one search per budget without retraining.

Source: Xu et al., "Few-shot Task-agnostic Neural Architecture Search for Distilling Large Language
Models", NeurIPS 2022, arXiv 2201.12507. What differs here: limits may be on latency, size and
parameters as well as on FLOPs, which are the true ones and not the paper's formula; sub-spaces are
in the proportions of the teacher at hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stillhouse.data.corpus import prepare_corpus
from stillhouse.data.task import IN_MEMORY
from stillhouse.distill.relations import check_relation_heads
from stillhouse.errors import SettingsError
from stillhouse.export.card import encoder_card
from stillhouse.export.checkpoint import METRICS_FILE, read_metrics, save_checkpoint
from stillhouse.files import write_text_atomically
from stillhouse.model.anatomy import architecture_of, usable_positions
from stillhouse.model.encoders import Encoder, build_encoder, load_encoder
from stillhouse.model.own_families import needs_code
from stillhouse.model.precision import resolve_precision
from stillhouse.model.students import student_config
from stillhouse.model.teachers import hash_weights
from stillhouse.recipe.final import latency_metrics
from stillhouse.recipe.limits import cost_metrics, teacher_costs
from stillhouse.recipe.selection import Scales, best_within, first_within, refuse_hopeless
from stillhouse.recipe.served import say_how_far_served, say_scored_in_float
from stillhouse.recipe.supernets import Nursery, ScoredSubnet, score_subnets, train_supernet
from stillhouse.recipe.task_proxy import TaskProxy
from stillhouse.recipe.teacher import SCRATCH
from stillhouse.recipe.workbench import resolve_device, resolve_device_kind, resolve_workload
from stillhouse.space.counts import count_encoder_parameters
from stillhouse.space.published import autodistil_for, bounding_box
from stillhouse.supernet.sandwich import RelationLesson
from stillhouse.supernet.skeletons import ProjectionReader
from stillhouse.supernet.subnets import check_cut, kept_layers

if TYPE_CHECKING:
    from accelerate import Accelerator

    from stillhouse.run.device_settings import LimitSettings
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings
    from stillhouse.space.architecture import Architecture
    from stillhouse.space.search_space import SearchSpace
    from stillhouse.supernet.subnets import Supernet

ASKS = (
    "limit",
    "supernet.judge",
    "supernet.judged",
    "supernet.per_space",
    "supernet.runners_up",
    "task",
    "search",
    "finetune",
)
"""Settings that another search in the same run may change: its supernets stay as they are."""

FAMILY_FILE = "family.json"
ONE_SHOT = "one-shot"
_COSTS = "costs"
SCORED = {
    "relation": "students are chosen by relation losses, unquantised: a file of {} does not give "
    "the queries, keys and values that these compare",
    "task": "students are chosen by what they learn of the task, unquantised",
}
"""What is said where the device is of 8 bits, by what judges."""
DEFAULT_FLOPS_FRACTION = 0.5
"""The paper's budget, taken where no limit is given."""


def search_family(
    settings: RunSettings, run: RunDirectory, narrator: Narrator, accelerator: Accelerator
) -> list[Path]:
    """Trains what supernets the run has not, and searches them for the budget of the settings.

    Args:
        settings: The run's settings; see `ASKS` for what may differ from an earlier start.
        run: The run directory; workers but the main one write nothing into it.
        narrator: Told what is decided on the way.
        accelerator: Device and workers.

    Returns:
        Folders of the chosen students; none on workers but the main one.

    Raises:
        TeacherError: If the teacher cannot be loaded, or no student can be cut out of it.
        SettingsError: If no teacher is named, or something is set that does not go with it.
        RunError: If the teacher's weights are not those that the run began with.
        DataError: If the corpus is too small or has changed.
        DeviceError: If no student is within the limit.
    """
    teacher = _load_teacher(settings.teacher.model)
    spaces = sub_spaces(settings, architecture_of(teacher.model.config))
    _check_spaces(settings, teacher, spaces)
    limits = _limits(settings)
    scales = open_scales(settings, teacher, limits)
    if accelerator.is_main_process and not _chosen_before(run, _asked(settings, limits)):
        alone = [{name: space} for name, space in spaces.items()]
        for together in alone if settings.supernet.per_space else [spaces]:
            refuse_hopeless(together, scales)
    nursery = open_nursery(settings, run, narrator, teacher, accelerator)
    if accelerator.is_main_process:
        _note_start(nursery, spaces)
    supernets = {}
    with run.timed("supernets") if accelerator.is_main_process else nullcontext():
        for name, space in spaces.items():
            supernets[name] = train_supernet(nursery, name, space)
    if not accelerator.is_main_process:
        return []
    with run.timed("search"):
        scored = [
            subnet
            for name, space in spaces.items()
            for subnet in score_subnets(nursery, name, space, supernets[name])
        ]
        return _choose(nursery, supernets, scored, scales)


def _load_teacher(name: str) -> Encoder:
    """Loads the teacher; what its checkpoint lacks, such as a pooler, is drawn always alike."""
    if name in (SCRATCH, IN_MEMORY):
        raise SettingsError(
            f"autodistil needs a trained teacher that it can load, got {name!r}: name a folder or "
            "a hub id with --teacher (teacher.model)"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_encoder(name)


def _check_spaces(
    settings: RunSettings, teacher: Encoder, spaces: Mapping[str, SearchSpace]
) -> None:
    """Refuses students that cannot be cut out of the teacher, or are too narrow to learn."""
    config = teacher.model.config
    heads = settings.supernet.relation_heads or architecture_of(config).heads
    for space in spaces.values():
        check_cut(config, list(space))
        narrowest = min(one.attention_width for one in space)
        check_relation_heads(heads, narrowest, whose="student")


def sub_spaces(settings: RunSettings, teacher: Architecture) -> dict[str, SearchSpace]:
    """Returns the sub-spaces in the teacher's proportions, or the one box around them, by name."""
    names: tuple[str, ...] = settings.supernet.spaces
    spaces = {name: autodistil_for(teacher, name) for name in names}
    if settings.supernet.one_shot:
        return {ONE_SHOT: bounding_box(list(spaces.values()))}
    return spaces


def open_nursery(
    settings: RunSettings,
    run: RunDirectory,
    narrator: Narrator,
    teacher: Encoder,
    accelerator: Accelerator,
) -> Nursery:
    """Prepares the corpus and everything that supernets share; trains nothing."""
    whole = architecture_of(teacher.model.config)
    heads = settings.supernet.relation_heads or whole.heads
    check_relation_heads(heads, whole.attention_width, whose="teacher")
    _check_settings(settings, teacher, accelerator)
    say_scored_in_float(settings.device, narrator)
    say_how_far_served(settings.device, narrator, SCORED[settings.supernet.judge])
    with accelerator.main_process_first():  # it prepares the corpus, the others open it
        narrator.begin("Corpus", 1.0)
        corpus = prepare_corpus(
            settings.corpus, teacher.tokenizer, run.corpus, on_progress=narrator.advance
        )
        narrator.end()
    reader = build_encoder(teacher.model.config, seed=0)
    reader.load_state_dict(teacher.model.state_dict())
    reader.to(accelerator.device).eval().requires_grad_(requires_grad=False)
    precision = resolve_precision(settings.distill.precision, accelerator.device)
    return Nursery(
        settings=settings,
        run=run,
        narrator=narrator,
        teacher=teacher,
        lesson=RelationLesson(
            teacher=ProjectionReader(reader),
            heads=heads,
            target=settings.supernet.target,
            precision=precision,
        ),
        corpus=corpus,
        accelerator=accelerator,
    )


def _check_settings(settings: RunSettings, teacher: Encoder, accelerator: Accelerator) -> None:
    positions = usable_positions(teacher.model.config)
    if settings.corpus.length > positions:
        raise SettingsError(
            f"corpus.length {settings.corpus.length} is above the teacher's {positions} positions; "
            "set it lower"
        )
    if settings.corpus.held_out < 1:
        raise SettingsError("corpus.held_out must be at least 1: students are chosen on that text")
    kind = resolve_device_kind(settings.device)
    workload = resolve_workload(settings.device, np.array([settings.corpus.length]), kind)
    if kind != "table" and workload.length > positions:
        raise SettingsError(
            f"students would be timed at {workload.length} tokens, but the teacher has {positions} "
            "positions; set device.length to that at most"
        )
    workers = accelerator.num_processes
    if settings.supernet.batch_size % workers:
        raise SettingsError(
            f"supernet.batch_size {settings.supernet.batch_size} must be a multiple of the "
            f"{workers} workers"
        )


def _note_start(nursery: Nursery, spaces: Mapping[str, SearchSpace]) -> None:
    """Writes what the run stands on, and says how large its spaces are."""
    run, corpus, teacher = nursery.run, nursery.corpus, nursery.teacher
    run.refuse_other_data(corpus.fingerprint)
    weights = hash_weights(teacher.model)
    run.refuse_other_teacher(weights)
    run.write_provenance(
        nursery.settings, {"teacher_sha256": weights, "data_sha256": corpus.fingerprint}
    )
    run.update_state(
        {
            "status": "running",
            "task": f"corpus {nursery.settings.corpus.name}",
            "teacher": teacher.name,
            "space_size": sum(len(space) for space in spaces.values()),
            "limits": _limits(nursery.settings).given(),
        }
    )
    sizes = ", ".join(f"{name} {len(space)}" for name, space in spaces.items())
    nursery.narrator.say(
        f"Spaces in the proportions of {architecture_of(teacher.model.config).label}: {sizes} "
        f"students; corpus of {len(corpus.train):,} sequences of {corpus.train.length} tokens, "
        f"{len(corpus.held_out):,} held out."
    )


def _limits(settings: RunSettings) -> LimitSettings:
    limits = settings.limit
    if limits.given():
        return limits
    return replace(limits, flops_fraction=DEFAULT_FLOPS_FRACTION)


def _choose(
    nursery: Nursery,
    supernets: Mapping[str, Supernet],
    scored: Sequence[ScoredSubnet],
    scales: Scales,
) -> list[Path]:
    """Chooses within the limit, extracts what was not extracted before, and notes the search."""
    limits, settings = _limits(nursery.settings), nursery.settings.supernet
    asked = _asked(nursery.settings, limits)
    if settings.judge != "task" and (known := _chosen_before(nursery.run, asked)):
        return [_tell_limits(nursery.run, search) for search in known]
    if not nursery.settings.limit.given():
        nursery.narrator.say(
            f"No limit given: looking for students of at most {DEFAULT_FLOPS_FRACTION:g} of the "
            "teacher's FLOPs, as the paper does (--limit changes it)."
        )
    groups = [list(scored)]
    if settings.per_space:
        groups = [[one for one in scored if one.space == name] for name in supernets]
    chosen = []
    for group in groups:
        by_task = settings.judge == "task"
        candidates = _judged(nursery, supernets, group, scales) if by_task else group
        chosen.append(best_within(candidates, scales, 1 + settings.runners_up))
    searches = []
    for best, *others in chosen:
        folder = _extract(nursery, supernets[best.space], best, scales, limits)
        runners_up = [_told(one, scales) for one in others]
        search: dict[str, Any] = {"limits": limits.given(), "judge": settings.judge}
        search |= {"student": folder.name, "best": _told(best, scales)}
        search |= {"runners_up": runners_up, "asked": asked}
        search[_COSTS] = _costs(best, scales, limits)
        searches.append(search)
    _note_searches(nursery.run, searches)
    return [_tell_limits(nursery.run, search) for search in searches]


def _asked(settings: RunSettings, limits: LimitSettings) -> dict[str, Any]:
    """Returns what the settings ask of trained supernets, by path."""
    values = {**settings.to_dict(), "limit": limits.given()}
    return {path: reduce(getitem, path.split("."), values) for path in ASKS}


def _chosen_before(run: RunDirectory, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the same search as it was made, which noisy latencies would not make again."""
    searches = [one for one in _read_searches(run) if one.get("asked") == asked]
    folders = {run.student(int(one["student"])) for one in searches}
    return searches if folders <= set(run.students()) else []


def _costs(subnet: ScoredSubnet, scales: Scales, limits: LimitSettings) -> dict[str, Any]:
    """Tells what a search knows of its student's costs and of its limits, as in `metrics.json`."""
    known = scales.known(subnet.architecture)
    latencies = {} if known.comparison is None else latency_metrics(known.comparison)
    return {**latencies, **cost_metrics(limits, known)}


def _tell_limits(run: RunDirectory, search: Mapping[str, Any]) -> Path:
    """Lets a student, which may be that of other searches too, tell the limits of this one."""
    folder = run.student(int(search["student"]))
    known = read_metrics(folder)
    told = known | search.get(_COSTS, {})
    if told != known:
        text = json.dumps(told, indent=2, ensure_ascii=False)
        write_text_atomically(folder / METRICS_FILE, text + "\n")
    return folder


def _judged(
    nursery: Nursery,
    supernets: Mapping[str, Supernet],
    group: Sequence[ScoredSubnet],
    scales: Scales,
) -> list[ScoredSubnet]:
    """Fine-tunes what is within the limit, or a part of it drawn by chance."""
    count = nursery.settings.supernet.judged or len(group)
    generator = np.random.default_rng([nursery.settings.seed, 3])
    drawn = [group[place] for place in generator.permutation(len(group))]
    within = first_within(drawn, scales, count)
    proxy = TaskProxy(nursery=nursery, supernets=supernets)
    return proxy.judge(sorted(within, key=lambda one: one.order))


def open_scales(settings: RunSettings, teacher: Encoder, limits: LimitSettings) -> Scales:
    """Prepares what weighs students."""
    config, kind = teacher.model.config, resolve_device_kind(settings.device)
    device = resolve_device(
        settings.device,
        kind,
        teacher=teacher.model,
        build=lambda shape: build_encoder(student_config(shape, config), seed=0),
        bare=True,
    )
    lengths = np.array([settings.corpus.length])
    return Scales(config, limits, device, resolve_workload(settings.device, lengths, kind))


def _told(subnet: ScoredSubnet, scales: Scales) -> dict[str, Any]:
    cost = scales.cost(subnet.architecture)
    return {
        "space": subnet.space,
        "architecture": subnet.architecture.to_dict(),
        "architecture_label": subnet.architecture.label,
        "relation_loss": subnet.loss,
        "proxy_quality": subnet.quality,
        "parameters": cost.parameters,
        "flops": cost.flops,
        "flops_fraction": cost.flops_fraction,
    }


def _extract(
    nursery: Nursery,
    supernet: Supernet,
    subnet: ScoredSubnet,
    scales: Scales,
    limits: LimitSettings,
) -> Path:
    """Writes a student's checkpoint, or finds the one that an earlier search wrote."""
    run, architecture = nursery.run, subnet.architecture
    told = _told(subnet, scales)
    for folder in run.students():
        known = read_metrics(folder)
        if (known["architecture"], known["space"]) == (told["architecture"], told["space"]):
            return folder
    folder = run.student(len(run.students()) + 1)
    model = supernet.extract(architecture)
    weighed = scales.finished(architecture)
    assert weighed.comparison is not None
    layers = kept_layers(architecture.layers, supernet.depth)
    metrics = {
        **told,
        **latency_metrics(weighed.comparison),
        "device": scales.device.name,
        "workload": asdict(scales.workload),
        "workload_label": scales.workload.label,
        "parameters_encoder": count_encoder_parameters(architecture),
        **teacher_costs(sum(p.numel() for p in nursery.teacher.model.parameters()), weighed),
        "teacher_architecture": architecture_of(nursery.teacher.model.config).to_dict(),
        **cost_metrics(limits, weighed),
        "initialisation": {"kind": "supernet", "layers": list(layers)},
        "held_out_sequences": len(nursery.corpus.held_out),
    }
    card = encoder_card(
        metrics,
        teacher=nursery.teacher.name,
        corpus=nursery.settings.corpus.name,
        has_code=needs_code(model.config),
    )
    save_checkpoint(folder, model, nursery.teacher.tokenizer, metrics=metrics, card=card)
    return folder


def _read_searches(run: RunDirectory) -> list[dict[str, Any]]:
    file = run.path / FAMILY_FILE
    return list(json.loads(file.read_text())["searches"]) if file.exists() else []


def _note_searches(run: RunDirectory, searches: Sequence[Mapping[str, Any]]) -> None:
    """Adds the searches of one start to the run's list of them, all at once, each only once."""
    known = _read_searches(run)
    before = [_without_costs(one) for one in known]
    new = [one for one in searches if _without_costs(one) not in before]
    text = json.dumps({"searches": [*known, *new]}, indent=2)
    write_text_atomically(run.path / FAMILY_FILE, text + "\n")


def _without_costs(search: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out what is measured, which is another number each time."""
    return {name: value for name, value in search.items() if name != _COSTS}
