"""Arithmetic of matrix products: float32, or bfloat16 autocast where the machine has it."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch

from stillhouse.errors import SettingsError

Precision: TypeAlias = Literal["float32", "bfloat16"]


def bfloat16_helps(device: torch.device) -> bool:
    """Tells whether bfloat16 matrix products run in hardware on `device`."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # The private query is the only one that torch 2.13 offers for processors.
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def resolve_precision(
    wanted: Literal["auto", "float32", "bfloat16"], device: torch.device
) -> Precision:
    """Turns `auto` into bfloat16 where the hardware has it, else float32.

    Raises:
        SettingsError: If bfloat16 is asked for on a device without it.
    """
    if wanted == "bfloat16" and not bfloat16_helps(device):
        raise SettingsError(
            f"precision bfloat16: {device.type} here has no bfloat16 hardware; use float32 or auto"
        )
    if wanted == "auto":
        return "bfloat16" if bfloat16_helps(device) else "float32"
    return wanted


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Returns the autocast region for `precision`.

    accelerate holds one precision per process, and a teacher, a search and a latency measurement
    in one process need different ones; so the region is opened here, and accelerate keeps device
    placement, the backward pass and clipping.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
