"""What a run needs of this machine, looked at before one is begun: `stillhouse doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import psutil
import torch
from huggingface_hub import constants
from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import Requirement

from stillhouse.device.inventory import take_inventory
from stillhouse.model.precision import resolve_precision

if TYPE_CHECKING:
    from stillhouse.device.inventory import Inventory

State: TypeAlias = Literal["good", "note", "bad"]

PACKAGE = "stillhouse"
OPTIONAL = ("onnx", "onnx-gpu", "openvino", "dashboard")
"""Extras that a user may want; the others are for people who work on stillhouse."""
ENOUGH_DISK_GB = 5.0
"""A task search keeps up to three checkpoints of a training and its teacher's signals."""
ENOUGH_MEMORY_GB = 4.0
HUB_PATIENCE_S = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What it is.
        state: `bad` stops work, `note` is worth knowing, `good` is as it should be.
        told: What was found.
        advice: What to do; empty where nothing is to be done.
    """

    name: str
    state: State
    told: str
    advice: str = ""


def examine(folder: Path) -> tuple[Finding, ...]:
    """Looks at versions, devices, memory, disk and the model hub; changes nothing.

    Args:
        folder: Where runs will be kept; need not exist yet.
    """
    inventory = take_inventory()
    return (
        Finding(name="python", state="good", told=platform.python_version()),
        *_packages(),
        *_extras(),
        *_devices(inventory),
        _threads(inventory),
        _precision(),
        _memory(),
        _disk("runs", folder),
        _disk("model cache", Path(constants.HF_HUB_CACHE)),
        _hub(),
    )


def _packages() -> Iterator[Finding]:
    """The packages that stillhouse cannot do without, wrong ones alone, or all in one line."""
    needed = [one for one in _requirements() if one.marker is None]
    wrong = [finding for one in needed if (finding := _misfit(one)) is not None]
    shown = ("torch", "transformers", "accelerate", "datasets", "optuna")
    told = ", ".join(f"{name} {_version(name)}" for name in (PACKAGE, *shown))
    yield Finding(name="packages", state="good", told=told)
    yield from wrong


def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in requires(PACKAGE) or ()]


def _misfit(needed: Requirement) -> Finding | None:
    """Tells what is wrong with a package, if anything."""
    found = _version(needed.name)
    if found is not None and needed.specifier.contains(found, prereleases=True):
        return None
    told = "not installed" if found is None else f"{found}, but {needed.specifier} is needed"
    return Finding(
        name=needed.name,
        state="bad",
        told=told,
        advice=f'pip install "{needed.name}{needed.specifier}"',
    )


def _extras() -> Iterator[Finding]:
    """What is installed of each extra; one that lacks something is named with its command."""
    for extra in OPTIONAL:
        parts = [one for one in _requirements() if _is_of(one, extra)]
        missing = [one.name for one in parts if _misfit(one) is not None]
        if not parts:  # of an installation that is older than the extra
            continue
        if not missing:
            told = ", ".join(f"{one.name} {_version(one.name)}" for one in parts)
            yield Finding(name=f"extra {extra}", state="good", told=told)
        elif extra != "onnx-gpu":  # its absence is no news without a GPU, and devices tell the rest
            yield Finding(
                name=f"extra {extra}",
                state="note",
                told=f"without {', '.join(missing)}",
                advice=f'pip install "{PACKAGE}[{extra}]" if you want it',
            )


def _is_of(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return False
    try:
        return requirement.marker.evaluate({"extra": extra})
    except UndefinedEnvironmentName:
        return False


def _devices(inventory: Inventory) -> Iterator[Finding]:
    usable = [one.name for one in inventory.devices if one.missing is None]
    yield Finding(
        name="devices",
        state="good",
        told=f"{', '.join(usable)}; the default is {inventory.default}",
        advice="stillhouse devices tells what the others lack",
    )
    cuda = "; ".join(inventory.cuda)
    yield Finding(name="processor", state="good", told=inventory.processor)
    if cuda:
        yield Finding(name="CUDA", state="good", told=cuda)


def _threads(inventory: Inventory) -> Finding:
    cores, threads = inventory.cores, inventory.threads
    named = os.environ.get("OMP_NUM_THREADS")
    told = f"{threads} of {cores or 'unknown'} physical cores"
    if cores is not None and threads > cores:
        return Finding(
            name="threads",
            state="note",
            told=told,
            advice=f"OMP_NUM_THREADS={cores} is faster: threads of one core fight",
        )
    if cores is not None and threads < cores:
        why = f"OMP_NUM_THREADS is {named}" if named else "the process may use no more"
        return Finding(name="threads", state="note", told=f"{told}: {why}")
    return Finding(name="threads", state="good", told=told)


def _precision() -> Finding:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Finding(name="training precision", state="good", told=resolve_precision("auto", device))


def _memory() -> Finding:
    free_gb = psutil.virtual_memory().available / 1e9
    if free_gb >= ENOUGH_MEMORY_GB:
        return Finding(name="memory", state="good", told=f"{free_gb:.0f} GB free")
    return Finding(
        name="memory",
        state="note",
        told=f"{free_gb:.1f} GB free",
        advice="smaller distill.batch_size and task.max_length need less",
    )


def _disk(name: str, folder: Path) -> Finding:
    """Looks at the place of a folder, which may not exist yet."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free_gb = shutil.disk_usage(place).free / 1e9
    told = f"{folder}: {free_gb:.0f} GB free"
    if not os.access(place, os.W_OK):
        return Finding(
            name=name, state="bad", told=f"{folder} cannot be written", advice=_elsewhere(name)
        )
    if free_gb < ENOUGH_DISK_GB:
        return Finding(name=name, state="note", told=told, advice=_elsewhere(name))
    return Finding(name=name, state="good", told=told)


def _elsewhere(name: str) -> str:
    return "set HF_HOME to a folder elsewhere" if name == "model cache" else "give another --run"


def _hub(ask: Callable[[str], None] | None = None) -> Finding:
    """Tells whether models can be fetched by name."""
    if constants.HF_HUB_OFFLINE:
        return Finding(
            name="hub",
            state="note",
            told="off: HF_HUB_OFFLINE is set",
            advice="models are taken from folders and from the model cache",
        )
    try:
        (ask or _ask)(constants.ENDPOINT)
    except (OSError, urllib.error.URLError) as error:
        return Finding(
            name="hub",
            state="note",
            told=f"{constants.ENDPOINT} cannot be reached ({getattr(error, 'reason', error)})",
            advice="give folders instead of names, and set HF_HUB_OFFLINE=1 to save the waiting",
        )
    return Finding(name="hub", state="good", told=f"{constants.ENDPOINT} answers")


def _ask(address: str) -> None:
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=HUB_PATIENCE_S):
            return
    except urllib.error.HTTPError:
        return  # it answers


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
