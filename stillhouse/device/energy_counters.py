"""Counters of energy that a machine offers: its processors' (RAPL) and its GPUs' (NVML)."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path

COUNTED_ZONES = ("package", "dram")
"""Of RAPL, by the beginning of their names. Cores are part of a package; "psys" is the whole board,
which some laptops have and which holds the packages once more."""
NVML_LIBRARY = "libnvidia-ml.so.1"
UUID_BYTES = 96


class PowercapZone:
    """One zone of Linux's powercap: a counter of microjoules that begins anew when it is full."""

    def __init__(self, folder: Path) -> None:
        """Reads where the counter stands.

        Raises:
            OSError: If it cannot be read, as for users without rights.
        """
        self._file = folder / "energy_uj"
        self._range_uj = int((folder / "max_energy_range_uj").read_text(encoding="ascii"))
        self._last_uj = self._read_uj()
        self._sum_uj = 0

    def joules(self) -> float:
        """Tells what was counted since this object was made.

        It has to be asked more often than the counter can fill up, which takes some minutes.

        Raises:
            OSError: If the counter is gone.
        """
        now_uj = self._read_uj()
        step_uj = now_uj - self._last_uj
        self._sum_uj += step_uj if step_uj >= 0 else step_uj + self._range_uj
        self._last_uj = now_uj
        return self._sum_uj / 1e6

    def _read_uj(self) -> int:
        return int(self._file.read_text(encoding="ascii"))


def processor_zones(powercap: Path) -> Sequence[PowercapZone]:
    """Finds the counters of all processors and their memory.

    Args:
        powercap: Folder of the system, `/sys/class/powercap`.

    Returns:
        None where there are none, or where one of them cannot be read: a part is no total.
    """
    folders = [
        folder
        for folder in sorted(powercap.glob("intel-rapl:*"))
        if _zone_name(folder).startswith(COUNTED_ZONES)
    ]
    try:
        return [PowercapZone(folder) for folder in folders]
    except (OSError, ValueError):
        return []


def _zone_name(folder: Path) -> str:
    try:
        return (folder / "name").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class GpuCounters:
    """The energy counters of this machine's GPUs, through the library of NVIDIA's driver."""

    def __init__(self, library: str = NVML_LIBRARY) -> None:
        """Opens the library; where there is none, no GPU has a counter."""
        self._nvml: ctypes.CDLL | None = None
        try:
            nvml = ctypes.CDLL(library)
        except OSError:
            return
        if nvml.nvmlInit_v2() == 0:
            self._nvml = nvml

    def joules(self) -> Mapping[str, float]:
        """Tells what each GPU has taken since its driver was loaded, by its UUID without prefix.

        A GPU older than the Volta generation has no counter and is left out.
        """
        if self._nvml is None:
            return {}
        count = ctypes.c_uint()
        self._nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        found = (self._joules_of(self._nvml, place) for place in range(count.value))
        return dict(one for one in found if one is not None)

    @staticmethod
    def _joules_of(nvml: ctypes.CDLL, place: int) -> tuple[str, float] | None:
        handle, energy_mj = ctypes.c_void_p(), ctypes.c_ulonglong()
        uuid = ctypes.create_string_buffer(UUID_BYTES)
        states = (
            nvml.nvmlDeviceGetHandleByIndex_v2(place, ctypes.byref(handle)),
            nvml.nvmlDeviceGetUUID(handle, uuid, UUID_BYTES),
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(energy_mj)),
        )
        if any(states):
            return None
        return uuid.value.decode("ascii").removeprefix("GPU-"), energy_mj.value / 1e3
