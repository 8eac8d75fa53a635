"""Public sets in the layouts they come in: labels, groups and onsets as the sets mean them, and errors that help."""

from __future__ import annotations

import csv
import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from familial.data.clips import check_folds, grouped_folds, read_clip, read_manifests
from familial.data.layouts import LAYOUTS
from familial.data.public_sets import main
from wire.artifact.manifest import WindowSpec
from wire.errors import DataError

LABELS = ("normal", "fall", "fight")
SPEC = WindowSpec(48, 64, 1.0, 8, 0, 0.0, 0.5)


def film(path: Path, frames: int = 30, fps: float = 25.0, size: tuple[int, int] = (64, 48)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    code = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), code, fps, size)
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 5 * i % 250, np.uint8))
    writer.release()
    return path


def picture(shade: int) -> bytes:
    return cv2.imencode(".png", np.full((48, 64, 3), shade, np.uint8))[1].tobytes()


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def rows(root: Path, layout: str, *more: str) -> dict[str, dict[str, str]]:
    """The manifest that the command writes, by what the film is called."""
    out = root.parent / "manifest.csv"
    assert main([str(root), "--layout", layout, "--out", str(out), *more]) == 0
    clips = read_manifests([out], LABELS)
    assert all(clip.file.is_file() for clip in clips)
    with out.open(newline="") as file:
        return {Path(row["file"]).stem: row for row in csv.DictReader(file)}


def test_urfd_pictures_become_films_with_the_onset_of_the_frame_labels(tmp_path: Path) -> None:
    root = tmp_path / "urfd"
    for name in ("fall-01-cam0-rgb", "fall-01-cam1-rgb", "adl-01-cam0-rgb"):
        (root / name).mkdir(parents=True)
        for i in range(1, 31):
            (root / name / f"{name}-{i:03d}.png").write_bytes(picture(8 * i))
    film(root / "fall-02-cam0.mp4", fps=30.0)
    lines = [f"fall-01,{i},{-1 if i < 13 else 0 if i < 20 else 1},1.0" for i in range(1, 31)]
    text(root / "urfall-cam0-falls.csv", "\n".join(lines) + "\n")
    found = rows(root, "urfd")
    assert {stem: row["label"] for stem, row in found.items()} == {
        "fall-01-cam0-rgb": "fall",
        "fall-01-cam1-rgb": "fall",
        "adl-01-cam0-rgb": "normal",
        "fall-02-cam0": "fall",
    }
    assert found["fall-01-cam0-rgb"]["onset_s"] == "0.400"  # frame 13, from 1, at 30 a second
    assert found["fall-01-cam0-rgb"]["group"] == found["fall-01-cam1-rgb"]["group"] == "fall-01"
    made = read_clip(tmp_path / "films" / "fall-01-cam0-rgb.mp4", SPEC, cache=None)
    assert len(made.frames) == 30 and made.duration == pytest.approx(1.0)
    assert made.frames[25].mean() > made.frames[2].mean() + 100


def test_upfall_archives_keep_their_times_and_both_cameras_are_one_group(tmp_path: Path) -> None:
    root = tmp_path / "upfall"
    for subject, activity in ((1, 3), (1, 6), (2, 11)):
        name = f"Subject{subject}Activity{activity}Trial1"
        folder = root / f"Subject{subject}" / f"Activity{activity}" / "Trial1"
        folder.mkdir(parents=True)
        for camera in (1, 2):
            with zipfile.ZipFile(folder / f"{name}Camera{camera}.zip", "w") as archive:
                for i in range(37):  # 18 a second
                    archive.writestr(f"2018-07-04T12_04_{17 + i / 18:09.6f}.png", picture(6 * i))
    lines = [
        "TimeStamps,AnkleAccelerometer",
        ",x",
        "2018-07-04T12:04:17.000000,0.1,1,3,1,7",
        "2018-07-04T12:04:18.500000,0.2,1,3,1,3",
    ]
    text(root / "Subject1" / "Activity3" / "Trial1" / "Subject1Activity3Trial1.csv", "\n".join(lines))
    found = rows(root, "upfall")
    assert {row["group"] for row in found.values()} == {"subject1", "subject2"}
    (fall,) = (row for stem, row in found.items() if stem.endswith("Activity3Trial1Camera1"))
    (walk,) = (row for stem, row in found.items() if stem.endswith("Activity6Trial1Camera2"))
    assert (fall["label"], fall["onset_s"], fall["note"]) == ("fall", "1.500", "backward, camera 1")
    assert (walk["label"], walk["onset_s"]) == ("normal", "")
    assert read_clip(tmp_path / fall["file"], SPEC, cache=None).duration == pytest.approx(37 / 18, rel=0.02)


def test_le2i_annotations_give_label_and_onset_and_a_room_filmed_twice_is_one_group(tmp_path: Path) -> None:
    root = tmp_path / "le2i"
    for room, number, annotation in (
        ("Coffee_room_01/Coffee_room_01", 1, "11\n20\n1,1,10,10,20,20\n"),
        ("Coffee_room_02/Coffee_room_02", 49, "0\n0\n1,1,10,10,20,20\n"),
        ("Home_01", 2, "1,1,10,10,20,20\n"),
    ):
        film(root / room / "Videos" / f"video ({number}).avi")
        text(root / room / "Annotation_files" / f"video ({number}).txt", annotation)
    film(root / "Lecture room" / "video (3).avi")
    found = rows(root, "le2i")
    assert {stem: (row["label"], row["group"]) for stem, row in found.items()} == {
        "video (1)": ("fall", "coffee_room"),
        "video (49)": ("normal", "coffee_room"),
        "video (2)": ("normal", "home"),
        "video (3)": ("uncertain", "lecture_room"),
    }
    assert float(found["video (1)"]["onset_s"]) == pytest.approx(0.4)


def test_rwf_pieces_of_a_video_are_one_group_across_train_and_val(tmp_path: Path) -> None:
    root = tmp_path / "RWF-2000"
    for half, label, name in (
        ("train", "Fight", "-1l5631l3fg_0"),
        ("train", "NonFight", "-1l5631l3fg_1"),
        ("val", "Fight", "0Ow4cotKOuw_0"),
    ):
        film(root / half / label / f"{name}.avi")
    found = rows(root, "rwf2000")
    assert {row["label"] for row in found.values()} == {"fight", "normal"}
    assert [found[name]["group"] for name in ("-1l5631l3fg_0", "-1l5631l3fg_1")] == ["-1l5631l3fg"] * 2
    clips = read_manifests([tmp_path / "manifest.csv"], LABELS)
    folds = grouped_folds(clips, 2)
    with pytest.raises(DataError, match="-1l5631l3fg.*lies in folds"):
        parted = [1 - f if clip.name.endswith("fg_0.avi") else f for clip, f in zip(clips, folds, strict=True)]
        check_folds(clips, parted)


def test_a_plain_folder_per_label_keeps_pieces_and_folders_together(tmp_path: Path) -> None:
    root = tmp_path / "own"
    for name in ("normal/hall_1.mp4", "normal/hall_2.mp4", "fall/anna/a.mp4", "brawl/x (1).mp4"):
        film(root / name)
    assert main([str(root), "--layout", "folders", "--out", str(tmp_path / "m.csv")]) == 1
    found = rows(root, "folders", "--label", "brawl=fight")
    groups = {stem: (row["label"], row["group"]) for stem, row in found.items()}
    assert groups == {
        "hall_1": ("normal", "hall"),
        "hall_2": ("normal", "hall"),
        "a": ("fall", "anna"),
        "x (1)": ("fight", "x"),
    }
    whole = rows(root, "folders", "--label", "brawl=fight", "--one-group")
    assert {row["group"] for row in whole.values()} == {"folders"}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda r: (r / "fall" / "b.mp4").write_bytes(b""), "b.mp4.*no frame could be decoded.*remove it"),
        (lambda r: (r / "fall" / "b.mp4").write_bytes(b"nonsense" * 99), "b.mp4.*no frame could be decoded"),
        (lambda r: film(r / "fall" / "b.mp4", frames=3), "b.mp4.*lasts 0.12 s.*remove it"),
        (lambda r: film(r / "b.mp4"), "b.mp4.*lies beside the label folders"),
        (lambda r: film(r / "dance" / "b.mp4"), "label is 'dance'.*--label dance="),
        (lambda r: (r / "fall" / "a.mp4").unlink(), "every clip is 'normal'.*--one-class"),
    ],
)
def test_an_unusable_clip_is_refused_by_name_with_the_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: object, says: str
) -> None:
    root = tmp_path / "own"
    film(root / "normal" / "a.mp4")
    film(root / "fall" / "a.mp4")
    assert callable(spoil)
    spoil(root)
    out = tmp_path / "manifest.csv"
    assert main([str(root), "--layout", "folders", "--out", str(out)]) == 1
    assert re.search(says, capsys.readouterr().err, re.DOTALL)
    assert not out.exists()


def test_broken_clips_can_be_left_out_and_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "own"
    film(root / "normal" / "a.mp4")
    film(root / "fall" / "a.mp4")
    (root / "fall" / "b.mp4").write_bytes(b"")
    assert main([str(root), "--layout", "folders", "--out", str(tmp_path / "m.csv"), "--leave-out-broken"]) == 0
    assert len(read_manifests([tmp_path / "m.csv"], LABELS)) == 2
    assert "left out" in capsys.readouterr().err


def test_a_damaged_archive_or_annotation_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "up"
    text(root / "Subject1Activity1Trial1Camera1.zip", "no zip")
    assert main([str(root), "--layout", "upfall", "--out", str(tmp_path / "m.csv")]) == 1
    assert "not readable as a zip" in capsys.readouterr().err
    home = tmp_path / "le2i" / "Home_01"
    film(home / "Videos" / "video (1).avi")
    text(home / "Annotation_files" / "video (1).txt", "20\n10\n")
    assert main([str(home.parent), "--layout", "le2i", "--out", str(tmp_path / "m.csv")]) == 1
    assert "from frame 20 to 10" in capsys.readouterr().err


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_an_empty_folder_is_refused(tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--layout", layout, "--out", str(tmp_path / "m.csv")]) == 1
    assert f"nothing of the layout {layout!r}" in capsys.readouterr().err


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_is_documented_and_says_what_it_is(layout: str) -> None:
    cure = f"{layout}: add a row `| \\`{layout}\\` | ...` to the table of layouts in docs/data.md"
    assert f"| `{layout}` |" in (Path(__file__).resolve().parents[3] / "docs" / "data.md").read_text(), cure
    assert LAYOUTS[layout].__doc__, f"{layout}: say in the docstring of its function which names it reads"
