"""Clips and events: errors name the bad input; labels, lengths and starts of streams are independent."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from familial.data.batches import sample_events, sample_sequences
from familial.data.clips import Clip, Footage, check_folds, grouped_folds, read_clip, read_manifests, slots, windows
from familial.data.events import UNKNOWN, Annotation, Grid, LabelledClip, event_label, release_label, sequence_frames
from familial.model.config import nano
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


def _clip(label: int, seconds: float, annotations: tuple[Annotation, ...] | None, name: str = "made") -> LabelledClip:
    times = np.arange(int(seconds * 12)) / 12
    frames = np.random.default_rng(len(times)).integers(20, 200, (len(times), SPEC.height, SPEC.width), dtype=np.uint8)
    return LabelledClip(Footage(frames, times, seconds), label, "a person", name, annotations)


def test_a_manifest_is_read(tmp_path: Path) -> None:
    _film(tmp_path / "a.mp4")
    (clip,) = read_manifests([_manifest(tmp_path, "a.mp4,fall,home,g1,a note")], LABELS)
    assert (clip.label, clip.set, clip.group, clip.note) == ("fall", "home", "g1", "a note")
    footage = read_clip(clip.file, SPEC, cache=tmp_path / "cache")
    assert footage.frames.shape == (24, SPEC.height, SPEC.width) and footage.duration == pytest.approx(2.0)
    again = read_clip(clip.file, SPEC, cache=tmp_path / "cache")
    assert np.array_equal(again.frames, footage.frames)


def test_bad_rows_are_refused_by_line(tmp_path: Path) -> None:
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


def test_corrupt_and_empty_clips_are_refused_by_name(tmp_path: Path) -> None:
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


def test_a_set_stays_in_one_fold_where_sets_stay_whole() -> None:
    clips = [Clip(Path("x"), f"{i}", LABELS[i % 3], f"set{i % 5}", f"group{i % 7}", "") for i in range(60)]
    folds = grouped_folds(clips, 5, whole_sets=True)
    assert len({(clip.set, fold) for clip, fold in zip(clips, folds, strict=True)}) == 5 == len(set(folds))
    with pytest.raises(DataError, match="there are 5 sets: give --folds 5 or less"):
        grouped_folds(clips, 6, whole_sets=True)


def test_windows_are_black_where_there_is_no_frame() -> None:
    footage = _clip(0, 3.0, None).footage
    made = windows(footage, [1.0, 2.0, 3.0 + SPEC.receptive_field_s + 0.1], SPEC)
    assert made.shape == (3, SPEC.frames, SPEC.height, SPEC.width)
    assert not made[0, : SPEC.context_frames - 1].any()  # the first frame came when the slot began
    assert made[0, SPEC.context_frames :].any() and not made[2].any()


def test_slots_last_until_the_last_frame_leaves_the_receptive_field() -> None:
    footage = _clip(0, 3.0, None).footage
    count = slots(3.0, SPEC)
    made = windows(footage, [SPEC.slot_s * (slot + 1) for slot in range(count + 1)], SPEC)
    assert [bool(window.any()) for window in made] == [True] * count + [False]
    assert count * SPEC.slot_s < 3.0 + SPEC.receptive_field_s <= (count + 1) * SPEC.slot_s


def test_labels_follow_the_annotations() -> None:
    fall = _clip(1, 14.0, (Annotation(1, 6.0, 7.0, True),))
    field_s = SPEC.receptive_field_s
    assert event_label(fall, 0.0, (3.0, 4.0, 5.0), field_s) == 0
    assert event_label(fall, 0.0, (6.0, 7.0), field_s) == 1
    assert event_label(fall, 0.0, (5.0, 6.2), field_s) == UNKNOWN  # began, hardly to be seen
    assert event_label(fall, 0.0, (13.5,), field_s) == UNKNOWN  # lies, long after
    assert event_label(fall, 7.5, (9.0,), field_s) == UNKNOWN  # the stream began after the fall
    assert [release_label(fall, 0.0, e, field_s) for e in (5.0, 6.2, 7.0, 12.0, 13.8)] == [0, UNKNOWN, 1, 1, UNKNOWN]
    fight = _clip(2, 14.0, (Annotation(2, 5.0, 9.0, False),))
    assert event_label(fight, 0.0, (7.0,), field_s) == 2
    assert event_label(fight, 0.0, (5.5,), field_s) == UNKNOWN
    real = _clip(1, 4.0, None)
    assert event_label(real, 0.0, (1.0, 2.0, 3.0, 4.0), field_s) == 1
    assert event_label(real, 0.0, (1.0, 2.0), field_s) == UNKNOWN
    assert release_label(real, 0.0, 3.0, field_s) == UNKNOWN


GRID = Grid.of(SPEC, 8)


def test_a_sequence_holds_the_windows_of_its_slots() -> None:
    clip = _clip(0, 9.0, ())
    frames, _, _ = sequence_frames(clip, 0.0, 8.0, GRID, SPEC, None)
    made = windows(clip.footage, [1.0 + slot for slot in range(8)], SPEC)
    assert np.array_equal(frames[GRID.index], made)
    assert len(frames) < made.shape[0] * made.shape[1] / 2  # neighbours share most of them


def test_which_releases_arrive_does_not_depend_on_the_label() -> None:
    """Events are whole sequences and parts of them, of every label, and each has the label of its releases."""
    annotations = ((), (Annotation(1, 7.0, 8.0, True),), (Annotation(2, 5.0, 11.0, False),))
    clips = [_clip(label, 12.0, each) for label, each in enumerate(annotations)]
    sequences = sample_sequences(clips, [1 / 3] * 3, 120, GRID, SPEC, np.random.default_rng(0), plain=True)
    samples = sample_events(sequences, clips, SPEC, 8, np.random.default_rng(1))
    assert set(samples.labels.tolist()) == {0, 1, 2} and (samples.first <= samples.last).all()
    for sequence, first, last, label in zip(samples.sequence, samples.first, samples.last, samples.labels, strict=True):
        ends = [float(sequences.last[sequence]) - 7 + slot for slot in range(first, last + 1)]
        assert (
            event_label(clips[sequences.clip[sequence]], float(sequences.start[sequence]), ends, SPEC.receptive_field_s)
            == label
        )


def test_batches_are_balanced_and_deterministic() -> None:
    clips = [_clip(0, 10.0, ()), _clip(1, 10.0, (Annotation(1, 5.0, 6.0, True),)), _clip(1, 4.0, None, "real")]
    clips.append(_clip(2, 9.0, (Annotation(2, 3.0, 8.0, False),)))
    first, second = (sample_sequences(clips, [1 / 3] * 3, 24, GRID, SPEC, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.frames, second.frames) and np.array_equal(first.labels, second.labels)
    assert first.frames.shape == (24, len(GRID.before_s), SPEC.height, SPEC.width) and first.labels.shape == (24, 8)
    assert set(first.labels[first.labels != UNKNOWN].tolist()) == {0, 1, 2}
    # where the moment of a fall is unknown, only the sequence is labelled; elsewhere only the releases are
    assert ((first.weak == 1) == (first.clip == 2)).all() and (first.labels[first.clip == 2] == UNKNOWN).all()


def test_frames_before_the_stream_starts_are_black() -> None:
    clip = _clip(0, 8.0, ())
    made, _, _ = sequence_frames(clip, 4.0, 5.0, Grid.of(SPEC, 1), SPEC, None)
    assert not made[: SPEC.context_frames - 1].any() and made[SPEC.context_frames :].any()
