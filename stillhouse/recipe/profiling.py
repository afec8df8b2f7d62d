"""Profiling a space: which architectures are measured, how, and what is kept on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from transformers import AutoConfig, BertConfig

import stillhouse.model.own_families  # noqa: F401  registers them
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.predicted import MOST_ERROR_FRACTION, build_profiled
from stillhouse.device.predictor import LEAST_ROWS
from stillhouse.device.profile import (
    AnyArchitecture,
    Fingerprint,
    Profile,
    Row,
    Subject,
    fit_profile,
    read_profile,
)
from stillhouse.device.runtimes import make_runtime
from stillhouse.errors import DeviceError, RunError, SettingsError, TeacherError
from stillhouse.files import held_alone
from stillhouse.model.anatomy import usable_positions
from stillhouse.recipe.profile_job import BERT_BASE, ProfileJob
from stillhouse.recipe.profile_points import Point, PointsFile, refuse_other_subject
from stillhouse.recipe.profile_sample import Sample, choose_architectures
from stillhouse.recipe.workbench import resolve_device_kind, resolve_workload

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from stillhouse.device.kinds import MeasuredKind
    from stillhouse.device.latency import Workload
    from stillhouse.device.runtimes import Runtime
    from stillhouse.run.progress import Narrator

_NO_MATTER = ("transformers_version", "architectures", "dtype", "_name_or_path")
"""Of a configuration; a model is built alike without."""


def profile_space(job: ProfileJob, out: Path, narrator: Narrator) -> Profile:
    """Measures architectures of a space, fits a predictor and writes its profile.

    Each is timed in turn with one reference, and the ratio to it is what counts: it survives a
    machine whose speed drifts from one to the next. The reference's median over all makes it
    milliseconds again. Each is kept at once, so that the same job again goes on where one was
    stopped; of a finished one the profile is read.

    Args:
        job: What to measure.
        out: The profile, a `.json` file; points are kept beside it until it is there.
        narrator: Told the progress.

    Raises:
        SettingsError: If the device cannot be used here, or `out` is of another profile.
        DeviceError: If it refuses too many architectures, or kept points are of another profile.
        TeacherError: If the teacher's configuration cannot be read, or no student is like it.
        RunError: If another process measures for `out`.
    """
    if out.suffix.lower() != ".json":
        raise SettingsError(
            f"--out must end in .json, by which --device of search knows it, got {out}"
        )
    config = teacher_config(job.teacher)
    runtime = make_runtime(resolve_device_kind(job.device))
    subject = _subject_of(job, config, runtime.name)
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        refusal = RunError(
            f"{out} is being measured by another process: wait for it, or give another --out"
        )
        with held_alone(lock_path(out), refusal):
            if not out.exists():  # or another process has just written it
                return _profile_anew(job, config, out, subject, runtime, narrator)
    known = read_profile(out)
    refuse_other_subject(out, known.subject, subject)
    narrator.say(f"{out} is there already; nothing is measured.")
    return known


def _profile_anew(
    job: ProfileJob,
    config: PreTrainedConfig,
    out: Path,
    subject: Subject,
    runtime: Runtime,
    narrator: Narrator,
) -> Profile:
    """Measures what no earlier start has measured; no other process does so."""
    file = PointsFile(points_path(out), subject)
    sample = choose_architectures(job, config, subject.fingerprint.workload)
    narrator.say(
        f"Profiling {len(sample.chosen)} of {sample.count:,} architectures of {job.space} in the "
        f"proportions of {subject.teacher}, on {subject.fingerprint.label}; each is timed in turn "
        f"with {sample.reference.label}."
    )
    device = MeasuredDevice(
        runtime,
        teacher=build_profiled(sample.reference, config),
        build=partial(build_profiled, teacher=config),
        longest_s=job.longest_s,
    )
    _measure(device, sample.chosen, file, narrator)
    profile = _fit(sample, file)
    profile.write(out)
    file.remove()
    with suppress(PermissionError):  # some systems keep what is open
        lock_path(out).unlink()
    if profile.errors.rms_fraction > MOST_ERROR_FRACTION:
        narrator.say(_why_useless(profile))
    return profile


def points_path(out: Path) -> Path:
    """Where the points of a profile are kept until it is there."""
    return out.with_name(f"{out.name}.partial.jsonl")


def lock_path(out: Path) -> Path:
    """What a process holds while it measures for a profile."""
    return out.with_name(f".{out.name}.lock")


def teacher_config(name: str | None) -> PreTrainedConfig:
    """Reads the configuration of a checkpoint, or BERT-base's where none is named.

    Raises:
        TeacherError: If there is none.
    """
    if name is None:
        return BertConfig()
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TeacherError(
            f"no configuration can be read from {name!r}: {reason}. Give a folder with "
            "config.json, or a hub id"
        ) from error
    return config


def _subject_of(job: ProfileJob, config: PreTrainedConfig, device: str) -> Subject:
    workload = resolve_workload(job.device, np.array([job.device.length]), job.device.kind)
    teacher, positions = job.teacher or BERT_BASE, usable_positions(config)
    if workload.length > positions:
        raise SettingsError(
            f"--length {workload.length} is above the {positions} positions of {teacher}; set it "
            "lower"
        )
    described = json.loads(config.to_json_string(use_diff=True))
    return Subject(
        kind=cast("MeasuredKind", job.device.kind),  # the job has checked it
        fingerprint=Fingerprint(device=device, workload=workload),
        space=job.space,
        teacher=teacher,
        config={name: value for name, value in described.items() if name not in _NO_MATTER},
        points=job.points,
        seed=job.seed,
    )


def _measure(
    device: MeasuredDevice,
    chosen: Sequence[AnyArchitecture],
    file: PointsFile,
    narrator: Narrator,
) -> None:
    """Measures what is not known yet."""
    if file.points:
        narrator.say(f"{len(file.points)} of {len(chosen)} are measured already.")
    narrator.begin(f"Measuring {len(chosen)} architectures", len(chosen))
    try:
        for done, architecture in enumerate(chosen):
            narrator.advance(done, architecture.label)
            if architecture.key in file.points:
                continue
            point = _measured(device, architecture, file.subject.fingerprint.workload)
            file.add(point)
            if point.refused:
                narrator.say(f"{architecture.label} is left out: {point.refused}")
    finally:
        narrator.end()


def _measured(device: MeasuredDevice, architecture: AnyArchitecture, workload: Workload) -> Point:
    start_s = time.monotonic()
    try:
        comparison = device.compare(architecture, workload)
    except DeviceError as error:
        cost_s = time.monotonic() - start_s
        return Point(architecture=architecture.key, cost_s=cost_s, refused=str(error))
    return Point(
        architecture=architecture.key,
        cost_s=time.monotonic() - start_s,
        ratio=1 / comparison.speedup,
        reference_ms=comparison.teacher.median_ms,
        noise_fraction=comparison.noise_fraction,
    )


def _fit(sample: Sample, file: PointsFile) -> Profile:
    """Makes a profile of the points that the device did not refuse.

    Raises:
        DeviceError: If these are too few; it says why the first was refused.
    """
    known = [file.points[architecture.key] for architecture in sample.chosen]
    reasons = [point.refused for point in known if point.refused]
    if len(known) - len(reasons) < LEAST_ROWS:
        raise DeviceError(
            f"{len(reasons)} of {len(known)} architectures were refused, and a predictor needs at "
            f"least {LEAST_ROWS}. The first was: {reasons[0]}"
        )
    references_ms = [point.reference_ms for point in known if point.reference_ms is not None]
    reference_ms = float(np.median(references_ms))
    rows = [
        Row(
            architecture=point.architecture,
            latency_ms=point.ratio * reference_ms,
            features=tuple(features.tolist()),
        )
        for point, features in zip(known, sample.features, strict=True)
        if point.ratio is not None
    ]
    noises = [point.noise_fraction for point in known if point.noise_fraction is not None]
    return fit_profile(
        file.subject,
        reference=sample.reference.to_dict(),
        reference_ms=reference_ms,
        rows=rows,
        noise_fraction=float(np.median(noises)),
        cost_s=sum(point.cost_s for point in known),
    )


def _why_useless(profile: Profile) -> str:
    return (
        f"A prediction has a standard error of {profile.errors.rms_fraction:.0%}, and above "
        f"{MOST_ERROR_FRACTION:.0%} a search measures the student instead, so that this profile "
        f"saves nothing. A measured ratio is known to ± {profile.noise_fraction:.0%}: where that "
        "is much, profile again with nothing else running or in fewer threads, else with more "
        "--points."
    )
