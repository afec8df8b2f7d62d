"""How jobs open and close runs, and what they ask of several worker processes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import get_int_from_env

from stillhouse.errors import RunError, SettingsError
from stillhouse.recipe.pretrain import PRETRAIN_FOLDER
from stillhouse.report import write_report
from stillhouse.run.costs import worker_costed
from stillhouse.run.directory import RunDirectory
from stillhouse.run.settings import RunSettings, settings_from_dict
from stillhouse.run.settings_file import apply_overrides, read_settings

_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers of several processes write their number, as accelerate reads it."""


def settings_of(path: Path, changes: Mapping[str, Any]) -> RunSettings:
    """Reads the settings of a nas-bert run and changes some.

    Raises:
        RunError: If there is no such run.
    """
    file = RunDirectory(path=path).settings_file
    data = read_settings(file) if file.exists() else {}
    if data.get("recipe") != "nas-bert":
        raise RunError(
            f"{path} holds no run of nas-bert: make one with `stillhouse search nas-bert --run "
            f"{path}`"
        )
    return settings_from_dict(apply_overrides(data, changes))


def worker_accelerator() -> Accelerator:
    """Joins the other worker processes, if there are any."""
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        # Workers wait while the main one tokenises, which takes hours of a large corpus.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))],
    )


def costed_in_worker(
    path: Path, settings: RunSettings, accelerator: Accelerator
) -> AbstractContextManager[None]:
    """Counts what a worker costs that is not the main one; the first of a machine its energy."""
    return worker_costed(
        path,
        rank=accelerator.process_index,
        counts_machine=accelerator.is_local_main_process,
        watts=settings.device.watts,
    )


def refuse_workers(job: str) -> None:
    """Refuses to be one of several processes where only one can work.

    Looks at what the launcher set, and meets no other process, which may never come.

    Args:
        job: A recipe's or command's name, for the message.
    """
    count = get_int_from_env(_WORLD_SIZES, 1)
    if count > 1:
        raise SettingsError(
            f"{job} runs in one process, but {count} were started (torchrun, accelerate launch, "
            "mpirun): start stillhouse alone. It uses one GPU; several are of use to autodistil, "
            "nas-bert and the pre-training of a nas-bert student"
        )


def close_work(run: RunDirectory) -> None:
    """Completes a run of supernets; checkpoints of a begun pre-training stay."""
    run.update_state({"status": "complete"})
    write_report(run.path)
    run.clear_work(keep=PRETRAIN_FOLDER)


def run_path(run: str | Path | None) -> Path:
    """Returns the run directory, a temporary one where none is named."""
    return Path(tempfile.mkdtemp(prefix="stillhouse-")) if run is None else Path(run)


def close_run(run: RunDirectory, *, has_report: bool = True) -> None:
    """Marks the run complete and tidies up; does nothing where that was done."""
    if run.is_complete and not run.work.exists():
        return
    run.update_state({"status": "complete"})
    if has_report:
        write_report(run.path)
    run.clear_work()  # last: a stop before costs the report, not the trained students
