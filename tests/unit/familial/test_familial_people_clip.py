"""People of a rendered clip without its picture, and the person network's errors: geometry, rates, bounds, seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from familial.data import people_clips as stored
from familial.data import sources
from familial.data.events import LabelledClip
from familial.data.people_clips import people_clips, with_new_errors
from familial.data.splits import clip_seeds
from familial.evaluate.life import DAY, everyday
from familial.synth.actions.catalogue import AIDED, BY_NAME_ALONE, CAPTIONS, ENCOUNTERS, KINDS
from familial.synth.clip import render_clip
from familial.synth.detector_errors import POOREST, RATES, ErrorRates, Shown, detect, draw_close_framing, draw_framing
from familial.synth.exact_people import ABSENT, HIDDEN, SEEN, TURNED, ExactPeople, Framing
from familial.synth.people_clip import people_clip
from familial.synth.truth import truth_of
from wire.artifact.manifest import WindowSpec
from wire.people.decode import JOINTS
from wire.people.packed import BOX, LEAST, SCORE, UNIT, Packed

LABELS = ("normal", "fall", "fight")
SPEC = WindowSpec(96, 96, 1.0, 8, 8, 0.5, 0.5)
PLAIN = replace(
    RATES,
    poor_share=0.0,
    misplaced=(0.0,) * 5,
    jitter=0.0,
    pixels=0.0,
    stray=(0.0,) * 5,
    swap_all=(0.0, 0.0),
    swap_arms=0.0,
    swap_legs=0.0,
    merge=0.0,
    borrow=0.0,
    twice=0.0,
    ghosts=0.0,
)
"""Scores alone are drawn; places are exact."""


def standing(people: int, frames: int = 150, length: float = 0.5, lies: bool = False) -> ExactPeople:
    """People side by side who stand before a level camera, all of them seen, far from each other."""
    y = np.array([0, -1, -1, 0, 0, 10, 10, 25, 25, 40, 40, 38, 38, 62, 62, 85, 85]) / 100.0 + 0.05
    x = np.array([0, 1, -1, 2, -2, 10, -10, 13, -13, 14, -14, 6, -6, 6, -6, 6, -6]) / 100.0
    body = np.stack([x, y] if lies else [y, x], -1) * length
    at = np.stack([np.full(people, 0.1), (np.arange(people) + 0.7) / (people + 0.4)], -1)
    if lies:
        at = np.stack([np.full(people, 0.4), np.full(people, 0.2)], -1)
    points = np.broadcast_to(at[:, None] + body, (frames, people, JOINTS, 2))
    return ExactPeople(
        points=np.round(points * UNIT).astype(np.int16),
        visible=np.full(points.shape[:3], SEEN, np.uint8),
        length=np.full(points.shape[:2], round(length * UNIT), np.int16),
        times_s=np.arange(frames) / 8.0,
        shown=np.arange(frames),
        sides=(round(0.75 * UNIT), UNIT),
        window=(0, 0, round(0.75 * UNIT), UNIT),
        night=False,
    )


def drawn(people: ExactPeople, rates: ErrorRates = RATES, times: int = 30) -> Packed:
    """Many draws of one scene in its own framing, one after the other."""
    rngs = (np.random.default_rng(seed) for seed in range(times))
    return np.concatenate([detect(people, rng, people.whole(), rates) for rng in rngs])


def places(people: Packed) -> np.ndarray:
    """(T, 6, 17, 2) y and x."""
    return people[..., : 3 * JOINTS].reshape(*people.shape[:2], JOINTS, 3)[..., :2]


@pytest.mark.parametrize(("seed", "kind"), [(3, "fall_trip"), (5, "fight_group"), (11, "walk")])
def test_people_are_where_the_rendered_clip_of_the_same_seed_shows_them(seed: int, kind: str) -> None:
    clip = render_clip(seed, kind, size=(48, 64), fps=5.0, seconds=9.0)
    made = people_clip(seed, kind, size=(48, 64), fps=5.0, seconds=9.0)
    both = made.clip.keypoints[..., 2] * clip.keypoints[..., 2] > 0
    assert both.mean() > 0.4
    assert np.allclose(made.clip.keypoints[both], clip.keypoints[both], atol=1e-3)
    assert (made.clip.keypoints[..., 2] == clip.keypoints[..., 2]).mean() > 0.85
    for name in ("label", "caption", "annotations", "lying_s"):
        assert getattr(made.clip, name) == getattr(clip, name)
    assert np.array_equal(made.clip.identities, clip.identities)
    assert {tag.label for tag in made.clip.tags} == {tag.label for tag in clip.tags}
    exact = made.people.points[made.people.shown, ..., ::-1] / UNIT * 64
    assert np.allclose(exact[both], clip.keypoints[both][:, :2], atol=0.02)
    truth, known = truth_of(made.clip), truth_of(clip)
    assert np.mean(truth.count == known.count) > 0.9
    assert np.corrcoef(truth.people.mean(0).ravel(), known.people.mean(0).ravel())[0, 1] > 0.7


def test_what_stands_behind_somebody_is_hidden_and_a_turned_face_is_not_seen() -> None:
    levels = np.concatenate([people_clip(seed, fps=5.0, seconds=9.0).people.visible.ravel() for seed in range(12)])
    assert {int(level) for level in np.unique(levels)} >= {HIDDEN, TURNED, SEEN}
    assert 0.5 < (levels == SEEN).mean() < 0.95
    assert (levels == ABSENT).mean() < 0.2


def test_an_empty_room_has_nobody_but_ghosts() -> None:
    made = people_clip(2, "empty", fps=5.0, seconds=9.0)
    assert made.people.points.shape[1] == 0
    found = detect(made.people, np.random.default_rng(0), rates=PLAIN)
    assert found.shape == (45, 6, SCORE + 1) and not found.any()
    ghosts = drawn(made.people, replace(PLAIN, ghosts=2.0))
    assert 0.02 < (ghosts[..., SCORE] > 0).any(1).mean() < 0.98
    assert np.quantile(ghosts[..., SCORE][ghosts[..., SCORE] > 0], 0.9) < 0.4 * UNIT


def test_the_same_random_numbers_give_the_same_errors_and_others_give_others() -> None:
    people = people_clip(7, fps=8.0).people
    first, again, other = (detect(people, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("seed", range(6))
def test_people_are_packed_as_the_network_packs_them(seed: int) -> None:
    people = people_clip(seed, fps=8.0).people
    found = detect(people, np.random.default_rng(seed))
    score, box, at = found[..., SCORE], found[..., BOX], places(found)
    there = score > 0
    assert found.dtype == np.int16 and found.shape == (len(people.times_s), 6, SCORE + 1)
    assert not found[~there].any(), "nobody is zeros"
    assert score[there].min() >= round(LEAST * UNIT) and (np.diff(score, axis=1) <= 0).all(), "surest first"
    assert (box[there] >= 0).all() and (box[there] <= UNIT).all() and (box[..., :2] <= box[..., 2:]).all()
    assert (at[there] >= 0).all() and (at[there] <= UNIT).all()
    assert (found[..., 2 : 3 * JOINTS : 3] <= UNIT).all()
    inside = (at >= box[..., None, :2] - 1) & (at <= box[..., None, 2:] + 1)
    assert inside[there].all(), "a box holds its key points"


def test_of_more_than_six_the_surest_are_kept() -> None:
    found = drawn(standing(9, frames=50, length=0.4), PLAIN, times=4)
    assert (found[..., SCORE] > 0).sum(1).max() == 6


def test_without_errors_joints_are_exact() -> None:
    exact = standing(1, frames=50)
    found = detect(exact, np.random.default_rng(0), exact.whole(), PLAIN)
    there = found[:, 0, SCORE] > 0
    assert there.mean() > 0.9
    assert np.abs(places(found)[there, 0].astype(int) - exact.points[there, 0]).max() <= 1


def test_who_stands_in_view_is_nearly_always_found_and_less_so_far_off_hidden_lying_and_by_a_poor_camera() -> None:
    good, poor = replace(PLAIN, poor_share=0.0), replace(PLAIN, poor_share=1.0)

    def found(people: ExactPeople, rates: ErrorRates = good) -> float:
        return float((drawn(people, rates)[:, 0, SCORE] > 0).mean())

    hidden = standing(1)
    hidden.visible[..., 6:] = HIDDEN
    stands = found(standing(1))
    assert stands > 0.97
    assert found(standing(1), poor) < stands - 0.01
    assert 0.5 < found(standing(1, lies=True)) < stands
    assert found(standing(1, lies=True), poor) < found(standing(1), poor) - 0.2
    assert found(standing(1, length=0.1), poor) < found(standing(1), poor) - 0.1
    assert found(hidden, poor) < found(standing(1), poor) - 0.2


def test_scores_lie_where_those_of_the_network_lie() -> None:
    for share, person, joint in ((0.0, (0.4, 0.65), (0.45, 0.68)), (1.0, (0.15, 0.42), (0.28, 0.48))):
        rows = drawn(standing(1), replace(RATES, poor_share=share))[:, 0]
        rows = rows[rows[:, SCORE] > 0]
        assert person[0] < np.median(rows[:, SCORE]) / UNIT < person[1]
        assert joint[0] < np.median(rows[:, 2 : 3 * JOINTS : 3]) / UNIT < joint[1]


def test_misses_come_in_bursts() -> None:
    found = drawn(standing(1, lies=True), replace(PLAIN, poor_share=1.0))[:, 0, SCORE] > 0
    lost = ~found
    assert 0.1 < lost.mean() < 0.95
    assert (lost[1:] & lost[:-1]).sum() / lost[:-1].sum() > lost.mean() + 0.1


def test_jitter_is_small_beside_what_is_misplaced_for_long_and_grows_where_hidden() -> None:
    rates = replace(PLAIN, misplaced=RATES.misplaced, jitter=RATES.jitter)

    def errors(people: ExactPeople) -> np.ndarray:
        found = np.stack([detect(people, np.random.default_rng(seed), people.whole(), rates) for seed in range(20)])
        at = found[:, :, 0, : 3 * JOINTS].reshape(20, -1, JOINTS, 3)[..., :2] - people.points[:, 0].astype(float)
        at[found[:, :, 0, SCORE] == 0] = np.nan
        return np.asarray(at / (0.5 * UNIT))

    seen, hidden = standing(1), standing(1)
    hidden.visible[..., 13:] = HIDDEN
    away = errors(seen)
    assert 0.01 < np.nanstd(away) < 0.05
    assert np.nanmedian(np.abs(np.diff(away, 2, axis=1))) < 0.5 * np.nanmedian(np.abs(away))
    worse = errors(hidden)
    assert np.nanstd(worse[..., 13:, :]) > 1.3 * np.nanstd(away[..., 13:, :])


@pytest.mark.parametrize(("name", "joints"), [("swap_all", (5, 6)), ("swap_arms", (9, 10)), ("swap_legs", (15, 16))])
def test_sides_are_exchanged_as_often_as_the_table_says(name: str, joints: tuple[int, int]) -> None:
    rate = 0.2
    exact = standing(1)
    rates: dict[str, Any] = {name: (rate, rate) if name == "swap_all" else rate}
    found = drawn(exact, replace(PLAIN, **rates), times=40)
    at = places(found[found[:, 0, SCORE] > 0])[:, 0]
    left, right = joints
    exchanged = at[:, left, 1] < at[:, right, 1]
    assert exact.points[0, 0, left, 1] > exact.points[0, 0, right, 1]
    assert 0.6 * rate < exchanged.mean() < 1.5 * rate
    assert (exchanged[1:] & exchanged[:-1]).sum() > 0.6 * exchanged.sum(), "in runs"


def test_of_two_who_are_close_one_may_be_lost() -> None:
    pair = standing(2)
    pair.points[:, 1] = pair.points[:, 0]
    pair.points[:, 1, :, 1] += round(0.04 * UNIT)
    apart, close = drawn(standing(2), PLAIN), drawn(pair, replace(PLAIN, merge=0.6))
    both = [(each[..., SCORE] > 0).sum(1) == 2 for each in (apart, close)]
    assert both[0].mean() > 0.9 and 0.1 < both[1].mean() < 0.8
    assert ((close[..., SCORE] > 0).sum(1) >= 1).mean() > 0.9


def test_joints_out_of_the_picture_lie_at_its_edge_with_low_scores() -> None:
    exact = standing(1)
    exact.points[..., 0] += round(0.35 * UNIT)  # the legs are below
    outside = exact.points[0, 0, :, 0] >= exact.sides[0]
    assert 4 <= outside.sum() <= 10
    found = drawn(exact, PLAIN)
    rows = found[found[:, 0, SCORE] > 0][:, 0]
    at, scores = rows[:, : 3 * JOINTS : 3], rows[:, 2 : 3 * JOINTS : 3]
    assert (at[:, outside] <= exact.sides[0]).all() and at[:, outside].min() > exact.sides[0] - 0.1 * UNIT
    assert scores[:, outside].mean() < 0.75 * scores[:, ~outside].mean()


def test_frames_that_are_held_show_the_same_people() -> None:
    exact = replace(standing(1, frames=40), shown=np.repeat(np.arange(0, 40, 4), 4))
    found = detect(exact, np.random.default_rng(3))
    assert all(np.array_equal(found[first], found[first + 3]) for first in range(0, 40, 4))


def test_another_framing_moves_and_scales_people_as_one() -> None:
    exact = standing(1, frames=5)
    views = [draw_framing(exact, np.random.default_rng(seed)) for seed in range(20)]
    assert len({view.width for view in views}) > 5
    for view in views:
        shown = Shown.of(exact, view)
        larger = max(view.height, view.width)
        expected = (exact.points - np.array([view.top, view.left])) / larger
        assert np.allclose(shown.points, expected) and np.isclose(shown.sides.max(), 1.0)
        assert np.allclose(shown.length, exact.length / larger)


def test_a_close_framing_shows_somebody_large_and_near_the_middle() -> None:
    exact = standing(1, frames=5)
    for seed in range(20):
        view = draw_close_framing(exact, np.random.default_rng(seed), at_s=0.4)
        shown = Shown.of(exact, view)
        assert 0.3 < float(shown.length[0, 0] / shown.sides[0]) < 1.0
        middle = shown.points[0, 0].mean(0) / shown.sides
        assert (middle > 0.1).all() and (middle < 0.9).all()
    hidden = replace(exact, visible=np.zeros_like(exact.visible))
    same = (draw_close_framing(hidden, np.random.default_rng(3), 0.4), draw_framing(hidden, np.random.default_rng(3)))
    assert same[0] == same[1], "nobody is seen: any other view"


def test_the_poorest_camera_is_less_sure_than_a_poor_one() -> None:
    exact = standing(1, frames=40)
    sure = [drawn(exact, rates)[..., 0, SCORE].mean() for rates in (POOREST, replace(RATES, poor_share=1.0), RATES)]
    assert sure[0] < 0.9 * sure[1] < 0.9 * sure[2]


def test_training_sees_people_without_a_picture_from_near_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "CACHE", tmp_path)
    (clip,) = people_clips([3], LABELS, SPEC, processes=1)
    near = list[float]()

    def close(exact: ExactPeople, rng: np.random.Generator, at_s: float) -> Framing:
        near.append(at_s)
        return exact.whole()

    monkeypatch.setattr(stored, "draw_close_framing", close)
    for seed in range(60):
        with_new_errors(clip, np.random.default_rng(seed))
    assert 8 < len(near) < 36, "about a third"
    starts = [each.start for each in clip.annotations or ()]
    assert set(near) <= set(starts or clip.exact.times_s.tolist() if clip.exact is not None else ())


def test_clips_of_people_come_from_the_cache_and_their_errors_are_drawn_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "CACHE", tmp_path)
    first = list(people_clips([3, 4], LABELS, SPEC, processes=1))
    monkeypatch.setattr(stored, "people_clip", None)  # whatever is made anew now fails
    again = list(people_clips([3, 4], LABELS, SPEC, processes=1))
    for one, two in zip(first, again, strict=True):
        people = one.footage.people
        assert people is not None and one.exact is not None and one.truth is not None and two.footage.people is not None
        assert np.array_equal(people, two.footage.people)
        assert one.footage.frames.shape == (0, 96, 96) and len(one.footage.times) == len(people) == len(one.truth.count)
        assert one.annotations == two.annotations and one.caption == two.caption
        other = with_new_errors(one, np.random.default_rng(5))
        assert (
            other.footage.people is not None
            and not np.array_equal(other.footage.people, people)
            and other.exact is one.exact
        )
    made = people_clip(3, fps=stored.PEOPLE_FPS)  # the module's own name is not the test's
    assert first[0].exact is not None and np.array_equal(first[0].exact.points, made.people.points)
    assert LABELS[first[0].label] == made.clip.label


def test_a_rendered_clip_has_people_in_the_framing_of_its_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "CACHE", tmp_path)
    monkeypatch.setattr(sources, "_RENDER_SIZE", (48, 64))
    (clip,) = sources.rendered_clips([6], LABELS, SPEC, processes=1)
    people, exact = clip.footage.people, clip.exact
    assert people is not None and exact is not None and clip.footage.people_times is not None
    assert len(people) == len(clip.footage.frames) and np.array_equal(clip.footage.people_times, clip.footage.times)
    calm = detect(exact, np.random.default_rng(0), exact.whole(), PLAIN)
    frame, row = np.nonzero(calm[..., SCORE] > 0)
    nearest = [
        np.abs(places(calm)[t, r].astype(int) - exact.points[exact.shown[t]]).max((-1, -2)).min()
        for t, r in zip(frame, row, strict=True)
    ]
    assert np.median(nearest) <= 2
    real = replace(clip, exact=None)
    assert with_new_errors(real, np.random.default_rng(1)) is real


def test_clips_of_people_show_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "CACHE", tmp_path)
    seeds = clip_seeds("aided", 8)
    for kinds, labels in ((AIDED, {"normal", "fall"}), (ENCOUNTERS, {"normal", "fight"})):
        shown = list(
            people_clips(seeds, LABELS, SPEC, processes=1, kinds=kinds)
        )  # the same seeds, nothing of the other
        assert {each.caption for each in shown} <= {CAPTIONS[kind] for kind in kinds}
        assert {LABELS[each.label] for each in shown} == labels
        again, first = (
            next(people_clips(seeds, LABELS, SPEC, processes=1, kinds=kinds)).footage.people,
            shown[0].footage,
        )
        assert again is not None and first.people is not None and np.array_equal(again, first.people)


def test_an_ordinary_day_shows_each_of_its_kinds_as_often_as_the_day_does() -> None:
    kinds, shown = everyday(), DAY["coming and going"]
    assert {KINDS[kind] for kind in kinds} == {"normal"} and not set(kinds) & {"empty", *BY_NAME_ALONE}
    for name, kind in DAY.items():
        if kind.actions and "empty" not in kind.actions:
            ratio = (kind.share / len(kind.actions)) / (shown.share / len(shown.actions))
            for action in kind.actions:
                assert kinds.count(action) / kinds.count(shown.actions[0]) == pytest.approx(ratio, rel=0.1), name


def test_clips_may_have_a_length_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "CACHE", tmp_path)
    seeds, made = clip_seeds("everyday", 2), list[LabelledClip]()
    for seconds in (None, 12.5, 40.0):
        made += people_clips(seeds, LABELS, SPEC, processes=1, kinds=("walk",), seconds=seconds)
    assert [clip.footage.duration for clip in made[2:]] == pytest.approx([12.5, 12.5, 40.0, 40.0], abs=0.1)
    again = next(people_clips(seeds, LABELS, SPEC, processes=1, kinds=("walk",)))
    assert again.footage.duration == made[0].footage.duration  # the cache keeps them apart
