"""What a job costs: its time, the energy of this machine, and the carbon dioxide of that energy.

Source: Strubell, Ganesh and McCallum, "Energy and Policy Considerations for Deep Learning in NLP"
(ACL 2019), section 3. They sample the power of processor, memory and GPUs and take the mean; ours
reads counters of energy where there are any, and says what is an estimate.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from stillhouse.device.energy_counters import GpuCounters, PowercapZone, processor_zones
from stillhouse.errors import DeviceError

POWERCAP = Path("/sys/class/powercap")
SECONDS_BETWEEN_READINGS = 30.0
"""The smallest counters, of 65 kJ, are full after four minutes at 250 W."""
CORE_WATTS = 12.0
GPU_WATTS = 200.0
"""Where neither a counter nor the user tells: Green Algorithms (Lannelongue et al., 2021), entries
"Any" of its tables `TDP_cpu.csv` (a core) and `TDP_gpu.csv`."""
JOULES_PER_WH = 3600.0
RAPL = "RAPL"
KG_PER_LB = 0.45359237


@dataclass(frozen=True, slots=True, kw_only=True)
class Emissions:
    """Factors from energy to carbon dioxide; the defaults are Strubell's.

    Attributes:
        pue: What a data centre takes over what its machines take (their world mean of 2018).
        co2_kg_per_kwh: Of its electricity (their mean of the USA, 0.954 lb).
    """

    pue: float = 1.58
    co2_kg_per_kwh: float = 0.954 * KG_PER_LB


STRUBELL = Emissions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a job has cost.

    Attributes:
        seconds: Of the clock on the wall.
        energy_wh: Of processors, their memory and the GPUs in use, without the data centre's.
            Counters of a processor count what other programs do on it as well.
        co2_g: Of that energy, the data centre's share included.
        how: How the energy was obtained: "counted (RAPL)", "estimated from 65 W, stated".
    """

    seconds: float
    energy_wh: float
    co2_g: float
    how: str


@dataclass(frozen=True, slots=True)
class _Energy:
    """Joules of a part of the machine, counted or to be estimated from watts."""

    counter: str
    joules: float | None
    default_watts: float
    default_told: str


class Meter:
    """Counts what this process costs, from when it is made until `stop`.

    A job of several processes has a meter in each; only one of a machine counts what is of the
    machine as a whole.
    """

    def __init__(
        self,
        *,
        watts: float | None,
        powercap: Path,
        emissions: Emissions,
        counts_machine: bool,
    ) -> None:
        """Begins to count; the arguments are those of `metered`."""
        self._watts = watts
        self._counts_machine = counts_machine
        self._emissions = emissions
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._final: Cost | None = None
        self._zones: Sequence[PowercapZone] = processor_zones(powercap)
        self._processor_joules: float | None = None
        self._gpus = GpuCounters()
        self._gpu_joules_before = self._gpus.joules()
        self._start_s = time.monotonic()
        if self._zones:
            threading.Thread(target=self._keep_reading, name="energy meter", daemon=True).start()

    def cost(self) -> Cost:
        """Tells the cost so far, or until the end."""
        return self._final or self._told()

    def stop(self) -> None:
        """Ends the counting."""
        self._final = self._told()
        self._ended.set()

    def _told(self) -> Cost:
        seconds = time.monotonic() - self._start_s
        parts = [part for part in (self._processor(), *self._used_gpus()) if self._counts(part)]
        counted = [part for part in parts if part.joules is not None]
        energy_wh = sum(part.joules or 0.0 for part in counted) / JOULES_PER_WH
        told = []
        if counted:
            told.append(f"counted ({', '.join(dict.fromkeys(part.counter for part in counted))})")
        estimated = [part for part in parts if part.joules is None]
        if estimated:
            watts, source = self._power(estimated)
            energy_wh += watts * seconds / JOULES_PER_WH
            told.append(f"estimated from {watts:g} W, {source}")
        return Cost(
            seconds=seconds,
            energy_wh=energy_wh,
            co2_g=energy_wh * self._emissions.pue * self._emissions.co2_kg_per_kwh,
            how=" + ".join(told),
        )

    def _counts(self, part: _Energy) -> bool:
        """Tells whether no other process counts a part: a GPU's counter, or threads of its own."""
        is_shared = self._watts is not None if part.joules is None else part.counter == RAPL
        return self._counts_machine or not is_shared

    def _power(self, parts: Sequence[_Energy]) -> tuple[float, str]:
        """Returns the watts of parts without counters, and where they are from."""
        if self._watts is not None:
            return self._watts, "stated"
        each = " + ".join(part.default_told for part in parts)
        return sum(part.default_watts for part in parts), f"default ({each})"

    def _processor(self) -> _Energy:
        self._read_processor()
        cores = torch.get_num_threads()
        return _Energy(
            counter=RAPL,
            joules=self._processor_joules,
            default_watts=CORE_WATTS * cores,
            default_told=f"{CORE_WATTS:g} W a thread x {cores}",
        )

    def _read_processor(self) -> None:
        with self._lock:
            try:
                joules = [zone.joules() for zone in self._zones]
            except (OSError, ValueError):  # it went away, and with it what it would have counted
                self._zones, joules = (), []
            self._processor_joules = sum(joules) if joules else None

    def _keep_reading(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_READINGS):
            self._read_processor()

    def _used_gpus(self) -> Iterator[_Energy]:
        """Yields the GPUs on which this process has had memory."""
        if not torch.cuda.is_initialized():
            return
        now = self._gpus.joules()
        for place in range(torch.cuda.device_count()):
            if not torch.cuda.max_memory_reserved(place):
                continue
            uuid = str(torch.cuda.get_device_properties(place).uuid)
            before = self._gpu_joules_before.get(uuid)
            yield _Energy(
                counter="NVML",
                joules=None if before is None else now[uuid] - before,
                default_watts=GPU_WATTS,
                default_told=f"{GPU_WATTS:g} W a GPU",
            )


@contextmanager
def metered(
    *,
    watts: float | None = None,
    powercap: Path = POWERCAP,
    emissions: Emissions = STRUBELL,
    counts_machine: bool = True,
) -> Iterator[Meter]:
    """Meters what runs in the context.

    Args:
        watts: Power of what has no counter that can be read, all of it together; `None` takes
            12 W for each of PyTorch's threads and 200 W for each GPU in use.
        powercap: Folder with the processors' counters. Reading them takes the rights of root on
            most systems.
        emissions: Factors from energy to carbon dioxide.
        counts_machine: Whether what is of the machine as a whole counts here, its processors'
            counters and the stated power; of several processes on one machine for one of them.

    Yields:
        The meter, whose `cost()` can be asked at any time; after the context it is the total.

    Raises:
        DeviceError: If the power is not above 0.
    """
    if watts is not None and not (watts > 0 and math.isfinite(watts)):
        raise DeviceError(
            f"the power of a machine is a number of watts above 0, not {watts:g}: state what it "
            "takes at work, or leave it out"
        )
    meter = Meter(
        watts=watts, powercap=powercap, emissions=emissions, counts_machine=counts_machine
    )
    try:
        yield meter
    finally:
        meter.stop()
