"""Profiling a space: which architectures are measured, how, and what is kept on the way."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, assert_never, cast, get_args

import numpy as np
from pydantic import TypeAdapter, ValidationError
from transformers import AutoConfig, BertConfig

import stillhouse.model.own_families  # noqa: F401  registers them
from stillhouse.device.features import FEATURES, features_of
from stillhouse.device.kinds import MEASURED
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.predicted import MOST_ERROR_FRACTION, bare_ends, build_profiled
from stillhouse.device.predictor import LEAST_ROWS, choose_points
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
from stillhouse.files import held_alone, write_text_atomically
from stillhouse.model.anatomy import architecture_of, usable_positions
from stillhouse.recipe.chain_nursery import default_blocks
from stillhouse.recipe.workbench import resolve_device_kind, resolve_workload
from stillhouse.run.settings import difference
from stillhouse.space.chain import ChainArchitecture, ChainBlock, ChainSpace
from stillhouse.space.default import default_space
from stillhouse.space.published import autodistil_for, autodistill_for, kd_nas_for, nas_bert_for

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedConfig

    from stillhouse.device.kinds import MeasuredKind
    from stillhouse.device.latency import Workload
    from stillhouse.device.runtimes import Runtime
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import DeviceSettings
    from stillhouse.space.architecture import BertArchitecture

SpaceName: TypeAlias = Literal[
    "default", "kd-nas", "kd-nas-wide", "autodistil", "autodistill", "nas-bert"
]
SPACES: tuple[SpaceName, ...] = get_args(SpaceName)
DRAWN_CHAINS = 3_000
"""Of NAS-BERT's 10²⁰, from which the measured ones are chosen."""
BERT_BASE = "BERT-base"
_NO_MATTER = ("transformers_version", "architectures", "dtype", "_name_or_path")
"""Of a configuration; a model is built alike without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileJob:
    """What to measure.

    Attributes:
        space: Where the architectures are from.
        device: Where they run, one that is measured, and for which workload; its length is given.
        teacher: Hub id or folder of a checkpoint in whose proportions the space is, of which only
            the configuration is read; `None` for BERT-base.
        points: How many to measure, at most.
        seed: Of their choice.
        longest_s: Time after which one measurement ends even if its interval is still wide.
    """

    space: SpaceName
    device: DeviceSettings
    teacher: str | None = None
    points: int = 60
    seed: int = 0
    longest_s: float = 3.0

    def __post_init__(self) -> None:
        """Refuses what is no space or no device here, and too few points."""
        if self.space not in SPACES:
            raise SettingsError(f"--space must be one of {', '.join(SPACES)}, got {self.space!r}")
        if self.device.kind not in MEASURED:
            raise SettingsError(
                f"--device must be one that is measured ({', '.join(MEASURED)}), got "
                f"{self.device.kind!r}"
            )
        if self.points < LEAST_ROWS:
            raise SettingsError(
                f"--points must be at least {LEAST_ROWS}, from which errors can be told, got "
                f"{self.points}"
            )
        if not 0 <= self.seed < 2**32:
            raise SettingsError(f"--seed must be at least 0 and below 2³², got {self.seed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What became of one architecture.

    Attributes:
        architecture: Its key.
        cost_s: Seconds that it took.
        ratio: Of its latency to the reference's; `None` if the device refused it.
        reference_ms: The reference's in the same minute.
        noise_fraction: Half-width of the ratio's 95 % interval over it.
        refused: Why the device refused it; empty if it did not.
    """

    architecture: str
    cost_s: float
    ratio: float | None = None
    reference_ms: float | None = None
    noise_fraction: float | None = None
    refused: str = ""


class PointsFile:
    """Measured points, a line each behind one that tells the subject; what is in it stays known.

    Attributes:
        subject: What the points are of.
        points: By key of the architecture.
    """

    def __init__(self, path: Path, subject: Subject) -> None:
        """Reads what an earlier start left.

        Args:
            path: The file.
            subject: What its points must be of.

        Raises:
            SettingsError: If it is of another subject.
            DeviceError: If it is damaged.
        """
        self._path = path
        self.subject = subject
        self._lines = [json.dumps({"subject": asdict(subject)})]
        self.points: dict[str, Point] = {}
        if path.exists():
            self._read(subject)

    def add(self, point: Point) -> None:
        """Keeps a point on the disk."""
        self._lines.append(json.dumps(asdict(point), allow_nan=False))
        self.points[point.architecture] = point
        write_text_atomically(self._path, "".join(f"{line}\n" for line in self._lines))

    def remove(self) -> None:
        """Removes the file, whose points are in a profile now."""
        self._path.unlink(missing_ok=True)

    def _read(self, subject: Subject) -> None:
        first, *lines = self._path.read_text(encoding="utf-8").splitlines() or [""]
        try:
            found = TypeAdapter(dict[Literal["subject"], Subject]).validate_json(first)["subject"]
            points = [TypeAdapter(Point).validate_json(line) for line in lines]
        except (ValidationError, SettingsError, KeyError) as error:
            raise DeviceError(
                f"{self._path} is damaged or holds no points: delete it, or give another --out"
            ) from error
        _refuse_other(self._path, found, subject)
        self._lines += lines
        self.points = {point.architecture: point for point in points}


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
    _refuse_other(out, known.subject, subject)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What of a space is measured.

    Attributes:
        count: Architectures that there were to choose from.
        chosen: Those to measure, in this order.
        features: Of each.
        reference: What each is timed in turn with, the one of median work.
    """

    count: int
    chosen: tuple[AnyArchitecture, ...]
    features: NDArray[np.float64]
    reference: AnyArchitecture


def choose_architectures(job: ProfileJob, config: PreTrainedConfig, workload: Workload) -> Sample:
    """Chooses what to measure, always alike for the same job.

    Args:
        job: Names the space, the number and the seed.
        config: The teacher's.
        workload: What latencies are told for.

    Raises:
        DeviceError: If the space is too small for a predictor.
    """
    found = architectures_of(job.space, architecture_of(config), seed=job.seed)
    space = list(dict.fromkeys(found))  # sub-spaces of a small teacher overlap
    if len(space) < LEAST_ROWS:
        raise DeviceError(
            f"{job.space} has {len(space)} architectures in the proportions of "
            f"{job.teacher or BERT_BASE}; a predictor needs at least {LEAST_ROWS}. Take another "
            "space, or measure in the search itself"
        )
    features = features_of(space, bare_ends(config), workload)
    work = features[:, FEATURES.index("total: matrix_flops")]
    places = choose_points(features, min(job.points, len(space)), job.seed)
    return Sample(
        count=len(space),
        chosen=tuple(space[place] for place in places),
        features=features[places],
        reference=space[int(np.argsort(work, kind="stable")[len(space) // 2])],
    )


def architectures_of(
    space: SpaceName, teacher: BertArchitecture, *, seed: int
) -> Iterator[AnyArchitecture]:
    """Yields the architectures of a space in a teacher's proportions; of chains a drawn part.

    Args:
        space: Its name.
        teacher: The teacher's architecture.
        seed: Of chains that are drawn.
    """
    match space:
        case "default":
            yield from default_space(teacher)
        case "kd-nas":
            yield from kd_nas_for(teacher, wide=False)
        case "kd-nas-wide":
            yield from kd_nas_for(teacher)
        case "autodistil":
            for name in ("tiny", "small", "base"):
                yield from autodistil_for(teacher, name)
        case "autodistill":
            yield from autodistill_for(teacher)
        case "nas-bert":
            chains = nas_bert_for(teacher, blocks=default_blocks(teacher.layers))
            yield from drawn_chains(chains, DRAWN_CHAINS, seed)
        case _:
            assert_never(space)


def drawn_chains(space: ChainSpace, count: int, seed: int) -> list[ChainArchitecture]:
    """Draws different chains; blocks of each length and width are as likely.

    Nearly all blocks are as long as can be, and drawn evenly a chain would hardly have others; a
    search for fast students takes the short ones.
    """
    generator = np.random.default_rng(seed)
    found: dict[str, ChainArchitecture] = {}
    for _ in range(count):
        blocks = [_drawn_block(space, generator) for _ in range(space.blocks)]
        chain = space.architecture(blocks, int(generator.choice(space.embedding_sizes)))
        found[chain.key] = chain
    return list(found.values())


def _drawn_block(space: ChainSpace, generator: np.random.Generator) -> ChainBlock:
    length = int(generator.integers(1, space.block.most_operations + 1))
    places = generator.integers(len(space.block.operations), size=length)
    return ChainBlock(
        hidden_size=int(generator.choice(space.block.hidden_sizes)),
        operations=tuple(space.block.operations[place] for place in places),
    )


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


def _refuse_other(path: Path, found: Subject, wanted: Subject) -> None:
    """Refuses to go on with what was measured for something else.

    Raises:
        SettingsError: Naming what differs.
    """
    told = difference(asdict(found), asdict(wanted))
    if told:
        raise SettingsError(
            f"{path} is of another profile than is asked for: {'; '.join(told)}. Give another "
            "--out, or delete it"
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
