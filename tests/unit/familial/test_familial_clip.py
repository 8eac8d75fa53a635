"""Rendered clips: reproducible, consistent with their labels, in settings that do not depend on the label."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import math
import pickle
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from familial.synth import clip as render
from familial.synth import samples, setting
from familial.synth.clip import KINDS, RenderedClip, body_of, clip_label, demo_clip, main, render_clip
from familial.synth.disk import save_video
from wire.errors import DataError

SMALL = (60, 80)


@functools.cache
def small_clip(seed: int, kind: str | None) -> RenderedClip:
    return render_clip(seed, kind, size=SMALL, fps=6.0, seconds=8.0)


@functools.cache
def demo() -> RenderedClip:
    return demo_clip(size=(120, 160))


@pytest.mark.parametrize("kind", ["fall_trip", "fight_grapple", "sit", "empty"])
def test_a_seed_always_gives_the_same_bytes(kind: str) -> None:
    def digest(seed: int) -> str:
        clip = render_clip(seed, kind, size=SMALL, fps=6.0, seconds=7.0)
        parts = (clip.frames, clip.times_s, clip.keypoints, clip.silhouettes, clip.identities)
        return hashlib.sha256(b"".join(p.tobytes() for p in parts) + repr(clip.annotations).encode()).hexdigest()

    assert digest(3) == digest(3)
    assert digest(3) != digest(4)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_gives_a_consistent_clip(kind: str) -> None:
    clip = small_clip(40 + len(kind), kind)
    count, people = len(clip.frames), len(clip.identities)
    end = clip.times_s[-1] + 0.2
    assert clip.label == KINDS[kind]
    assert clip.frames.shape == (count, *SMALL, 3)
    assert clip.silhouettes.shape == (count, *SMALL)
    assert clip.keypoints.shape == (count, people, 17, 3)
    assert np.isfinite(clip.keypoints).all()
    assert clip.silhouettes.max() <= people
    assert len(clip.caption.split()) <= 12
    assert [h.label for h in clip.annotations] == [clip.label]
    assert all(0 <= h.start_s <= h.end_s <= end for h in clip.annotations)
    assert bool(clip.lying_s) == (clip.label == "fall")
    assert all(clip.annotations[0].end_s <= a < b <= end for a, b in clip.lying_s)
    if kind == "empty":
        assert people == 0
    else:
        assert len(set(clip.identities.tolist())) == people > (clip.label == "fight")


def test_half_the_clips_are_normal_and_falls_outnumber_fights() -> None:
    labels = [clip_label(seed) for seed in range(3000)]
    for label, share in (("normal", 0.5), ("fall", 0.3), ("fight", 0.2)):
        assert abs(labels.count(label) / 3000 - share) < 0.03
    assert small_clip(7, None).label == clip_label(7)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'brawl'"):
        render_clip(0, "brawl")


@pytest.mark.parametrize("seed", [1, 2, 5, 6])
def test_the_setting_does_not_depend_on_the_label(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bytes] = []

    def watch(module: ModuleType, name: str) -> None:
        inner = getattr(module, name)

        def watched(*args: object) -> object:
            result = inner(*args)
            drawn.append(pickle.dumps(result))
            return result

        monkeypatch.setattr(module, name, watched)

    watch(setting, "draw_scene")  # room, furniture, camera and light
    watch(setting, "draw_sensor")  # noise, blur, compression, light over time
    watch(render, "draw_objects")  # cars, doors, screens, pets
    kinds = ("walk", "hug", "fall_side", "fight_punch")
    clips = [render_clip(seed, kind, size=(24, 32), fps=4.0, seconds=9.0) for kind in kinds]
    assert len(drawn) == 12
    assert len(set(drawn)) == 3
    assert len({clip.times_s.tobytes() for clip in clips}) == 1


def test_the_number_of_people_does_not_depend_on_the_label() -> None:
    for seed in range(4):
        assert np.array_equal(small_clip(seed, "walk").identities, small_clip(seed, "fall_back").identities)


def test_falls_come_at_any_time_after_ordinary_life() -> None:
    clips = [render_clip(seed, "fall_faint", size=(24, 32), fps=2.0, seconds=14.0) for seed in range(9)]
    starts = np.array([clip.annotations[0].start_s for clip in clips])
    assert starts.min() >= 2.4
    assert starts.std() > 1.2


def test_visible_key_points_lie_on_their_own_person() -> None:
    for kind in ("walk", "fall_side", "fight_punch"):
        clip = small_clip(21, kind)
        t, p, k = np.nonzero(clip.keypoints[..., 2])
        x, y = np.floor(clip.keypoints[t, p, k, :2]).astype(int).T
        assert (clip.silhouettes[t, y, x] == p + 1).all()
    shown = demo()
    there = shown.silhouettes.reshape(len(shown.frames), -1).any(1)
    assert shown.keypoints[there, 0, :, 2].mean() > 0.85
    for t in np.flatnonzero(there)[::25]:  # the silhouette is no larger than the body
        rows, columns = np.nonzero(shown.silhouettes[t])
        low, high = shown.keypoints[t, 0, :, :2].min(0), shown.keypoints[t, 0, :, :2].max(0)
        assert columns.min() > low[0] - 12 and columns.max() < high[0] + 12
        assert rows.min() > low[1] - 12 and rows.max() < high[1] + 12


def test_the_demo_clip_falls_at_its_annotated_time() -> None:
    clip = demo()
    fall = clip.annotations[0]
    assert (clip.label, fall.label) == ("fall", "fall")
    assert fall.start_s == pytest.approx(7.02, abs=1e-9)
    assert clip.times_s[-1] == pytest.approx(15.0 - 1 / 15)
    assert clip.lying_s == ((fall.end_s, 15.0),)
    head = clip.keypoints[:, 0, 0, 1]
    frame = {t: int(math.floor(t * 15)) for t in (6.9, 9.0, 14.5)}
    assert head[frame[9.0]] > head[frame[6.9]] + 20
    assert np.abs(clip.keypoints[frame[9.0] :, 0, :, :2] - clip.keypoints[frame[14.5], 0, :, :2]).max() < 3
    assert not clip.silhouettes[0].any() or clip.silhouettes[0].astype(bool).mean() < 0.01
    later = demo_clip(size=SMALL, fps=5.0, onset_s=6.52, seconds=10.0)
    assert later.annotations[0].start_s == pytest.approx(6.52, abs=1e-9)


def test_the_command_writes_clips_and_keeps_finished_ones(tmp_path: Path) -> None:
    args = ["--out", str(tmp_path), "--clips", "2", "--size", "48x64", "--workers", "1"]
    assert main(args) == 0
    with (tmp_path / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    stamps = [(tmp_path / row["file"]).stat().st_mtime_ns for row in rows]
    assert [row["label"] for row in rows] == [clip_label(0), clip_label(1)]
    assert main(args) == 0
    assert stamps == [(tmp_path / row["file"]).stat().st_mtime_ns for row in rows]


@functools.cache
def tagged(kind: str, label: str) -> bool:
    """Whether, in half of a few clips of `kind`, the first person is tagged so while it happens."""
    hits = 0
    for seed in range(4):
        clip = render_clip(seed, kind, size=(24, 32), fps=6.0, seconds=9.0)
        start, end = (
            clip.annotations[0].start_s - 0.5,
            max(clip.annotations[0].end_s, clip.annotations[0].start_s + 4.0),
        )
        hits += any(t.label == label and t.person == 0 and t.start_s < end and t.end_s > start for t in clip.tags)
    return hits >= 2


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("fall_back", "lying"),
        ("lie_floor", "lying"),
        ("crouch", "crouching"),
        ("kneel", "crouching"),
        ("run", "running"),
        ("smoke", "smoking"),
        ("loiter", "loitering"),
    ],
)
def test_a_posture_is_tagged_where_it_is_shown(kind: str, label: str) -> None:
    assert tagged(kind, label)
    assert not tagged("stand", label)


@pytest.mark.parametrize(
    ("kind", "label"),
    [("sit", "crouching"), ("sit", "lying"), ("bend", "lying"), ("crawl", "lying"), ("walk", "running")],
)
def test_a_posture_is_not_mistaken_for_another(kind: str, label: str) -> None:
    assert not tagged(kind, label)


def test_the_count_is_of_people_who_are_seen() -> None:
    clip = small_clip(21, "walk")
    areas = np.array([(clip.silhouettes == p + 1).sum((1, 2)) for p in range(len(clip.identities))])
    assert np.array_equal(clip.count, (areas > 0.001 * SMALL[0] * SMALL[1]).sum(0))
    assert small_clip(22, "empty").count.max() == 0


def test_the_truth_of_a_clip_is_written_beside_it(tmp_path: Path) -> None:
    args = ["--out", str(tmp_path), "--clips", "1", "--size", "48x64", "--workers", "1", "--truth"]
    assert main(args) == 0
    (film,) = tmp_path.glob("*.mp4")
    clip = render_clip(0, size=(48, 64))
    with np.load(film.with_suffix(".npz")) as known:
        described = json.loads(str(known["described"]))
        assert np.array_equal(known["silhouettes"], clip.silhouettes)
        assert np.array_equal(known["count"], clip.count)
    assert described["label"] == clip.label and len(described["tags"]) == len(clip.tags)


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.zeros((9, 48, 64, 3), np.uint8)

    class Full:
        """A writer that, like OpenCV's on a full disk, reports no error."""

        def __init__(self, name: str, *_: object) -> None:
            Path(name).write_bytes(b"")

        def isOpened(self) -> bool:
            return True

        def write(self, frame: object) -> None:
            pass

        def release(self) -> None:
            pass

    monkeypatch.setattr("cv2.VideoWriter", type("VideoWriter", (Full,), {"fourcc": staticmethod(lambda *_: 0)}))
    with pytest.raises(DataError, match="0 of 9 frames.*full disk.*free some space"):
        save_video(tmp_path / "clip.mp4", frames, 12.0)
    assert not list(tmp_path.iterdir())


def test_cast_chooses_the_people() -> None:
    """The same people, given by their seeds, act in any room."""
    first, second = (render_clip(seed, "walk", size=SMALL, seconds=7.0, cast=[7]) for seed in (1, 2))
    assert first.identities.tolist() == second.identities.tolist() == [7]
    assert not np.array_equal(first.frames, second.frames)
    assert body_of(7) == body_of(7) != body_of(8)
    with pytest.raises(ValueError, match="fight_punch needs 2"):
        render_clip(1, "fight_punch", cast=[7])


def test_the_page_of_samples_shows_the_chosen_kinds(tmp_path: Path) -> None:
    page, sheet = tmp_path / "page.html", tmp_path / "sheet.png"
    asked = ["--kinds", "walk,fall_slip", "--size", "48x64"]
    assert samples.main([*asked, "--out", str(page)]) == 0
    assert page.read_text().count("<img") == 6 and "slips while walking" in page.read_text()
    assert samples.main([*asked, "--out", str(sheet)]) == 0
    picture = cv2.imread(str(sheet))
    assert picture is not None and picture.shape == (96, 512, 3)
    with pytest.raises(SystemExit):
        samples.main(["--kinds", "brawl", "--out", str(page)])
