import json
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stillhouse.device.energy import metered
from stillhouse.distill.token_count import TRAINED
from stillhouse.errors import DeviceError
from stillhouse.run import costs
from stillhouse.run.costs import WORKER_COSTS, Ledger, added, costed, worker_costed
from stillhouse.run.device_settings import DeviceSettings
from stillhouse.run.directory import open_run
from stillhouse.run.settings import RunSettings

SETTINGS = RunSettings(device=DeviceSettings(watts=100.0))


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now_s = 100.0

    monkeypatch.setattr("time.monotonic", lambda: Clock.now_s)
    monkeypatch.setattr("stillhouse.device.energy.processor_zones", lambda _: ())
    return Clock


def told(path):
    return json.loads((path / "run.json").read_text())["cost"]


def test_amounts_add_up_and_what_nobody_counted_is_absent():
    one = {"seconds": 1.5, "energy_wh": 2.0, "co2_g": 1.0, "how": "counted (RAPL)"}
    other = {"seconds": 1.0, "energy_wh": 0.5, "co2_g": 0.25, "tokens": 7, "how": "counted (RAPL)"}
    sums = {"seconds": 2.5, "energy_wh": 2.5, "co2_g": 1.25}
    assert added(one, other) == {**sums, "tokens": 7, "how": "counted (RAPL)"}
    assert added({}, one) == one
    assert added(one, one | {"how": "estimated"})["how"] == "counted (RAPL); estimated"
    assert added({}, {}) == {}


def test_all_processes_of_a_run_are_added(tmp_path, clock):
    with open_run(tmp_path, SETTINGS):
        clock.now_s += 36
        TRAINED.add(1000)
    assert told(tmp_path) == {
        "seconds": 36, "energy_wh": 1.0, "co2_g": pytest.approx(0.6837, abs=1e-4), "tokens": 1000,
        "how": "estimated from 100 W, stated",
    }  # fmt: skip
    clock.now_s += 9999  # nobody works
    TRAINED.add(5)

    def go_on():
        with open_run(tmp_path, SETTINGS):
            clock.now_s += 72
            TRAINED.add(200)
            raise DeviceError("no chip")

    with pytest.raises(DeviceError):
        go_on()
    assert (told(tmp_path)["seconds"], told(tmp_path)["energy_wh"]) == (108, 3.0)
    assert told(tmp_path)["tokens"] == 1200


def test_whatever_is_noted_of_a_run_tells_its_cost_until_then(tmp_path, clock):
    """So that a killed process leaves what it cost until its last phase."""
    with open_run(tmp_path, SETTINGS) as run:
        with run.timed("data"):
            clock.now_s += 10
        assert told(tmp_path)["seconds"] == 10
        clock.now_s += 5
        run.update_state({"task": "glue/rte"})
        assert told(tmp_path)["seconds"] == 15
        run.update_state({"status": "complete"})
    before = told(tmp_path)
    clock.now_s += 5
    with open_run(tmp_path, SETTINGS):  # which is done, and does nothing
        clock.now_s += 5
    assert told(tmp_path) == before


def test_the_cost_is_written_between_whiles(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "SECONDS_BETWEEN_NOTES", 0.005)
    with open_run(tmp_path, SETTINGS):
        first = told(tmp_path)["seconds"]
        TRAINED.add(77)
        while told(tmp_path)["tokens"] < 77:
            time.sleep(0.005)
        assert told(tmp_path)["seconds"] > first
    assert not [one for one in threading.enumerate() if one.name == "costs"]


def test_notes_of_two_threads_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "SECONDS_BETWEEN_NOTES", 0.0)
    with open_run(tmp_path, SETTINGS) as run:
        for number in range(100):
            run.update_state({f"fact {number}": number})
    state = json.loads((tmp_path / "run.json").read_text())
    assert [state[f"fact {number}"] for number in range(100)] == list(range(100))


def test_a_run_of_before_costs_were_kept_goes_on(tmp_path, clock):
    (tmp_path / "run.json").write_text(json.dumps({"status": "failed", "phases_s": {"data": 5}}))
    with open_run(tmp_path, SETTINGS):
        clock.now_s += 3
    first = told(tmp_path)
    assert (first["seconds"], first["is_partial"]) == (3, True)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(first["since"])) < timedelta(days=1)
    with open_run(tmp_path, SETTINGS):
        clock.now_s += 4
    again = told(tmp_path)
    assert (again["seconds"], again["is_partial"]) == (7, True)
    assert again["since"] == first["since"]


def test_a_run_that_counted_from_its_beginning_is_whole(tmp_path, clock):
    for _ in range(2):
        with open_run(tmp_path, SETTINGS) as run, run.timed("data"):
            clock.now_s += 1
    assert told(tmp_path).keys() == {"seconds", "energy_wh", "co2_g", "tokens", "how"}


def test_what_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "SECONDS_BETWEEN_NOTES", 0.001)
    failed = threading.Event()

    def full():
        failed.set()
        raise OSError(28, "No space left on device")

    with costs.written_now_and_then(full):
        assert failed.wait(30)


def test_a_run_adds_its_workers_and_the_machine_once(tmp_path, clock):
    """Two workers take as long as the main one; the power that is stated is of all of them."""
    with open_run(tmp_path, SETTINGS) as run:
        for rank in (1, 2):
            with worker_costed(tmp_path, rank=rank, counts_machine=False, watts=100.0):
                clock.now_s += 18
        run.update_state({})
        found = told(tmp_path)
    assert found["seconds"] == 36 + 2 * 18
    assert found["energy_wh"] == 1.0
    assert found["how"] == "estimated from 100 W, stated"


def test_a_worker_that_begins_again_is_not_counted_twice(tmp_path, clock):
    for start in (1, 2):
        with open_run(tmp_path, SETTINGS):
            with worker_costed(tmp_path, rank=1, counts_machine=False, watts=None):
                clock.now_s += 10
            assert json.loads((tmp_path / WORKER_COSTS / "1.json").read_text())["seconds"] == (
                10 * start
            )
        assert told(tmp_path)["seconds"] == 20 * start


def kept_worker(run, **amounts):
    (run / WORKER_COSTS).mkdir(exist_ok=True)
    (run / WORKER_COSTS / "1.json").write_text(json.dumps(amounts))


def test_what_a_worker_cost_unseen_by_a_killed_run_is_counted_once(tmp_path, clock):
    """The worker writes, and the main one is killed before it has read that."""
    with open_run(tmp_path, SETTINGS) as run:
        kept_worker(tmp_path, seconds=5, tokens=50)
        clock.now_s += 10
        run.update_state({"phase": "training"})
        at_kill = (tmp_path / "run.json").read_text()
    assert told(tmp_path)["workers"] == {"1": {"seconds": 5, "tokens": 50}}
    kept_worker(tmp_path, seconds=8, tokens=80)
    (tmp_path / "run.json").write_text(at_kill)
    for _ in range(2):
        with open_run(tmp_path, SETTINGS):
            clock.now_s += 1
    assert (told(tmp_path)["seconds"], told(tmp_path)["tokens"]) == (10 + 2 + 8, 80)


def test_a_worker_that_wrote_before_the_run_first_did_is_counted(tmp_path, clock):
    kept_worker(tmp_path, seconds=5)
    with open_run(tmp_path, SETTINGS):
        clock.now_s += 2
    assert told(tmp_path)["seconds"] == 7


def test_a_worker_whose_file_is_gone_stays_counted(tmp_path, clock):
    with open_run(tmp_path, SETTINGS):
        kept_worker(tmp_path, seconds=5)
    (tmp_path / WORKER_COSTS / "1.json").unlink()
    for _ in range(2):
        with open_run(tmp_path, SETTINGS):
            clock.now_s += 1
    assert told(tmp_path)["seconds"] == 7
    assert told(tmp_path)["workers"] == {"1": {"seconds": 5}}


def test_a_worker_on_another_machine_counts_that(tmp_path, clock):
    with worker_costed(tmp_path, rank=3, counts_machine=True, watts=50.0):
        clock.now_s += 72
    found = json.loads((tmp_path / WORKER_COSTS / "3.json").read_text())
    assert found["energy_wh"] == 1.0


def test_a_ledger_counts_from_its_own_beginning(clock):
    TRAINED.add(10)
    with metered(watts=36.0) as meter:
        ledger = Ledger({"tokens": 3}, meter)
        TRAINED.add(4)
        assert ledger.facts()["tokens"] == 7
    with costed({}, watts=36.0) as other:
        clock.now_s += 100
        assert other.facts()["energy_wh"] == 1.0


def test_an_impossible_power_is_refused_before_anything_is_counted():
    with pytest.raises(ValueError, match=r"device\.watts must be a number above 0, got -1"):
        replace(SETTINGS.device, watts=-1)
