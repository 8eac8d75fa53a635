"""Clips and events: what is wrong with an input is said; labels, lengths and starts do not predict one another."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from familial.config import nano
from familial.data.batches import draw_releases, make_bank
from familial.data.clips import Clip, Footage, check_folds, grouped_folds, read_clip, read_manifests, slots, windows
from familial.data.events import UNKNOWN, Happening, Run, Take, event_label, release_label, run_windows
from wire.errors import DataError

LABELS = ("normal", "fall", "fight")
SPEC = nano(("<pad>", "<end>")).window


def _film(path: Path, frames: int = 24, rate: float = 12.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    return path


def _manifest(folder: Path, *rows: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join(["file,label,set,group,note", *rows]) + "\n")
    return path


def _take(label: int, seconds: float, happenings: tuple[Happening, ...] | None, name: str = "made") -> Take:
    times = np.arange(int(seconds * 12)) / 12
    frames = np.random.default_rng(len(times)).integers(20, 200, (len(times), 96, 96), dtype=np.uint8)
    return Take(Footage(frames, times, seconds), label, "a person", name, happenings)


def test_a_manifest_is_read(tmp_path: Path) -> None:
    _film(tmp_path / "a.mp4")
    (clip,) = read_manifests([_manifest(tmp_path, "a.mp4,fall,home,g1,a note")], LABELS)
    assert (clip.label, clip.set, clip.group, clip.note) == ("fall", "home", "g1", "a note")
    footage = read_clip(clip.file, SPEC, cache=tmp_path / "cache")
    assert footage.frames.shape == (24, 96, 96) and footage.duration == pytest.approx(2.0)
    again = read_clip(clip.file, SPEC, cache=tmp_path / "cache")
    assert np.array_equal(again.frames, footage.frames)


def test_bad_rows_are_named(tmp_path: Path) -> None:
    _film(tmp_path / "a.mp4")
    for row, named in (
        ("b.mp4,fall,home,g1,", r"manifest.csv:2: file b.mp4 is missing"),
        ("a.mp4,dance,home,g1,", "label is 'dance'"),
        ("a.mp4,fall,home,,", "group missing"),
    ):
        with pytest.raises(DataError, match=named):
            read_manifests([_manifest(tmp_path, row)], LABELS)
    with pytest.raises(DataError, match="not readable"):
        read_manifests([tmp_path / "nowhere.csv"], LABELS)
    with pytest.raises(DataError, match="no rows"):
        read_manifests([_manifest(tmp_path)], LABELS)


def test_corrupt_and_empty_clips_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    for name in ("empty.mp4", "noise.mp4"):
        with pytest.raises(DataError, match=f"{name}: no frame could be decoded"):
            read_clip(tmp_path / name, SPEC, cache=None)
    with pytest.raises(DataError, match="not readable"):
        read_clip(tmp_path / "gone.mp4", SPEC, cache=None)


def test_a_group_stays_in_one_fold() -> None:
    clips = [Clip(Path("x"), f"{i}", LABELS[i % 3], f"set{i % 2}", f"group{i % 7}", "") for i in range(60)]
    folds = grouped_folds(clips, 3)
    assert set(folds) == {0, 1, 2}
    with pytest.raises(DataError, match="never crosses a split"):
        check_folds(clips, [i % 3 for i in range(60)])


def test_windows_are_black_where_nothing_was_seen() -> None:
    footage = _take(0, 3.0, None).footage
    made = windows(footage, [1.0, 2.0, 9.0], SPEC)
    assert made.shape == (3, 16, 96, 96)
    assert not made[0, :7].any() and made[0, 7].any()  # the first frame came when the slot began
    assert made[0, 8:].any() and not made[2].any()
    # a clip is read until its last picture is out of reach, as the device reads a file
    assert SPEC.reach_s == 5.0 and [slots(seconds, SPEC) for seconds in (0.2, 2.0, 2.6)] == [5, 6, 7]
    made = windows(footage, [1.0 * (slot + 1) for slot in range(slots(3.0, SPEC) + 1)], SPEC)
    assert [bool(window.any()) for window in made] == [True] * 7 + [False]


def test_labels_follow_what_happens() -> None:
    fall = _take(1, 14.0, (Happening(1, 6.0, 7.0, True),))
    reach = SPEC.reach_s
    assert event_label(fall, 0.0, (3.0, 4.0, 5.0), reach) == 0
    assert event_label(fall, 0.0, (6.0, 7.0), reach) == 1
    assert event_label(fall, 0.0, (5.0, 6.2), reach) == UNKNOWN  # began, hardly to be seen
    assert event_label(fall, 0.0, (13.5,), reach) == UNKNOWN  # lies, long after
    assert event_label(fall, 7.5, (9.0,), reach) == UNKNOWN  # the stream began after the fall
    assert [release_label(fall, 0.0, e, reach) for e in (5.0, 6.2, 7.0, 10.0, 12.0)] == [0, UNKNOWN, 1, 1, UNKNOWN]
    fight = _take(2, 14.0, (Happening(2, 5.0, 9.0, False),))
    assert event_label(fight, 0.0, (7.0,), reach) == 2
    assert event_label(fight, 0.0, (5.5,), reach) == UNKNOWN
    real = _take(1, 4.0, None)
    assert event_label(real, 0.0, (1.0, 2.0, 3.0, 4.0), reach) == 1
    assert event_label(real, 0.0, (1.0, 2.0), reach) == UNKNOWN
    assert release_label(real, 0.0, 3.0, reach) == UNKNOWN


def test_the_number_of_releases_tells_nothing_of_the_label() -> None:
    happenings = ((), (Happening(1, 7.0, 8.0, True),), (Happening(2, 5.0, 11.0, False),))
    takes = [_take(label, 12.0, happening) for label, happening in enumerate(happenings)]

    def encode(made: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
        return np.zeros((len(made), 4, 16), np.int16)

    bank = make_bank(takes, encode, SPEC, 8, 12, np.random.default_rng(0), plain=True)
    drawn = bank.draw([1 / 3] * 3, 3000, np.random.default_rng(1))
    for label in range(3):
        counts = drawn.present[drawn.labels == label].sum(axis=1)
        assert abs(float(counts.mean()) - 4.5) < 0.35
    assert (np.diff(drawn.present.astype(int), axis=1) >= 0).all()  # what is missing is always the oldest


def test_batches_are_balanced_and_repeatable() -> None:
    takes = [_take(0, 10.0, ()), _take(1, 10.0, (Happening(1, 5.0, 6.0, True),)), _take(1, 4.0, None, "real")]
    takes.append(_take(2, 9.0, (Happening(2, 3.0, 8.0, False),)))
    first = draw_releases(takes, [1 / 3] * 3, 24, 8, SPEC, np.random.default_rng(3))
    second = draw_releases(takes, [1 / 3] * 3, 24, 8, SPEC, np.random.default_rng(3))
    assert np.array_equal(first.windows, second.windows) and np.array_equal(first.labels, second.labels)
    assert len(first.event_labels) == 24 and set(first.event_labels.tolist()) == {0, 1, 2}
    assert len(first.windows) == len(first.labels) == len(first.event)


def test_frames_before_the_start_are_not_seen() -> None:
    take = _take(0, 8.0, ())
    made = run_windows(take, Run(4.0, (5.0,)).start, [5.0], SPEC, None)
    assert not made[0, :7].any() and made[0, 8:].any()
