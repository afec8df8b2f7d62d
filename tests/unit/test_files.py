import contextlib
import hashlib
import os

import pytest

from stillhouse.errors import RunError
from stillhouse.files import folder_written_aside, hash_file, held_alone, write_text_atomically


@pytest.fixture
def full_disk(monkeypatch):
    """Syncing fails, as it does when the disk is full."""

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    def fill():
        monkeypatch.setattr(os, "fsync", fail)

    return fill


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_folder(path, content, error=None):
    with folder_written_aside(path) as aside:
        (aside / "deep").mkdir()
        (aside / "deep" / "file.txt").write_text(content)
        if error is not None:
            raise error


def test_text_is_written_and_replaced(tmp_path):
    path = tmp_path / "state.json"
    write_text_atomically(path, "first, longer\n")
    write_text_atomically(path, "zweite – kürzer\n")
    assert path.read_bytes() == "zweite – kürzer\n".encode()
    assert names(tmp_path) == ["state.json"]


def test_text_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    path.write_text("old")
    seen = []

    def look(descriptor):
        seen.append((path.read_text(), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", look)
    write_text_atomically(path, "newer")
    assert seen == [("old", 5)]


def test_a_failed_write_leaves_the_old_text(tmp_path, full_disk):
    path = tmp_path / "state.json"
    write_text_atomically(path, "old")
    full_disk()
    with pytest.raises(OSError, match="No space left"):
        write_text_atomically(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["state.json"]


def test_text_that_has_no_bytes_leaves_nothing(tmp_path):
    """A file name that is not UTF-8 reaches Python as a lone surrogate."""
    with pytest.raises(UnicodeEncodeError):
        write_text_atomically(tmp_path / "state.json", "\udcff")
    assert names(tmp_path) == []


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_text_atomically(tmp_path / "absent" / "state.json", "new")


def test_a_folder_appears_whole(tmp_path):
    path = tmp_path / "parents" / "too" / "folder"
    with folder_written_aside(path) as aside:
        assert names(aside) == []
        (aside / "file.txt").write_text("one")
        assert not path.exists()
        assert aside.parent == path.parent  # so that moving it is a rename
    assert (path / "file.txt").read_text() == "one"
    assert names(path.parent) == ["folder"]


def test_a_folder_is_replaced_with_all_that_was_in_it(tmp_path):
    path = tmp_path / "folder"
    write_folder(path, "old")
    (path / "extra.txt").write_text("old")
    write_folder(path, "new")
    assert names(path) == ["deep"]
    assert (path / "deep" / "file.txt").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_a_failing_body_leaves_the_old_folder(tmp_path, error):
    path = tmp_path / "folder"
    write_folder(path, "old")
    with pytest.raises(type(error)):
        write_folder(path, "new", error)
    assert (path / "deep" / "file.txt").read_text() == "old"
    assert names(tmp_path) == ["folder"]


def test_a_full_disk_leaves_the_old_folder(tmp_path, full_disk):
    path = tmp_path / "folder"
    write_folder(path, "old")
    full_disk()
    with pytest.raises(OSError, match="No space left"):
        write_folder(path, "new")
    assert (path / "deep" / "file.txt").read_text() == "old"
    assert names(tmp_path) == ["folder"]


def test_every_file_is_synced_before_the_folder_has_its_name(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    synced = []

    def look(descriptor):
        assert not path.exists()
        synced.append(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", look)
    write_folder(path, "new")
    written = [path, path / "deep", path / "deep" / "file.txt"]
    assert sorted(synced) == sorted(entry.stat().st_ino for entry in written)


def test_what_a_crash_left_aside_is_not_taken_over(tmp_path):
    path = tmp_path / "folder"
    with folder_written_aside(path) as aside:
        place = aside
    place.mkdir()
    (place / "half.txt").write_text("half")
    write_folder(path, "new")
    assert names(path) == ["deep"]
    assert names(tmp_path) == ["folder"]


def test_a_hash_is_that_of_the_content(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert hash_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(bytes(3_000_000))
    assert hash_file(path) == hashlib.sha256(bytes(3_000_000)).hexdigest()


def test_a_lock_is_had_once_and_let_go_of_after_an_error(tmp_path):
    lock, refusal = tmp_path / ".lock", RunError("in use")
    for error in (None, KeyboardInterrupt):
        with (
            contextlib.nullcontext() if error is None else pytest.raises(error),
            held_alone(lock, refusal),
        ):
            with pytest.raises(RunError, match="in use"), held_alone(lock, refusal):
                pass
            if error is not None:
                raise error
    with held_alone(lock, refusal):
        assert names(tmp_path) == [".lock"]
