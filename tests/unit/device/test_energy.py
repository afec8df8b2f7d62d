import pytest
import torch

from stillhouse.device import energy
from stillhouse.device.energy import Emissions, metered
from stillhouse.device.energy_counters import GpuCounters
from stillhouse.errors import DeviceError
from stillhouse.files import write_text_atomically

RANGE_UJ = 262_143_328_850


class Clock:
    """A clock by hand."""

    now_s = 100.0


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.monotonic", lambda: clock.now_s)
    return clock


class Powercap:
    """A folder like Linux's, whose counters are set by hand."""

    def __init__(self, folder):
        self.folder = folder

    def set(self, zone, name, energy_uj):
        folder = self.folder / zone
        folder.mkdir(exist_ok=True)
        contents = {"name": name, "max_energy_range_uj": RANGE_UJ, "energy_uj": energy_uj}
        for file, content in contents.items():
            write_text_atomically(folder / file, f"{content}\n")


@pytest.fixture
def powercap(tmp_path):
    return Powercap(tmp_path)


def test_packages_and_memory_are_counted_and_their_parts_are_not(powercap, clock):
    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:1": "dram"}
    others = {
        "intel-rapl:0:0": "core",
        "intel-rapl:2": "psys",
        "intel-rapl-mmio:0": "package-0",
    }
    for zone, name in (zones | others).items():
        powercap.set(zone, name, 1_000)
    with metered(powercap=powercap.folder, watts=65) as meter:
        powercap.set("intel-rapl:0", "package-0", 1_000 + 3_600_000_000)  # 1 Wh
        powercap.set("intel-rapl:1", "package-1", 1_000 + 1_800_000_000)
        powercap.set("intel-rapl:0:1", "dram", 1_000 + 900_000_000)
        for zone, name in others.items():
            powercap.set(zone, name, 9_000_000_000)
        clock.now_s += 60
    cost = meter.cost()
    assert cost.energy_wh == pytest.approx(1.75)
    assert cost.seconds == 60
    assert cost.how == "counted (RAPL)"


def test_a_counter_that_is_full_begins_anew(powercap):
    powercap.set("intel-rapl:0", "package-0", RANGE_UJ - 600_000_000)
    with metered(powercap=powercap.folder) as meter:
        powercap.set("intel-rapl:0", "package-0", 3_000_000_000)  # 3,600 J later
        assert meter.cost().energy_wh == pytest.approx(1)
        powercap.set("intel-rapl:0", "package-0", 2_999_000_000)  # nearly once around
        assert meter.cost().energy_wh == pytest.approx(1 + RANGE_UJ / 3.6e9, rel=1e-4)


def test_the_counter_is_read_between_whiles(powercap, monkeypatch):
    monkeypatch.setattr(energy, "SECONDS_BETWEEN_READINGS", 0.001)
    powercap.set("intel-rapl:0", "package-0", 0)
    with metered(powercap=powercap.folder) as meter:
        zone = meter._zones[0]
        powercap.set("intel-rapl:0", "package-0", RANGE_UJ - 1)
        while zone._last_uj != RANGE_UJ - 1:  # the other thread reads it
            pass
        powercap.set("intel-rapl:0", "package-0", RANGE_UJ // 2)
    rounds = meter.cost().energy_wh * 3.6e9 / RANGE_UJ
    assert rounds == pytest.approx(1.5, rel=1e-6)


def test_without_counters_the_stated_power_counts(tmp_path, clock):
    with metered(powercap=tmp_path, watts=65) as meter:
        clock.now_s += 1800
        assert meter.cost().energy_wh == pytest.approx(32.5)
        clock.now_s += 1800
    clock.now_s += 9000
    cost = meter.cost()
    assert (cost.seconds, cost.how) == (3600, "estimated from 65 W, stated")
    assert cost.energy_wh == pytest.approx(65)


def test_one_kilowatt_hour_is_what_strubell_says(tmp_path, clock):
    with metered(powercap=tmp_path, watts=1000) as meter:
        clock.now_s += 3600
    pounds = meter.cost().co2_g / 453.59237
    assert pounds == pytest.approx(0.954 * 1.58)
    assert meter.cost().co2_g == pytest.approx(1000 * 0.4327 * 1.58, rel=1e-4)


def test_other_factors_can_be_given(tmp_path, clock):
    green = Emissions(pue=1.1, co2_kg_per_kwh=0.05)
    with metered(powercap=tmp_path, watts=100, emissions=green) as meter:
        clock.now_s += 36_000
    assert meter.cost().co2_g == pytest.approx(55)


def test_the_default_power_is_told(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    with metered(powercap=tmp_path) as meter:
        clock.now_s += 3600
    assert meter.cost().energy_wh == pytest.approx(48)
    assert meter.cost().how == "estimated from 48 W, default (12 W a thread x 4)"


@pytest.mark.parametrize("broken", ["energy_uj", "max_energy_range_uj"])
def test_what_cannot_be_read_is_estimated_as_a_whole(powercap, broken):
    powercap.set("intel-rapl:0", "package-0", 1)
    powercap.set("intel-rapl:1", "package-1", 1)
    (powercap.folder / "intel-rapl:1" / broken).unlink()
    with metered(powercap=powercap.folder, watts=50) as meter:
        pass
    assert meter.cost().how == "estimated from 50 W, stated"


def test_a_counter_that_goes_away_leaves_an_estimate(powercap, clock):
    powercap.set("intel-rapl:0", "package-0", 1)
    with metered(powercap=powercap.folder, watts=50) as meter:
        (powercap.folder / "intel-rapl:0" / "energy_uj").unlink()
        clock.now_s += 72
    assert meter.cost().how == "estimated from 50 W, stated"
    assert meter.cost().energy_wh == pytest.approx(1)


class FakeCuda:
    """Two GPUs, the second of which holds memory of this process."""

    joules_now = 1000.0

    def __init__(self, monkeypatch, counted):
        self.counted = counted
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda place: place * 4096)
        monkeypatch.setattr(torch.cuda, "get_device_properties", self.Named)
        monkeypatch.setattr(GpuCounters, "joules", lambda _: self.joules())

    class Named:
        def __init__(self, place):
            self.uuid = f"uuid-{place}"

    def joules(self):
        return {f"uuid-{place}": self.joules_now for place in range(2)} if self.counted else {}


def test_a_gpu_in_use_is_counted_and_an_idle_one_is_not(powercap, monkeypatch):
    cuda = FakeCuda(monkeypatch, counted=True)
    powercap.set("intel-rapl:0", "package-0", 0)
    with metered(powercap=powercap.folder) as meter:
        cuda.joules_now += 7200
        powercap.set("intel-rapl:0", "package-0", 3_600_000_000)
    assert meter.cost().energy_wh == pytest.approx(3)
    assert meter.cost().how == "counted (RAPL, NVML)"


def test_a_counted_gpu_stands_beside_an_estimated_processor(tmp_path, clock, monkeypatch):
    cuda = FakeCuda(monkeypatch, counted=True)
    with metered(powercap=tmp_path, watts=30) as meter:
        cuda.joules_now += 3600
        clock.now_s += 240
    assert meter.cost().energy_wh == pytest.approx(1 + 2)
    assert meter.cost().how == "counted (NVML) + estimated from 30 W, stated"


def test_a_gpu_without_counter_has_a_default_power(tmp_path, clock, monkeypatch):
    FakeCuda(monkeypatch, counted=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with metered(powercap=tmp_path) as meter:
        clock.now_s += 36
    assert meter.cost().energy_wh == pytest.approx(2.12)
    expected = "estimated from 212 W, default (12 W a thread x 1 + 200 W a GPU)"
    assert meter.cost().how == expected


class FakeDriver:
    """NVIDIA's library, of a machine whose second GPU has no energy counter."""

    def nvmlInit_v2(self):  # noqa: N802
        return 0

    def nvmlDeviceGetCount_v2(self, count):  # noqa: N802
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, place, handle):  # noqa: N802
        handle._obj.value = 70 + place
        return 0

    def nvmlDeviceGetUUID(self, handle, uuid, size):  # noqa: N802
        uuid.value = b"GPU-number-%d" % handle.value
        return 0 if size >= 96 else 7

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, energy_mj):  # noqa: N802
        energy_mj._obj.value = 5_000_000_000
        return 0 if handle.value == 70 else 3


def test_the_drivers_counters_are_read_by_uuid(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda _: FakeDriver())
    assert GpuCounters().joules() == {"number-70": 5e6}


def test_no_driver_means_no_counters_of_gpus():
    assert GpuCounters("libnothing-of-the-kind.so").joules() == {}


def test_only_one_process_of_a_machine_counts_its_processors(powercap, clock):
    powercap.set("intel-rapl:0", "package-0", 0)
    with metered(powercap=powercap.folder, counts_machine=False) as meter:
        powercap.set("intel-rapl:0", "package-0", 3_600_000_000)
        clock.now_s += 60
    assert (meter.cost().seconds, meter.cost().energy_wh, meter.cost().how) == (60, 0, "")


def test_without_counters_each_process_counts_its_own_threads(tmp_path, clock, monkeypatch):
    """But not the power that is stated, which is of all of them together."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with (
        metered(powercap=tmp_path, counts_machine=False) as own,
        metered(powercap=tmp_path, watts=80, counts_machine=False) as stated,
    ):
        clock.now_s += 3600
    assert own.cost().energy_wh == pytest.approx(24)
    assert (stated.cost().energy_wh, stated.cost().how) == (0, "")


@pytest.mark.parametrize("watts", [0, -5, float("nan"), float("inf")])
def test_an_impossible_power_is_refused(watts):
    with pytest.raises(DeviceError, match="watts above 0"), metered(watts=watts):
        pass


def test_a_job_that_fails_ends_its_meter(tmp_path, clock):
    meters = []

    def job():
        with metered(powercap=tmp_path, watts=36) as meter:
            meters.append(meter)
            clock.now_s += 100
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        job()
    clock.now_s += 100
    assert meters[0].cost().energy_wh == pytest.approx(1)
