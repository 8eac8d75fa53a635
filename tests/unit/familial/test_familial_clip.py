"""The renderer of motion: deterministic, true to its labels, physical enough, blind to the label in what it stages."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import math
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from familial.synth import clip as render
from familial.synth import samples
from familial.synth.bodies import JOINTS, Actor, Body, Floats, draw_body, perform, radii
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


def body_and_actor(seed: int) -> tuple[Body, Actor]:
    rng = np.random.default_rng(seed)
    body = draw_body(rng, seed)
    return body, Actor(body, rng, (0.0, 0.0), 30.0)


def height_of(joints: Floats, name: str) -> Floats:
    return np.asarray(joints[:, JOINTS.index(name), 2])


def ticks(actor: Actor, start: float = 0.0) -> Floats:
    return np.arange(start, actor.now, 0.04)


@pytest.mark.parametrize("kind", ["fall_trip", "fight_grapple", "sit", "empty"])
def test_a_seed_always_gives_the_same_bytes(kind: str) -> None:
    def digest(seed: int) -> str:
        clip = render_clip(seed, kind, size=SMALL, fps=6.0, seconds=7.0)
        parts = (clip.frames, clip.times_s, clip.keypoints, clip.silhouettes, clip.identities)
        return hashlib.sha256(b"".join(p.tobytes() for p in parts) + repr(clip.annotations).encode()).hexdigest()

    assert digest(3) == digest(3)
    assert digest(3) != digest(4)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_keeps_its_promises(kind: str) -> None:
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


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'brawl'"):
        render_clip(0, "brawl")


@pytest.mark.parametrize("seed", [1, 2, 5, 6])
def test_the_stage_does_not_know_the_label(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    staged: list[bytes] = []

    def watch(name: str) -> None:
        inner = getattr(render, name)

        def watched(*args: object) -> object:
            result = inner(*args)
            staged.append(pickle.dumps(result))
            return result

        monkeypatch.setattr(render, name, watched)

    watch("draw_scene")  # room, furniture, camera and light
    watch("_draw_sensor")  # noise, blur, compression, light over time
    watch("draw_things")  # cars, doors, screens, pets
    kinds = ("walk", "hug", "fall_side", "fight_punch")
    clips = [render_clip(seed, kind, size=(24, 32), fps=4.0, seconds=9.0) for kind in kinds]
    assert len(staged) == 12
    assert len(set(staged)) == 3
    assert len({clip.times_s.tobytes() for clip in clips}) == 1


def test_headcount_does_not_tell_a_fall_from_a_normal_clip() -> None:
    for seed in range(4):
        assert np.array_equal(small_clip(seed, "walk").identities, small_clip(seed, "fall_back").identities)


def test_falls_come_at_any_time_after_ordinary_life() -> None:
    clips = [render_clip(seed, "fall_faint", size=(24, 32), fps=2.0, seconds=14.0) for seed in range(9)]
    starts = np.array([clip.annotations[0].start_s for clip in clips])
    assert starts.min() >= 2.4
    assert starts.std() > 1.2


@pytest.mark.parametrize("seed", range(4))
def test_walkers_stand_on_the_floor(seed: int) -> None:
    body, actor = body_and_actor(seed)
    actor.walk(np.array([3.0, 1.0]))
    actor.pick_up()
    actor.crouch(1.0)
    joints = perform(actor, ticks(actor))
    bottom = (joints[..., 2] - radii(body))[:, [JOINTS.index(n) for n in ("toe_l", "toe_r", "heel_l", "heel_r")]]
    assert np.abs(bottom.min(1)).max() < 0.02
    away = perform(actor, np.array([actor.now]))[0, 0, :2] - (3.0, 1.0)
    assert np.hypot(*away) < 0.4


def test_limbs_keep_their_length() -> None:
    body, actor = body_and_actor(3)
    actor.walk(np.array([2.0, 0.0]), speed=3.0)
    actor.fall(70.0, momentum=1.0)
    joints = perform(actor, ticks(actor))
    thigh = np.linalg.norm(joints[:, JOINTS.index("hip_l")] - joints[:, JOINTS.index("knee_l")], axis=-1)
    assert np.abs(thigh / (0.245 * body.height) - 1).max() < 0.02


@pytest.mark.parametrize("style", ["tip", "fold", "slump"])
@pytest.mark.parametrize("way", [0.0, 90.0, 140.0, 180.0])
def test_a_fall_ends_flat_on_the_floor(style: str, way: float) -> None:
    for seed in range(3):
        _, actor = body_and_actor(seed)
        actor.hold(1.0)
        onset, impact = actor.fall(way, style=style)
        actor.lie(2.0)
        before, after = perform(actor, np.array([onset])), perform(actor, ticks(actor, impact + 0.3))
        assert 0.4 < impact - onset < 3.5
        assert height_of(after, "pelvis").max() < 0.5 * height_of(before, "pelvis")[0]
        assert height_of(after, "head").max() < 0.62
        flat = after[:, JOINTS.index("head"), :2] - after[:, JOINTS.index("pelvis"), :2]
        assert np.hypot(*flat.T).min() > 0.3


def test_a_toppling_body_speeds_up() -> None:
    _, actor = body_and_actor(1)
    onset, impact = actor.fall(0.0)
    fall = height_of(perform(actor, np.linspace(onset, impact, 5)), "head")
    drops = -np.diff(fall)
    assert drops[0] < 0.5 * drops[2]


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


def test_the_demo_falls_when_it_says() -> None:
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


def test_the_command_writes_clips_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
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


def test_what_is_known_of_a_clip_lies_beside_it(tmp_path: Path) -> None:
    args = ["--out", str(tmp_path), "--clips", "1", "--size", "48x64", "--workers", "1", "--truth"]
    assert main(args) == 0
    (film,) = tmp_path.glob("*.mp4")
    clip = render_clip(0, size=(48, 64))
    with np.load(film.with_suffix(".npz")) as known:
        told = json.loads(str(known["told"]))
        assert np.array_equal(known["silhouettes"], clip.silhouettes)
        assert np.array_equal(known["count"], clip.count)
    assert told["label"] == clip.label and len(told["tags"]) == len(clip.tags)


def test_a_disk_that_fills_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.zeros((9, 48, 64, 3), np.uint8)

    class Full:
        """A writer that, like OpenCV's on a full disk, says nothing."""

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


def test_a_cast_is_who_is_there() -> None:
    """The same people, named by their seeds, act in whatever room the clip's seed gives."""
    first, second = (render_clip(seed, "walk", size=SMALL, seconds=7.0, cast=[7]) for seed in (1, 2))
    assert first.identities.tolist() == second.identities.tolist() == [7]
    assert not np.array_equal(first.frames, second.frames)
    assert body_of(7) == body_of(7) != body_of(8)
    with pytest.raises(ValueError, match="fight_punch needs 2"):
        render_clip(1, "fight_punch", cast=[7])


def test_the_page_of_samples_shows_what_was_asked(tmp_path: Path) -> None:
    page, sheet = tmp_path / "page.html", tmp_path / "sheet.png"
    asked = ["--kinds", "walk,fall_slip", "--size", "48x64"]
    assert samples.main([*asked, "--out", str(page)]) == 0
    assert page.read_text().count("<img") == 6 and "slips while walking" in page.read_text()
    assert samples.main([*asked, "--out", str(sheet)]) == 0
    assert cv2.imread(str(sheet)).shape == (96, 512, 3)
    with pytest.raises(SystemExit):
        samples.main(["--kinds", "brawl", "--out", str(page)])
