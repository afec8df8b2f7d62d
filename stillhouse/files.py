"""Files that are either whole or absent, written by one process at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from stillhouse.errors import StillhouseError


@contextlib.contextmanager
def held_alone(lock: Path, refusal: StillhouseError) -> Iterator[None]:
    """Holds a lock that one process has at a time; a process that dies lets go of it.

    Args:
        lock: An empty file, made where it is missing; it is there afterwards.
        refusal: Raised where another process has it.
    """
    file = FileLock(lock)
    try:
        file.acquire(timeout=0)
    except Timeout as error:
        raise refusal from error
    try:
        yield
    finally:
        file.release()


def write_text_atomically(path: Path, text: str) -> None:
    """Writes `text` so that a reader, or a crash, sees the old file or the new one."""
    aside = path.with_name(f".{path.name}.tmp")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


@contextlib.contextmanager
def folder_written_aside(path: Path) -> Iterator[Path]:
    """Gives an empty folder to write into, and moves it to `path` when all of it is on the disk.

    Args:
        path: Where the folder ends; what was there before is replaced.

    Yields:
        The folder to write into. If the body fails it is removed and `path` stays as it was.
    """
    aside = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        _sync_folder(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    aside.rename(path)


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
