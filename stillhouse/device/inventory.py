"""What models can be measured on here, and what the other kinds of devices lack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import torch

from stillhouse.device.host import processor_name
from stillhouse.device.kinds import MEASURED
from stillhouse.device.runtimes import program_of, why_unusable

if TYPE_CHECKING:
    from stillhouse.device.chips import ToldPrecision


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A kind of device, as it stands here.

    Attributes:
        name: As `--device` takes it.
        program: What runs models there, with its version where it is installed.
        precisions: What it can be asked for; the first is its own.
        missing: Why it cannot be used, and what to do; `None` if it can.
    """

    name: str
    program: str
    precisions: tuple[ToldPrecision, ...]
    missing: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What there is to measure on.

    Attributes:
        devices: Every kind that is known.
        default: Name of the one that `auto` takes.
        processor: Its own name.
        cores: Physical ones; `None` where the system does not tell.
        hardware_threads: What its cores run at once.
        threads: What a measurement takes unless it is told otherwise.
        cuda: Names of the CUDA devices with their memory.
    """

    devices: tuple[Listed, ...]
    default: str
    processor: str
    cores: int | None
    hardware_threads: int | None
    threads: int
    cuda: tuple[str, ...]


def take_inventory() -> Inventory:
    """Looks at this machine and at what is installed; runs nothing."""
    return Inventory(
        devices=tuple(
            Listed(
                name=name,
                program=program_of(kind.engine),
                precisions=kind.precisions,
                missing=why_unusable(name),
            )
            for name, kind in MEASURED.items()
        ),
        default=default_kind(),
        processor=processor_name(),
        cores=psutil.cpu_count(logical=False),
        hardware_threads=psutil.cpu_count(),
        threads=torch.get_num_threads(),
        cuda=_cuda_devices(),
    )


def default_kind() -> str:
    """Returns the name of the kind that `auto` is."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _cuda_devices() -> tuple[str, ...]:
    if not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    return tuple(f"{one.name}, {one.total_memory / 1e9:.0f} GB" for one in found)
