"""After a power cut at any operation a durable file is the old one or the new one; damaged content is refused."""

from __future__ import annotations

import contextlib
import json
import operator
import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.simulated_disk import PowerCut, SimulatedDisk
from wire import files

EMPTY = {"a": 0, "b": 0}
OPERATIONS = 7  # open, write, fsync, replace, open, fsync, and none


@settings(deadline=None, max_examples=200)
@given(st.data(), st.integers(0, OPERATIONS), st.sampled_from([0, 5]))
def test_a_power_cut_leaves_the_old_file_or_the_new_one(data: st.DataObject, cut_at: int, short: int) -> None:
    """Whichever operation is the last, whatever unsynced content survives, and when writes are cut short too."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        file = Path(folder) / "file"
        files.save_counts(file, {"a": 1, "b": 1})
        disk = SimulatedDisk(file.parent, lambda many: data.draw(st.integers(0, many - 1)), cut_at, short)
        patch.setattr(files, "os", disk)
        done = True
        try:
            files.save_counts(file, {"a": 2, "b": 2})
        except PowerCut:
            done = False
        found = files.load_counts(file, EMPTY)
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
        files.save_counts(file, {"a": 1, "b": 1})
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
            files.save_counts(file, {"a": 2, "b": 2})
            disk.cut_at = 0
            with pytest.raises(PowerCut):
                disk.open(file, 0)
        try:
            lost += files.load_counts(file, EMPTY) != {"a": 2, "b": 2}
        except ValueError:
            lost += 1
    assert lost


def test_a_missing_file_gives_the_empty_counts(tmp_path: Path) -> None:
    assert files.load_counts(tmp_path / "none", EMPTY) == EMPTY


def good() -> bytes:
    return json.dumps(files._document({"a": 3, "b": 4})).encode()


@settings(deadline=None)
@given(st.integers(0, len(good()) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_nothing(at: int, by: int) -> None:
    data = bytearray(good())
    data[at] ^= by
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_bytes(data)
        with contextlib.suppress(ValueError):
            assert files.load_counts(file, EMPTY) == {"a": 3, "b": 4}


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes_are_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_bytes(data)
        with pytest.raises(ValueError, match="."):
            files.load_counts(file, EMPTY)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "null",
        '"text"',
        "[" * 100_000,
        json.dumps(files._document({"a": 1})),
        json.dumps(files._document({"a": -1, "b": 0})),
        json.dumps(files._document({"a": True, "b": 0})),
        json.dumps(files._document({"a": 1.0, "b": 0})),  # type: ignore[dict-item]  # what must be refused
        json.dumps(files._document({"a": 0, "b": 0, "c": 0})),
        json.dumps({**files._document({"a": 0, "b": 0}), "more": 1}),
        json.dumps({"counts": {"a": 0, "b": 0}, "sha256": "0"}),
    ],
)
def test_invalid_counts_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match="."):
        files.load_counts(tmp_path / "file", EMPTY)


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
