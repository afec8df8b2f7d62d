"""Profiles of spaces of tiny students, most of them measured by a clock that follows their work."""

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from itertools import count

import pytest
from transformers import BertConfig

from stillhouse.device.features import FEATURES, features_of
from stillhouse.device.latency import Comparison, Workload, summarise
from stillhouse.device.predicted import bare_ends
from stillhouse.device.profile import read_profile
from stillhouse.errors import DeviceError, RunError, SettingsError, TeacherError
from stillhouse.model.anatomy import architecture_of
from stillhouse.recipe import profiling
from stillhouse.recipe.profile_job import SPACES, ProfileJob
from stillhouse.recipe.profile_sample import architectures_of, choose_architectures
from stillhouse.recipe.profiling import lock_path, points_path, profile_space
from stillhouse.run.device_settings import DeviceSettings

BASE = BertConfig()
CPU = DeviceSettings(kind="cpu", length=16, threads=1)


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    """A configuration alone: no weights are read."""
    folder = tmp_path_factory.mktemp("teacher")
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=32,
    )
    config.save_pretrained(folder)
    return folder


@pytest.fixture
def job(teacher_folder):
    return ProfileJob(
        space="kd-nas", device=CPU, teacher=str(teacher_folder), points=12, longest_s=0.0
    )


def work_ms(model):
    """What a model takes on a machine that does a million multiply-adds a millisecond."""
    return 1 + sum(p.numel() for p in model.encoder.parameters()) * 16e-6


class Clock:
    """A device that tells latencies of a machine which gets slower with every question.

    Attributes:
        asked: Keys of the architectures, over all devices of a test.
        stop_at: Number of the question at which the user presses Ctrl-C.
        refuses: Tells which architectures it cannot run.
    """

    asked, stop_at, refuses = [], None, staticmethod(lambda _: False)

    def __init__(self, runtime, *, teacher, build, longest_s):
        self.reference, self.build = teacher, build

    def compare(self, architecture, workload):
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(architecture.key)
        if self.refuses(architecture):
            raise DeviceError("no such operator")
        drift = 1.1 ** len(self.asked)
        student, reference = (
            summarise([drift * work_ms(model)] * 20, device="clock", workload=workload)
            for model in (self.build(architecture), self.reference)
        )
        return Comparison(student=student, teacher=reference)


@pytest.fixture
def clock(monkeypatch):
    own = type("OwnClock", (Clock,), {"asked": []})
    monkeypatch.setattr(profiling, "MeasuredDevice", own)
    return own


def test_a_profile_of_what_is_really_measured(job, tmp_path, talk):
    out = tmp_path / "kd.json"
    made = profile_space(job, out, talk)
    assert read_profile(out) == made
    assert made.errors.count == len(made.rows) == 12
    assert made.workload == Workload(length=16, threads=1)
    assert "PyTorch" in made.subject.fingerprint.device
    assert made.subject.config["hidden_size"] == 32
    assert made.reference_ms > 0
    assert made.cost_s > 0
    assert all(row.latency_ms > 0 for row in made.rows)
    assert not points_path(out).exists()
    assert "Profiling 12 of " in talk.said[0]


def test_a_machine_that_gets_slower_does_no_harm(job, tmp_path, talk, clock):
    made = profile_space(job, tmp_path / "kd.json", talk)
    config = BertConfig.from_pretrained(job.teacher)
    sample = choose_architectures(job, config, made.workload)
    truth_ms = [work_ms(profiling.build_profiled(one, config)) for one in sample.chosen]
    reference_ms = work_ms(profiling.build_profiled(sample.reference, config))
    told = [row.latency_ms / made.reference_ms for row in made.rows]
    assert told == pytest.approx([ms / reference_ms for ms in truth_ms])
    assert made.reference_ms == pytest.approx(reference_ms * (1.1**6 + 1.1**7) / 2)


def test_a_stopped_profile_goes_on_with_what_is_left(job, tmp_path, talk, clock):
    whole = profile_space(job, tmp_path / "whole.json", talk)
    in_one_go, clock.asked[:] = list(clock.asked), []
    out = tmp_path / "kd.json"
    clock.stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        profile_space(job, out, talk)
    assert not out.exists()
    assert len(points_path(out).read_text().splitlines()) == 1 + 5
    clock.stop_at = None
    made = profile_space(job, out, talk)
    assert clock.asked == in_one_go
    assert "5 of 12 are measured already." in talk.said
    assert not points_path(out).exists()
    assert [row.architecture for row in made.rows] == [row.architecture for row in whole.rows]


HOLDER = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_one_that_is_killed_is_not_waited_for(
    job, tmp_path, talk, clock
):
    out = tmp_path / "kd.json"
    with suppress(KeyboardInterrupt):
        clock.stop_at = 3
        profile_space(job, out, talk)
    before, clock.stop_at = points_path(out).read_bytes(), None
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock_path(out))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match=r"kd\.json is being measured by another process.*--out"):
            profile_space(job, out, talk)
        assert len(clock.asked) == 3
        assert points_path(out).read_bytes() == before
        process.kill()
    profile_space(job, out, talk)
    assert len(clock.asked) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["kd.json"]


def test_a_profile_that_another_process_finished_meanwhile_is_read(
    job, tmp_path, talk, clock, monkeypatch
):
    made, out = profile_space(job, tmp_path / "first.json", talk), tmp_path / "kd.json"
    clock.asked.clear()
    held = profiling.held_alone

    def late(*arguments):
        shutil.copy(tmp_path / "first.json", out)
        return held(*arguments)

    monkeypatch.setattr(profiling, "held_alone", late)
    assert profile_space(job, out, talk) == made
    assert clock.asked == []


def test_a_finished_profile_is_not_measured_again(job, tmp_path, talk, clock):
    made = profile_space(job, tmp_path / "kd.json", talk)
    clock.asked.clear()
    assert profile_space(job, tmp_path / "kd.json", talk) == made
    assert clock.asked == []
    assert "is there already" in talk.said[-1]


@pytest.mark.parametrize("stop_at", [3, None], ids=["begun", "finished"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"points": 11}, "points: 12 → 11"),
        ({"space": "default"}, "space: 'kd-nas' → 'default'"),
        ({"seed": 1}, "seed: 0 → 1"),
        ({"device": replace(CPU, batch=2)}, "fingerprint.workload.batch: 1 → 2"),
        ({"teacher": None}, "config.hidden_size: 32 → 768"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_of_another_profile_is_refused(job, tmp_path, talk, clock, stop_at, change, told):
    out = tmp_path / "kd.json"
    clock.stop_at = stop_at
    with suppress(KeyboardInterrupt):
        profile_space(job, out, talk)
    clock.asked.clear()
    with pytest.raises(SettingsError) as caught:
        profile_space(replace(job, **change), out, talk)
    assert told in str(caught.value)
    assert "Give another --out, or delete it" in str(caught.value)
    assert clock.asked == []


def test_points_of_another_version_of_the_runtime_are_refused(job, tmp_path, talk, clock):
    out, clock.stop_at = tmp_path / "kd.json", 2
    with pytest.raises(KeyboardInterrupt):
        profile_space(job, out, talk)
    file = points_path(out)
    file.write_text(file.read_text().replace("PyTorch 2", "PyTorch 1"))
    with pytest.raises(SettingsError, match=r"fingerprint\.device: '.*PyTorch 1.* → .*PyTorch 2"):
        profile_space(job, out, talk)


@pytest.mark.parametrize("text", ["", "{}\n", '{"subject": {}}\n', "PK"])
def test_a_damaged_file_of_points_is_refused(job, tmp_path, talk, clock, text):
    out = tmp_path / "kd.json"
    points_path(out).write_text(text)
    with pytest.raises(DeviceError, match="is damaged or holds no points: delete it"):
        profile_space(job, out, talk)


def test_what_the_device_refuses_is_left_out_and_told(job, tmp_path, talk, clock):
    clock.refuses = staticmethod(lambda one: one.layers == 1)
    made = profile_space(replace(job, points=24), tmp_path / "kd.json", talk)
    refused = [key for key in clock.asked if key.startswith("bert-1x")]
    assert 0 < len(refused) == 24 - len(made.rows)
    assert sum("is left out: no such operator" in said for said in talk.said) == len(refused)


def test_a_device_that_refuses_nearly_all_cannot_be_profiled(job, tmp_path, talk, clock):
    clock.refuses = staticmethod(lambda one: True)
    with pytest.raises(DeviceError, match=r"12 of 12 .* were refused.*no such operator"):
        profile_space(job, tmp_path / "kd.json", talk)


def test_a_profile_that_would_save_nothing_says_so(job, tmp_path, talk, clock, monkeypatch):
    noise = count()
    quiet = work_ms
    monkeypatch.setattr(
        f"{__name__}.work_ms", lambda model: quiet(model) * (1.0, 3.0, 1.0, 0.3)[next(noise) % 4]
    )
    made = profile_space(job, tmp_path / "kd.json", talk)
    assert made.errors.rms_fraction > 0.1
    assert "this profile saves nothing" in talk.said[-1]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"space": "bert"}, r"--space must be one of default, .*nas-bert, got 'bert'"),
        ({"device": DeviceSettings()}, r"--device must be one that is measured .* got 'auto'"),
        ({"points": 9}, "--points must be at least 10.*got 9"),
        ({"seed": -1}, "--seed must be at least 0"),
    ],
)
def test_what_cannot_be_profiled_is_refused(job, change, rule):
    with pytest.raises(SettingsError, match=rule):
        replace(job, **change)


def test_texts_longer_than_the_teachers_are_refused(job, tmp_path, talk):
    long = replace(job, device=replace(CPU, length=33))
    with pytest.raises(SettingsError, match="--length 33 is above the 32 positions"):
        profile_space(long, tmp_path / "kd.json", talk)


def test_a_profile_is_a_json_file(job, tmp_path, talk):
    with pytest.raises(SettingsError, match=r"--out must end in \.json"):
        profile_space(job, tmp_path / "kd", talk)


def test_a_teacher_that_is_not_there_is_refused(job, tmp_path, talk):
    lost = replace(job, teacher=str(tmp_path / "nobody"))
    with pytest.raises(TeacherError, match="no configuration can be read from"):
        profile_space(lost, tmp_path / "kd.json", talk)


def test_a_space_that_is_too_small_is_refused(tmp_path, talk):
    tiny = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    tiny.save_pretrained(tmp_path)
    job = ProfileJob(space="default", device=CPU, teacher=str(tmp_path))
    with pytest.raises(DeviceError, match=r"default has 4 architectures .* at least 10"):
        profile_space(job, tmp_path / "kd.json", talk)


@pytest.mark.parametrize(
    ("space", "size", "family"),
    [
        ("default", 320, "bert"),
        ("kd-nas", 1200, "bert"),
        ("kd-nas-wide", 2520, "bert"),
        ("autodistil", 768, "bert"),
        ("autodistill", 576, "mobilebert"),
        ("nas-bert", 3000, "chain"),
    ],
)
def test_spaces_in_the_proportions_of_bert_base(space, size, family):
    found = list(architectures_of(space, architecture_of(BASE), seed=0))
    assert len({one.key for one in found}) == len(found) == size
    assert {one.family for one in found} == {family}


def test_every_space_is_tried_above():
    marks = test_spaces_in_the_proportions_of_bert_base.pytestmark
    assert {values[0] for values in marks[0].args[1]} == set(SPACES)


def test_chains_with_short_blocks_are_drawn_as_well():
    found = architectures_of("nas-bert", architecture_of(BASE), seed=0)
    lengths = [len(block.operations) for one in found for block in one.blocks]
    shares = [lengths.count(length) / len(lengths) for length in range(1, 7)]
    assert shares == pytest.approx([1 / 6] * 6, abs=0.02)


def test_the_choice_is_that_of_the_seed_and_the_reference_is_in_the_middle(job):
    config = BertConfig.from_pretrained(job.teacher)
    workload = Workload(length=16, threads=1)
    first, again, other = (
        choose_architectures(replace(job, seed=seed), config, workload) for seed in (0, 0, 1)
    )
    assert first.chosen == again.chosen
    assert set(first.chosen) != set(other.chosen)
    assert len(set(first.chosen)) == 12
    space = list(architectures_of("kd-nas", architecture_of(config), seed=0))
    place = FEATURES.index("total: matrix_flops")
    work = features_of([*space, first.reference], bare_ends(config), workload)[:, place]
    assert sum(work[:-1] < work[-1]) <= len(space) / 2
    assert sum(work[:-1] > work[-1]) <= len(space) / 2


def test_a_smaller_space_than_asked_for_is_measured_as_a_whole(tmp_path):
    small = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    job = ProfileJob(space="default", device=CPU, points=60)
    sample = choose_architectures(job, small, Workload(length=16))
    assert len(sample.chosen) == sample.count < 60


def test_sub_spaces_that_overlap_give_each_architecture_once(job):
    small = replace(job, space="autodistil", points=40)
    config = BertConfig.from_pretrained(job.teacher)
    sample = choose_architectures(small, config, Workload(length=16))
    space = list(architectures_of("autodistil", architecture_of(config), seed=0))
    assert sample.count == len(set(space)) < len(space)
    assert len(set(sample.chosen)) == len(sample.chosen)


def test_points_are_plain(job, tmp_path, talk, clock):
    clock.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        profile_space(job, tmp_path / "kd.json", talk)
    head, point = map(json.loads, points_path(tmp_path / "kd.json").read_text().splitlines())
    assert head["subject"]["space"] == "kd-nas"
    assert point["architecture"] == clock.asked[0]
    assert point["reference_ms"] > 0
