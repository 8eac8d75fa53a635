"""Cameras of one scene: read together they raise what neither raises alone, and no view takes anything from another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.model import scenes as benchmark
from cloud_bridge.alerts.lifecycle import AlertBook, Together
from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.alerts.scenes import SceneBook, SceneConfig, Scenes, prior_log_odds, read_together
from cloud_bridge.config import BridgeConfig
from tests.support.bridge_factory import DEVICE, OTHER, Harness, make_manifest, release
from wire.errors import ConfigError

MANIFEST = make_manifest(slot_s=1.0)
RULE = AlertRule(raise_at=0.6, raise_for=2, clear_at=0.4, clear_for=2)
ROOM = SceneConfig("room 3", ("lab/door", "lab/hall"), 1.0)
PRIOR = prior_log_odds(3)
probability = st.floats(0.0, 1.0)


def p(odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-odds))


def say(fall: float, fight: float = 0.0) -> dict[str, float]:
    return {"normal": 1.0 - fall - fight, "fall": fall, "fight": fight}


# --- the sum


def test_another_view_adds_its_log_odds_above_those_of_a_view_that_cannot_tell() -> None:
    assert prior_log_odds(3) == pytest.approx(math.log(1 / 2)) and prior_log_odds(2) == 0.0
    assert read_together(p(-1.0), [p(1.0)], 0.5, -0.5) == pytest.approx(p(-1.0 + 0.5 * 1.5))
    assert read_together(p(-1.0), [p(1.0), p(0.5)], 0.5, 0.0) == pytest.approx(p(-1.0 + 0.5 * 1.5))
    assert read_together(0.25, [1 / 3], 1.0, PRIOR) == 0.25  # it cannot tell
    assert read_together(0.25, [], 1.0, PRIOR) == 0.25 and read_together(0.25, [0.9], 0.0, PRIOR) == 0.25


@settings(deadline=None)
@given(probability, st.lists(probability, max_size=4), st.floats(0.0, 1.0))
def test_no_view_takes_anything_away(own: float, others: list[float], weight: float) -> None:
    together = read_together(own, others, weight, PRIOR)
    assert own <= together <= 1.0
    assert read_together(own, [*others, 0.0], weight, PRIOR) == together


@settings(deadline=None)
@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0.0, 1.0))
def test_the_benchmark_measures_the_sum_of_the_bridge(one: float, other: float, weight: float) -> None:
    measured = float(benchmark.read_together(np.array([one, other]), weight, PRIOR))
    both = max(read_together(p(one), [p(other)], weight, PRIOR), read_together(p(other), [p(one)], weight, PRIOR))
    assert p(measured) == pytest.approx(both, abs=1e-9)
    assert benchmark.read_together(np.array([one, other]), weight, PRIOR, veto=True) <= measured


def test_the_weight_is_learned_from_scenes() -> None:
    """It is large where only both views together tell a fall, and 0 where the other view misleads."""
    rng = np.random.default_rng(0)

    def read(fall: bool, high: float, low: float) -> benchmark.Read:
        odds = np.array([high, low])[:, None, None] + rng.normal(0.0, 0.1, (2, 3, 1))
        return benchmark.Read(fall, (1.0, 1.0), np.repeat(odds, 4, axis=2))

    agree = [read(fall, rng.normal(1.5, 0.5), 1.0 if fall else -1.5) for fall in (True, False) * 60]
    mislead = [read(fall, rng.normal(2.0 if fall else 1.0, 0.5), -1.5 if fall else 0.8) for fall in (True, False) * 60]
    assert benchmark.learned_weight(agree, PRIOR) > 0.5 and benchmark.learned_weight(mislead, PRIOR) == 0.0


def test_two_in_a_row_count() -> None:
    assert benchmark.in_a_row(np.array([[0.0, 9.0, 1.0, 2.0], [0.0, 3.0, 4.0, 0.0]])).tolist() == [1.0, 3.0]


# --- which views count


def take(scenes: Scenes, camera: str, fall: float, now_s: float, **raised: Sequence[str]) -> Together:
    others = {f"lab/{name}": labels for name, labels in raised.items()}
    found = scenes.take(camera, say(fall), now_s, others or dict.fromkeys(scenes.others(camera), ()))
    assert found is not None
    return found


def test_views_count_while_their_events_overlap() -> None:
    scenes = Scenes([ROOM], event_s=8.0)
    assert take(scenes, "lab/hall", 0.5, 100.0).probabilities["fall"] == 0.5
    assert take(scenes, "lab/door", 0.5, 107.9).probabilities["fall"] == pytest.approx(2 / 3)
    assert take(scenes, "lab/door", 0.5, 108.0).probabilities["fall"] == 0.5  # offline since: it takes nothing away
    assert take(scenes, "lab/door", 0.5, 90.0).probabilities["fall"] == 0.5  # a clock that was set back
    take(scenes, "lab/hall", 0.0, 110.0)
    assert take(scenes, "lab/door", 0.5, 110.0).probabilities["fall"] == 0.5
    assert scenes.take("lab/yard", say(0.9), 0.0, {}) is None and list(scenes.others("lab/yard")) == []


# --- alerts


def changes(book: SceneBook, *rows: tuple[float, float], open_there: Sequence[str] = ()) -> list[Any]:
    """(raised, severity) of what each row (own, together) changes; None: nothing."""
    found = list[Any]()
    for own, together in rows:
        turned = book.update(say(own), views=Together(say(own) | {"fall": together}, open_there, {"fall": "scene"}))
        found.append((turned[0].raised, turned[0].severity) if turned else None)
    return found


def test_what_only_the_views_together_raise_is_a_warning() -> None:
    book = SceneBook(RULE, [])
    assert changes(book, *[(0.5, 0.7)] * 3) == [None, (True, "warning"), None]
    assert changes(book, *[(0.3, 0.3)] * 3) == [None, (False, ""), None]


def test_it_becomes_critical_when_the_camera_raises_it_itself() -> None:
    book = SceneBook(RULE, [])
    assert changes(book, *[(0.5, 0.7)] * 2, *[(0.9, 0.9)] * 3) == [
        None,
        (True, "warning"),
        None,
        (True, "critical"),
        None,
    ]
    assert changes(book, *[(0.1, 0.7)] * 3, *[(0.1, 0.1)] * 2) == [None, None, None, None, (False, "")]


def test_there_is_one_alert_of_the_views_together() -> None:
    book = SceneBook(RULE, [])
    assert changes(book, *[(0.5, 0.7)] * 3, open_there=["fall"]) == [None] * 3
    assert changes(book, *[(0.9, 0.9)] * 2, open_there=["fall"]) == [None, (True, "")]  # its own is never held back
    later = SceneBook(RULE, [])
    assert changes(later, *[(0.5, 0.7)] * 2, open_there=["fall"]) == [None] * 2
    assert changes(later, (0.5, 0.7)) == [(True, "warning")]  # once the other's is cleared


@settings(deadline=None)
@given(
    st.lists(st.tuples(probability, st.lists(probability, max_size=2), st.booleans(), st.booleans())),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_what_a_camera_raises_alone_is_raised_whatever_others_say(
    rows: list[tuple[float, list[float], bool, bool]], raise_for: int, clear_for: int
) -> None:
    """Hostile views, open alerts of others, restarts: at each raise of the camera alone, something is told."""
    rule = AlertRule(raise_at=0.6, raise_for=raise_for, clear_at=0.4, clear_for=clear_for)
    alone, raised = AlertBook(rule, []), list[str]()
    book = SceneBook(rule, raised)
    for own, others, there, again in rows:
        expected = alone.update(say(own))
        together = say(own) | {"fall": read_together(own, others, 1.0, PRIOR)}
        turned = book.update(say(own), views=Together(together, ["fall"] if there else []))
        if any(change.raised for change in expected):
            (told,) = turned
            assert told.raised and told.severity in ("", "critical") and raised == ["fall"]
        if "fall" in alone.raised:
            assert raised == ["fall"]
        if again:
            book = SceneBook(rule, raised, book.in_a_row)
        assert all(type(count) is int for count in book.in_a_row.values())


def test_a_restart_changes_nothing() -> None:
    raised = list[str]()
    book = SceneBook(RULE, raised)
    changes(book, (0.5, 0.7))
    book = SceneBook(RULE, raised, book.in_a_row)
    assert changes(book, (0.5, 0.7)) == [(True, "warning")]
    book = SceneBook(RULE, raised, book.in_a_row)
    assert changes(book, *[(0.9, 0.9)] * 2) == [None, (True, "critical")]
    assert changes(SceneBook(RULE, ["fall"]), *[(0.1, 0.1)] * 2) == [None, (False, "")]  # of before it had a scene
    book.pause()
    assert changes(book, (0.1, 0.1)) == [None]


# --- the bridge


def both(harness: Harness, slots: range, door: int, hall: int) -> None:
    for slot in slots:
        harness.now_s = float(slot)
        for camera, key, value in (("door", DEVICE, door), ("hall", OTHER, hall)):
            made = release(slot, value, manifest=MANIFEST, key=key, camera=camera, time_s=0)
            harness.send(made, camera=f"lab/{camera}")


def test_two_views_that_half_see_a_fall_raise_one_alert(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, RULE, scenes=[ROOM])
    both(harness, range(12), door=50, hall=50)
    alerts = [*harness.alerts("door"), *harness.alerts("hall")]
    assert [(alert.label, alert.raised, alert.severity) for alert in alerts] == [("fall", True, "warning")]
    assert alerts[0].sentence.startswith("scene room 3: ") and "0.50" in alerts[0].sentence
    assert {verdict.probabilities["fall"] for verdict in harness.verdicts("door")} == {0.5}  # each camera's own
    both(harness, range(12, 20), door=90, hall=0)
    told = [(alert.raised, alert.severity) for alert in harness.alerts("door")]
    assert told[-1] == (True, "critical") and [a.raised for a in harness.alerts("hall")].count(True) <= 1


def test_without_a_scene_they_raise_none(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, RULE)
    both(harness, range(12), door=50, hall=50)
    assert harness.alerts("door") == [] and harness.alerts("hall") == []


def test_a_view_that_sees_nothing_or_is_offline_takes_nothing_away(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, RULE, scenes=[ROOM])
    both(harness, range(12), door=70, hall=0)
    assert [(a.label, a.raised, a.severity) for a in harness.alerts("door")] == [("fall", True, "critical")]
    assert harness.alerts("hall") == []  # nor is its own raised by what it adds: 0.00 stays below


# --- the file

CAMERAS = [
    {"site": "lab", "camera": "door", "public_key": DEVICE.public.hex},
    {"site": "lab", "camera": "hall", "public_key": OTHER.public.hex},
    {"site": "home", "camera": "bed", "public_key": "01" * 32},
]
GOOD = {"name": "room", "cameras": ["lab/door", "lab/hall"]}


def parse(*scenes: dict[str, Any], **sections: Any) -> BridgeConfig:
    return BridgeConfig.parse({"cameras": CAMERAS, "scenes": [*scenes], **sections})


@pytest.mark.parametrize(
    ("scenes", "hint"),
    [
        (
            [GOOD | {"cameras": ["lab/door", "lab/bath"]}],
            r"room: there is no camera lab/bath; there are lab/door.*correct",
        ),
        ([GOOD, GOOD | {"name": "other"}], "other: lab/door is of scene room, too; a camera is of one scene"),
        ([GOOD, GOOD], "room is there twice"),
        ([GOOD | {"cameras": ["lab/door", "home/bed"]}], "of home, lab; a scene is of one site"),
        ([GOOD | {"cameras": ["lab/door"]}], "a scene has two or more"),
        ([GOOD | {"cameras": ["lab/door", "lab/door"]}], "a scene has two or more"),
        ([GOOD | {"cameras": [f"lab/{n}" for n in "abcde"]}], "up to the 4 that certificates state"),
        ([GOOD | {"weight": 1.5}], "give 0 to 1"),
        ([GOOD | {"name": ""}], "1 to 64 printable"),
        ([GOOD | {"names": "x"}], "names"),
    ],
)
def test_a_faulty_scene_is_refused_with_its_cure(scenes: list[dict[str, Any]], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        parse(*scenes)


def test_a_scene_is_read_whole() -> None:
    config = parse(GOOD)
    assert config.scenes == (SceneConfig("room", ["lab/door", "lab/hall"]),)
    names = [config.shard_name(camera.name) for camera in config.cameras]
    assert names == ["lab/door", "lab/door", "home/bed"]  # its cameras fall to one shard
    with pytest.raises(ConfigError, match="a budget is calibrated for a camera alone.*remove one of the two"):
        parse(GOOD, alerts={"false_per_day": 1.0})
