"""After a power cut at any operation a durable file is the old one or the new one; damaged content is refused."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.simulated_disk import PowerCut, SimulatedDisk
from wire import files

NAMES, OWNER = ("a", "b"), "somebody"
OPERATIONS = 8  # unlink, open, write, fsync, replace, open, fsync, and none


@settings(deadline=None, max_examples=200)
@given(st.data(), st.integers(0, OPERATIONS), st.sampled_from([0, 5]))
def test_a_power_cut_leaves_the_old_file_or_the_new_one(data: st.DataObject, cut_at: int, short: int) -> None:
    """Whichever operation is the last, whatever unsynced content survives, and when writes are cut short too."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        file = Path(folder) / "file"
        files.save_counts(file, {"a": 1, "b": 1}, OWNER)
        disk = SimulatedDisk(file.parent, lambda many: data.draw(st.integers(0, many - 1)), cut_at, short)
        patch.setattr(files, "os", disk)
        done = True
        try:
            files.save_counts(file, {"a": 2, "b": 2}, OWNER)
        except PowerCut:
            done = False
        found, owner = files.load_counts(file, NAMES)
        assert owner == OWNER
        assert found == {"a": 2, "b": 2} if done else found in ({"a": 1, "b": 1}, {"a": 2, "b": 2})


@pytest.mark.parametrize("leave_out", ["file", "folder"])
def test_the_simulated_disk_loses_data_without_an_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leave_out: str
) -> None:
    """The control: without either fsync, a damaged or an old file is found after everything was written."""
    lost = 0
    for choice in range(4):
        file = tmp_path / f"{leave_out}-{choice}" / "file"
        file.parent.mkdir()
        files.save_counts(file, {"a": 1, "b": 1}, OWNER)
        disk = SimulatedDisk(file.parent, partial(operator.mod, choice))
        skip = {"file": 1, "folder": 2}[leave_out]
        calls = 0

        def fsync(number: int, disk: SimulatedDisk = disk, skip: int = skip) -> None:
            nonlocal calls
            calls += 1
            if calls != skip:
                SimulatedDisk.fsync(disk, number)

        with monkeypatch.context() as patch:
            patch.setattr(disk, "fsync", fsync)
            patch.setattr(files, "os", disk)
            files.save_counts(file, {"a": 2, "b": 2}, OWNER)
            disk.cut_at = 0
            with pytest.raises(PowerCut):
                disk.open(file.parent, 0)
        try:
            lost += files.load_counts(file, NAMES)[0] != {"a": 2, "b": 2}
        except ValueError:
            lost += 1
    assert lost


def test_a_missing_file_is_told_from_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.load_counts(tmp_path / "none", NAMES)


def test_counts_of_the_version_before_have_no_owner(tmp_path: Path) -> None:
    write_0600(tmp_path / "file", json.dumps(files._document({"a": 1, "b": 2}, "")).encode())
    assert files.load_counts(tmp_path / "file", NAMES) == ({"a": 1, "b": 2}, "")


def write_0600(file: Path, data: bytes | bytearray) -> None:
    file.write_bytes(data)
    file.chmod(0o600)


def good() -> bytes:
    return json.dumps(files._document({"a": 3, "b": 4}, OWNER)).encode()


@settings(deadline=None)
@given(st.integers(0, len(good()) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_nothing(at: int, by: int) -> None:
    data = bytearray(good())
    data[at] ^= by
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        write_0600(file, data)
        with contextlib.suppress(ValueError):
            assert files.load_counts(file, NAMES) == ({"a": 3, "b": 4}, OWNER)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes_are_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        write_0600(file, data)
        with pytest.raises(ValueError, match="."):
            files.load_counts(file, NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "null",
        '"text"',
        "[" * 100_000,
        json.dumps(files._document({"a": 1}, OWNER)),
        json.dumps(files._document({"a": -1, "b": 0}, OWNER)),
        json.dumps(files._document({"a": True, "b": 0}, OWNER)),
        json.dumps(files._document({"a": 1.0, "b": 0}, OWNER)),  # type: ignore[dict-item]  # what must be refused
        json.dumps(files._document({"a": 0, "b": 0, "c": 0}, OWNER)),
        json.dumps({**files._document({"a": 0, "b": 0}, OWNER), "more": 1}),
        json.dumps({"counts": {"a": 0, "b": 0}, "sha256": "0"}),
    ],
)
def test_invalid_counts_are_refused(tmp_path: Path, text: str) -> None:
    write_0600(tmp_path / "file", text.encode())
    with pytest.raises(ValueError, match="."):
        files.load_counts(tmp_path / "file", NAMES)


def test_a_file_is_replaced_atomically_and_no_other_file_is_left(tmp_path: Path) -> None:
    file = tmp_path / "clip.npz"
    files.write_whole(file, "old")
    with files.whole_file(file) as beside:
        assert (beside.parent, beside.suffix) == (file.parent, file.suffix)  # writers choose the format by the suffix
        beside.write_bytes(b"new")
        assert file.read_text() == "old"
    assert file.read_bytes() == b"new" and [*tmp_path.iterdir()] == [file]


def test_an_error_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    files.write_whole(file, b"old")
    with pytest.raises(RuntimeError), files.whole_file(file) as beside:
        beside.write_bytes(b"ha")
        raise RuntimeError("full")
    assert file.read_bytes() == b"old" and [*tmp_path.iterdir()] == [file]


def test_only_its_owner_may_read_a_durable_file(tmp_path: Path) -> None:
    files.write_durably(tmp_path / "file", b"secret")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    """Neither the file itself nor the one that is written beside it is opened through a link."""
    for name in ("file", "file.new"):
        (tmp_path / "target").write_text("precious")
        (tmp_path / name).symlink_to(tmp_path / "target")
        files.write_durably(tmp_path / "file", b"new")
        assert (tmp_path / "target").read_text() == "precious"
        assert (tmp_path / "file").read_bytes() == b"new" and not (tmp_path / "file").is_symlink()
        assert not (tmp_path / "file.new").exists()


def test_a_hard_link_beside_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "file.new").hardlink_to(tmp_path / "target")
    files.write_durably(tmp_path / "file", b"new")
    assert (tmp_path / "target").read_text() == "precious"


def test_what_must_be_new_replaces_nothing(tmp_path: Path) -> None:
    files.write_durably(tmp_path / "file", b"first", replace=False)
    with pytest.raises(FileExistsError):
        files.write_durably(tmp_path / "file", b"second", replace=False)
    assert (tmp_path / "file").read_bytes() == b"first" and [*tmp_path.iterdir()] == [tmp_path / "file"]


@settings(deadline=None, max_examples=100)
@given(st.data(), st.integers(0, 9))
def test_a_power_cut_leaves_a_whole_new_file_or_none(data: st.DataObject, cut_at: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        file, done = Path(folder) / "file", True
        patch.setattr(files, "os", SimulatedDisk(file.parent, lambda n: data.draw(st.integers(0, n - 1)), cut_at))
        try:
            files.write_durably(file, b"content", replace=False)
        except PowerCut:
            done = False
        assert file.read_bytes() == b"content" if done or file.exists() else True


def _a_link(file: Path) -> str:
    write_0600(file.with_name("target"), b"x")
    file.symlink_to(file.with_name("target"))
    return "symbolic link"


def _a_dangling_link(file: Path) -> str:
    file.symlink_to(file.with_name("nowhere"))
    return "symbolic link"


def _a_pipe(file: Path) -> str:
    os.mkfifo(file, 0o600)
    return "no regular file"


def _a_folder(file: Path) -> str:
    file.mkdir()
    return "no regular file"


def _for_a_group(file: Path) -> str:
    write_0600(file, b"x")
    file.chmod(0o660)
    return "mode 0660 lets others write it; chmod 600"


def _for_all(file: Path) -> str:
    write_0600(file, b"x")
    file.chmod(0o602)
    return "mode 0602 lets others write it"


def _too_long(file: Path) -> str:
    write_0600(file, bytes((1 << 20) + 1))
    return "expected at most 1048576"


@pytest.mark.parametrize(
    "make", [_a_link, _a_dangling_link, _a_pipe, _a_folder, _for_a_group, _for_all, _too_long], ids=lambda f: f.__name__
)
def test_what_others_could_have_put_there_is_not_believed(tmp_path: Path, make: Callable[[Path], str]) -> None:
    says = make(tmp_path / "file")
    with pytest.raises(OSError, match=says):
        files.read_trusted(tmp_path / "file")


def test_a_link_that_appears_at_the_last_moment_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _a_link(tmp_path / "file")
    monkeypatch.setattr(os.path, "islink", lambda path: False)
    with pytest.raises(OSError, match="symbolic links"):
        files.read_trusted(tmp_path / "file")


def test_folders_are_made_for_their_owner_and_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "_sync", synced.append)
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
