"""The cloud member's server fails: verdicts and alerts go on from the edge's exit, and `degraded` says so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from cloud_bridge.alerts.budget import AlertBudget, EvidenceRule
from cloud_bridge.alerts.lifecycle import CONDITIONS
from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.narrator import Narrator
from familial.evaluate.lying import LYING_STILL
from familial.evaluate.sequential import AlertCalibration, Moment, OperatingPoint, ScoreLaw
from tests.support.bridge_factory import Harness, make_manifest, release
from tests.support.services import ROOT

MANIFEST = make_manifest(slot_s=1.0)
RULE = AlertRule(raise_at=0.6, raise_for=2, clear_at=0.4, clear_for=2)


def send(harness: Harness, slots: range, value: int = 0, exit_of: str = "cloud", time_s: int = 0) -> None:
    harness.member.exit = exit_of
    harness.send(*(release(slot, value, manifest=MANIFEST, time_s=time_s) for slot in slots))


def watch(harness: Harness, now_s: float) -> None:
    harness.now_s = now_s
    harness.bridge.watch()


def told(harness: Harness) -> list[tuple[str, bool, str]]:
    return [(alert.label, alert.raised, alert.severity) for alert in harness.alerts()]


def test_it_is_raised_once_and_cleared_when_the_server_answers_again(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, RULE)
    harness.bridge._began_s = 1e9  # nothing is stale
    send(harness, range(9))
    watch(harness, 1.0)
    assert told(harness) == [] and harness.bridge.stats()["degraded"] == 0
    send(harness, range(9, 12), exit_of="edge")
    watch(harness, 2.0)
    watch(harness, 3.0)
    assert told(harness) == [("degraded", True, "warning")] and harness.open_alerts()[-1] == "degraded"
    assert "look at the server" in harness.alerts()[0].sentence and harness.bridge.stats()["degraded"] == 3
    watch(harness, 900.0)  # nothing comes from the camera: nobody knows whether the server answers
    assert len(told(harness)) == 1
    send(harness, range(12, 13), time_s=900)
    watch(harness, 901.0)
    assert told(harness)[1:] == [("degraded", False, "warning")] and harness.alerts("hall") == []


def test_a_server_that_comes_and_goes_is_told_once(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, RULE)
    harness.bridge._began_s = 1e9
    for slot in range(8, 60):
        send(harness, range(slot, slot + 1), exit_of="edge" if slot % 10 == 0 else "cloud")
        watch(harness, float(slot))
    assert told(harness) == [("degraded", True, "warning")]
    watch(harness, 78.0)
    assert len(told(harness)) == 1
    watch(harness, 79.0)  # 30 s after the last event of the edge's exit
    assert told(harness)[1:] == [("degraded", False, "warning")]


def test_an_alert_of_the_edges_exit_says_what_and_how_sure(tmp_path: Path) -> None:
    """The words are the cloud member's; the rest of a sentence needs none."""
    harness = Harness(tmp_path, MANIFEST, RULE, narrator=Narrator.of(MANIFEST))
    send(harness, range(12), 90, exit_of="edge")
    (alert,) = harness.alerts()
    assert alert.sentence.startswith("very probably a fall") and "perhaps" not in alert.sentence
    assert harness.member.described == []


def test_it_is_still_open_after_a_restart(tmp_path: Path) -> None:
    first = Harness(tmp_path, MANIFEST, RULE)
    send(first, range(9), exit_of="edge")
    watch(first, 1.0)
    second = Harness(tmp_path, MANIFEST, RULE)
    watch(second, 2.0)
    assert second.bridge._books["lab/door"].raised == ["degraded"]
    send(second, range(9, 10))
    watch(second, 3.0)
    assert told(second)[-1] == ("degraded", False, "warning")


def test_verdicts_and_risks_go_on_from_the_edges_exit(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, RULE)
    send(harness, range(8))
    send(harness, range(8, 11), 90, "edge")
    verdicts = harness.verdicts()
    assert [verdict.member for verdict in verdicts] == ["cloud", "edge", "edge", "edge"]
    assert verdicts[-1].label == "fall" and verdicts[-1].sentence == "" and verdicts[-1].ood_p_value is None
    assert ("fall", True, "critical") in told(harness)
    assert [event.last_slot for event in harness.member.described] == [7]  # the server is not asked for words
    assert "(the edge's exit)" in harness.people.getvalue()
    send(harness, range(11, 14), 0, "edge")
    assert ("fall", False, "critical") in told(harness)


def test_what_is_late_has_no_verdict_of_the_edges_exit(tmp_path: Path) -> None:
    """The device's own stands; a second one could not say that it is late."""
    harness = Harness(tmp_path, MANIFEST, RULE)
    harness.now_s = 100_000.0
    send(harness, range(9), 90, "edge", time_s=60)
    assert harness.verdicts() == [] and "fall" not in [label for label, *_ in told(harness)]
    send(harness, range(9, 10), 90, "cloud", time_s=60)
    assert [(verdict.member, verdict.late) for verdict in harness.verdicts()] == [("cloud", True)]


def test_an_exit_that_does_not_say_who_lies_clears_nobody() -> None:
    points = (OperatingPoint(2.0, 20.0, 0.9, 3.0, 6.0),)
    law = ScoreLaw(0.0, 1.0, 2.0, points, direction=(1.0,))
    laws = {"fall": law, "fight": law, LYING_STILL: ScoreLaw(-3.0, 2.0, 3.0, points, own_baseline=False)}
    rule, calibration = AlertRule(false_per_day=200, long_lie_s=60), AlertCalibration("c" * 64, "1", "x", 24.0, laws)
    budget = AlertBudget.of(rule, calibration, MANIFEST.labels, 8, 1.0, "checkpoints/x")
    assert budget is not None
    normal, raised = {"normal": 0.98, "fall": 0.01, "fight": 0.01}, [LYING_STILL]
    degraded, cloud = EvidenceRule(budget, {}), EvidenceRule(budget, {})
    for slot in range(20, 60):
        at = Moment(1, slot, 255, np.zeros((8, 1)))
        assert degraded.turning(normal, {}, at, raised) == []
    moments = [Moment(1, slot, 255, np.zeros((8, 1))) for slot in range(20, 60)]
    turned = [cloud.turning(normal, {"low": 0.0}, at, raised) for at in moments]
    assert turned[0][0][0] == LYING_STILL


def test_every_alert_about_a_camera_has_its_words_and_its_row() -> None:
    """In the page's table of kinds, in its words of four languages, and in the docs."""
    static = ROOT / "cloud_bridge" / "web" / "static"
    kinds = re.search(r"ABOUT_CAMERAS = new Set\(\[(.*?)\]", (static / "ward.js").read_text(), re.DOTALL)
    words, page = (static / "words_staff.js").read_text(), (ROOT / "docs" / "alert-kinds.md").read_text()
    assert kinds is not None and set(re.findall(r'"(.*?)"', kinds[1])) == set(CONDITIONS)
    for label in CONDITIONS:
        row = re.search(rf'"label\.{label}": \[(.*?)\]', words, re.DOTALL)
        assert row is not None and len(re.findall(r'".*?"', row[1])) == 4, label
        assert f"| `{label}` |" in page
