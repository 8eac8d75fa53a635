"""Manifests as people write them: read, or refused with the line and the cure; and what is held out of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from familial.data.heldout import held_out, told
from familial.data.manifests import UNSCORED, Clip, read_manifests
from wire.errors import DataError

LABELS = ("normal", "fall", "fight")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "d.mp4").write_bytes(b"d")
    return tmp_path


def _read(folder: Path, content: str | bytes) -> list[Clip]:
    path = folder / "mine.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_manifests([path], LABELS)


PLAIN = "file,label,set,group,note,onset_s\na.mp4,fall,home,g1,,1.5\nb.mp4,normal,home,g2,,\n"
EXCEL = "File;Label;Set;Group;Note;Onset_s\r\na.mp4;Fall ;home;g1;;1,5\r\nb.mp4;NORMAL;home;g2;;\r\n;;;;;\r\n"


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + EXCEL.encode(),
        EXCEL.replace(";", "\t").encode("utf-16"),
        ("sep=;\r\n" + EXCEL).encode(),
        ("\n" + PLAIN).encode(),
        PLAIN.replace("fall,", '"fall",').encode(),
    ],
    ids=["utf-8 with BOM, semicolons", "utf-16, tabs", "sep line", "empty line first", "quotes"],
)
def test_what_a_spreadsheet_writes_is_read_like_plain_csv(folder: Path, content: bytes) -> None:
    assert _read(folder, content) == _read(folder, PLAIN)
    assert [clip.label for clip in _read(folder, content)] == ["fall", "normal"]


def test_backslashes_are_folders(folder: Path) -> None:
    (clip,) = _read(folder, "file,label,set,group\nin\\d.mp4,Uncertain,s,g\n")
    assert clip.file == folder / "in" / "d.mp4" and clip.label == UNSCORED


def test_without_set_or_group_a_note_says_what_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = _read(folder, "file,label\na.mp4,fall\nb.mp4,normal\n")
    assert [(clip.set, clip.group) for clip in clips] == [("mine", "a.mp4"), ("mine", "b.mp4")]
    said = capsys.readouterr().err
    assert "no column set: all are of the set 'mine'" in said and "no column group: each clip is a group" in said
    _read(folder, PLAIN)
    assert not capsys.readouterr().err


def test_a_row_that_is_there_twice_counts_once_and_a_contradiction_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = "a.mp4,fall,home,g1,\n"
    (clip,) = _read(folder, "file,label,set,group,note\n" + row + row)
    assert clip.label == "fall" and "mine.csv:3: 1 rows are there twice" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"mine.csv:3: ./a.mp4 is also in .*mine.csv:2, with another label"):
        _read(folder, "file,label,set,group,note\n" + row + "./a.mp4,normal,home,g1,\n")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("file,label,set,group\na.mp4,fal,s,g\n", r"mine.csv:2: label is 'fal' \(did you mean 'fall'\?\)"),
        ("file,label,set,group\na.mp4,smoking,s,g\n", r"familial.train --labels normal,fall,fight,smoking"),
        ("path,class\na.mp4,fall\n", r"mine.csv:1: no column file and label among path, class; name the columns"),
        ("file,label,file\na.mp4,fall,b.mp4\n", "column file is there twice"),
        ("file,label,set,group,onset_s\na.mp4,fall,s,g,soon\n", "onset_s is 'soon'; give seconds"),
        ("file,label,set,group\na.mp4,fall,s,\n", "mine.csv:2: group missing"),
        (b"PK\x03\x04rest\x00", "saved as CSV UTF-8"),
        ("file,label\na.mp4,fäll\n".encode("latin-1"), "save it as CSV UTF-8"),
        ("file,label\n", "no rows"),
        ("", "no rows"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_cure(folder: Path, content: str | bytes, why: str) -> None:
    with pytest.raises(DataError, match=why):
        _read(folder, content)


def _clips(*rows: tuple[str, str, str, int]) -> list[Clip]:
    return [Clip(Path("x"), f"{s}{g}{i}", label, s, g, "") for s, g, label, n in rows for i in range(n)]


def test_whole_groups_of_every_label_are_held_out_the_same_each_time() -> None:
    clips = _clips(*(("s", f"g{i}", LABELS[i % 3], 2) for i in range(30)), ("t", "room", "fall", 40))
    out = held_out(clips, 0.2)
    sides = {(clip.set, clip.group): set[bool]() for clip in clips}
    for clip, held in zip(clips, out, strict=True):
        sides[clip.set, clip.group].add(held)
    assert all(len(side) == 1 for side in sides.values())
    counts = {
        label: sum(held for clip, held in zip(clips, out, strict=True) if clip.label == label) for label in LABELS
    }
    assert counts == {"normal": 4, "fall": 4, "fight": 4}
    turned = held_out(clips[::-1], 0.2)
    assert turned[::-1] == out and not any(held_out(clips, 0.0))


def test_one_clip_of_a_label_stays_in_training_and_the_cure_is_told() -> None:
    clips = _clips(("s", "a", "normal", 1), ("s", "b", "normal", 1), ("s", "c", "fall", 1))
    out = held_out(clips, 0.2)
    assert sum(out) == 1 and not out[2]
    assert "none of fall: give clips of two groups or more of each, or --rendered 300" in told(clips, out)
    with pytest.raises(DataError, match="every clip is 'normal'; .*--rendered 300"):
        held_out(clips[:2], 0.2)
