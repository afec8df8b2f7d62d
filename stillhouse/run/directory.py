"""The run directory: everything one run wrote; the same command again resumes it."""

from __future__ import annotations

import json
import platform
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from optuna.exceptions import StorageInternalError
from safetensors import SafetensorError
from sqlalchemy.exc import SQLAlchemyError

from stillhouse.errors import RunError, SettingsError, StillhouseError
from stillhouse.files import held_alone, write_text_atomically
from stillhouse.run.costs import (
    WORKER_COSTS,
    Ledger,
    costed,
    uncounted_until_now,
    written_now_and_then,
)
from stillhouse.run.progress import PROGRESS_FILE
from stillhouse.run.settings import PROVENANCE_KEY, RunSettings, settings_from_dict
from stillhouse.run.settings_file import difference, read_settings

STORAGE_ERRORS = (SafetensorError, StorageInternalError, SQLAlchemyError)
"""What libraries raise instead of an `OSError` where the disk is full or a file is damaged."""

_WRITING = threading.RLock()
"""Held while `run.json` is read and written: the cost is noted by a thread of its own."""

VERSIONS_OF = ("stillhouse", "torch", "transformers", "accelerate", "datasets", "optuna", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDirectory:
    """Names of the things in a run directory, and the one file that tells its state.

    Attributes:
        path: The directory.
        ledger: Tells what the job costs, where this process is the one that writes it down.
    """

    path: Path
    ledger: Ledger | None = field(default=None, repr=False, compare=False)

    @property
    def settings_file(self) -> Path:
        """Resolved settings and provenance."""
        return self.path / "settings.yaml"

    @property
    def teacher(self) -> Path:
        """The teacher as it was used, with its tokeniser and measures."""
        return self.path / "teacher"

    @property
    def model(self) -> Path:
        """The model of a run that makes one model and no students."""
        return self.path / "model"

    @property
    def supernets(self) -> Path:
        """Trained supernets, a folder each."""
        return self.path / "supernets"

    @property
    def corpus(self) -> Path:
        """Tokenised corpus."""
        return self.path / "corpus"

    @property
    def work(self) -> Path:
        """Checkpoints and caches; removed when the run is complete."""
        return self.path / "work"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard logs."""
        return self.path / "tensorboard"

    @property
    def trials_file(self) -> Path:
        """The trials as a table."""
        return self.path / "trials.csv"

    @property
    def storage_url(self) -> str:
        """Optuna storage of the trial record."""
        return f"sqlite:///{self.path / 'study.db'}"

    def student(self, rank: int) -> Path:
        """Folder of a finished student; rank 1 is the best within the limits."""
        return self.path / "students" / str(rank)

    def students(self, group: str = "students") -> list[Path]:
        """Folders of finished students, by rank.

        Args:
            group: `students`, or `controls` (by the number of their trials) or `competitors`.
        """
        complete = [file.parent for file in (self.path / group).glob("*/metrics.json")]
        # A crash may leave a folder that was being written aside, with a name that is no rank.
        ranked = [folder for folder in complete if folder.name.isdecimal()]
        return sorted(ranked, key=lambda folder: int(folder.name))

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was computed yet, as after a typing error in the settings."""
        finished = (self.path / "mlm", self.path / "students")
        folders = (self.teacher, self.model, self.supernets, self.work, *finished)
        files = (self.path / "study.db", self.path / "operations.csv")
        return not any(path.exists() for path in (*folders, *files))

    @property
    def is_complete(self) -> bool:
        """Whether the run has done all that its settings ask for."""
        return self.state().get("status") == "complete"

    def state(self) -> dict[str, Any]:
        """Reads `run.json`; empty before the run has started."""
        file = self.path / "run.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def update_state(self, changes: Mapping[str, Any]) -> None:
        """Merges `changes` into `run.json`, and with them what the job has cost until now."""
        cost = {} if self.ledger is None else {"cost": self.ledger.facts()}
        with _WRITING:
            state = {**self.state(), **changes, **cost}
            write_text_atomically(self.path / "run.json", json.dumps(state, indent=2) + "\n")

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Adds the time of the body to the phase's, whether it ends well or not."""
        start_s = time.monotonic()
        try:
            yield
        finally:
            phases = dict(self.state().get("phases_s", {}))
            phases[phase] = round(phases.get(phase, 0.0) + time.monotonic() - start_s, 3)
            self.update_state({"phases_s": phases, "wall_s": round(sum(phases.values()), 3)})

    def clear_work(self, *, keep: str | None = None) -> None:
        """Removes checkpoints and caches, but those of one kind that a later command goes on with.

        Args:
            keep: Name of its folder.
        """
        if keep is None or not (self.work / keep).exists():
            shutil.rmtree(self.work, ignore_errors=True)
            return
        for path in self.work.iterdir():
            if path.name == keep:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def refuse_other_data(self, fingerprint: str) -> None:
        """Compares the examples with those that the run began with.

        Raises:
            RunError: If they changed since.
        """
        before = self._known("data_sha256", fingerprint)
        if before != fingerprint:
            raise RunError(
                f"run directory {self.path} was made with other data (SHA-256 {before[:12]}…, now "
                f"{fingerprint[:12]}…): give the same data to resume it, or another directory "
                "with --run"
            )

    def refuse_other_teacher(self, weights: str) -> None:
        """Compares the SHA-256 of the teacher's weights with those that the run began with.

        Raises:
            RunError: If they changed since.
        """
        before = self._known("teacher_sha256", weights)
        if before != weights:
            raise RunError(
                f"run directory {self.path} was begun with other weights of its teacher (SHA-256 "
                f"{before[:12]}…, now {weights[:12]}…): name another directory with --run"
            )

    def refuse_other_model(self, weights: str, name: str) -> None:
        """Compares the SHA-256 of a checkpoint's weights with those that the run began from.

        Args:
            weights: Of the checkpoint that the run makes another one of.
            name: What the user calls it.

        Raises:
            RunError: If they changed since.
        """
        before = self._known("model_sha256", weights)
        if before != weights:
            raise RunError(
                f"run directory {self.path} was begun from other weights of {name} (SHA-256 "
                f"{before[:12]}…, now {weights[:12]}…): name another directory with --run"
            )

    def _known(self, fact: str, otherwise: str) -> str:
        """Returns what the run stands on, as it was when the run began."""
        provenance = read_settings(self.settings_file).get(PROVENANCE_KEY) or {}
        return str(provenance.get(fact, otherwise))

    def write_provenance(self, settings: RunSettings, facts: Mapping[str, Any]) -> None:
        """Writes the resolved settings with what the run stands on.

        Args:
            settings: The resolved settings.
            facts: Hashes and fingerprints beside the versions that are always written.
        """
        provenance = {
            "versions": {name: _version(name) for name in VERSIONS_OF},
            "python": platform.python_version(),
            "system": platform.platform(),
            "command": " ".join(sys.argv),
            **facts,
        }
        data = {**settings.to_dict(), PROVENANCE_KEY: provenance}
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
        write_text_atomically(self.settings_file, text)


@contextmanager
def open_run(
    path: Path, settings: RunSettings, *, asks: tuple[str, ...] = ()
) -> Iterator[RunDirectory]:
    """Opens a run directory for one process, new or to resume.

    Args:
        path: The directory.
        settings: Those of this start.
        asks: Settings by which a run is asked for more, such as `limit`: they may differ from those
            that it was made with, and a complete run is taken up again.

    Raises:
        RunError: If another process has it, or it was made with other settings.
    """
    path.mkdir(parents=True, exist_ok=True)
    refusal = RunError(
        f"run directory {path} is in use by another process: wait for it, or name another with "
        "--run"
    )
    with held_alone(path / ".lock", refusal):
        run = RunDirectory(path=path)
        _check_same_settings(run, settings, asks)
        if run.is_untouched:
            run.write_provenance(settings, {})
        if run.is_complete and not asks:
            yield run
            return
        with _costed(run, settings) as run, _state_kept(run, asks):
            yield run


@contextmanager
def _costed(run: RunDirectory, settings: RunSettings) -> Iterator[RunDirectory]:
    """Lets everything that is written about a run tell its cost until then."""
    state, workers = run.state(), run.path / WORKER_COSTS
    before = state.get("cost", uncounted_until_now() if state else {})
    with costed(before, watts=settings.device.watts, workers=workers) as ledger:
        run = replace(run, ledger=ledger)
        with written_now_and_then(lambda: run.update_state({})):
            yield run


@contextmanager
def _state_kept(run: RunDirectory, asks: tuple[str, ...]) -> Iterator[None]:
    """Writes down that a run is running, and how it ended where that was with an error."""
    now = datetime.now(UTC).isoformat("T", "seconds")
    before, asked_before = run.state(), run.settings_file.read_text(encoding="utf-8")
    run.update_state({"status": "running", "started": before.get("started", now)})
    try:
        yield
    except BaseException as error:
        with suppress(OSError):  # a full disk must not hide the error that it caused
            run.update_state(_state_after(error, before))
            if asks and isinstance(error, StillhouseError):
                _put_back_settings(run, asked_before)
        if isinstance(error, STORAGE_ERRORS):
            raise RunError(_explain_storage(run, error)) from error
        raise
    finally:
        with suppress(OSError):
            (run.path / PROGRESS_FILE).unlink(missing_ok=True)


def _check_same_settings(run: RunDirectory, settings: RunSettings, asks: tuple[str, ...]) -> None:
    if run.is_untouched:
        return
    if not run.settings_file.exists():
        raise RunError(f"{run.path} holds a run without settings.yaml: name another directory")
    old = read_settings(run.settings_file)
    old.pop(PROVENANCE_KEY, None)
    with suppress(SettingsError):  # an older version may have known fewer settings: defaults now
        old = settings_from_dict(old).to_dict()
    changed = [
        line
        for line in difference(old, settings.to_dict())
        if not any(line.startswith((f"{asked}.", f"{asked}:")) for asked in asks)
    ]
    if changed:
        listed = "\n  ".join(changed)
        raise RunError(
            f"run directory {run.path} was made with other settings:\n  {listed}\n"
            "Give the same settings to resume it, or another directory with --run."
        )


def _state_after(error: BaseException, before: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what an error changes of `run.json`, beside what was noted until then.

    A complete run that refuses what else it is asked for is as complete as it was `before`; one
    that was stopped at more work is not.
    """
    if isinstance(error, StillhouseError) and before.get("status") == "complete":
        return before
    status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    return {"status": status, "reason": str(error)[:2000]}


def _put_back_settings(run: RunDirectory, before: str) -> None:
    """Puts back the settings of a run that refused what it was asked for.

    Those of a start that was the first to tell what the run stands on remain.
    """
    known = yaml.safe_load(before).get(PROVENANCE_KEY) or {}
    now = read_settings(run.settings_file).get(PROVENANCE_KEY) or {}
    if now.keys() <= known.keys():
        write_text_atomically(run.settings_file, before)


def _explain_storage(run: RunDirectory, error: BaseException) -> str:
    cause = str(error.__cause__ or error).strip().splitlines()[0]
    return (
        f"a file could not be read or written ({cause}): make room on the disk of {run.path} and "
        "give the same command again; what was finished is kept"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
