"""Several models in one bridge: alerts, scenes and figures are of the event's own; no family reads another's events."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from cloud_bridge.alerts.budget import AlertBudget
from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.alerts.scenes import SceneConfig
from cloud_bridge.contour.artist import Artist
from cloud_bridge.inference.member import FamilyMember
from cloud_bridge.ingest.engines import Engine
from cloud_bridge.models import Model, by_id
from familial.evaluate.sequential import AlertCalibration, OperatingPoint, ScoreLaw
from familial.model.checkpoint import checkpoint_hash, save
from tests.support.bridge_factory import OTHER, Harness, make_manifest, release
from tests.support.contour_factory import make_decoder
from tests.support.family_factory import make_family
from tests.support.two_models import A, B, Percent, feed, of, two
from wire.artifact.manifest import EngineManifest
from wire.protocol.contour import open_contour


def calibrated(checkpoint: str, threshold: float) -> AlertBudget:
    """A budget by which a fall is raised beyond `threshold` nats of evidence."""
    points = (OperatingPoint(threshold, 4.0, 0.9, 3.0, 6.0),)
    law = ScoreLaw(0.3, 1.0, 2.0, points, direction=(0.06, *[0.0] * (A.n - 1)))
    table = AlertCalibration(checkpoint, "1", "made up", 24.0, {"fall": law})
    budget = AlertBudget.of(AlertRule(false_per_day={"fall": 4}), table, A.labels, 8, 1.0, "x")
    assert budget is not None
    return budget


def budgets(folder: Path) -> Harness:
    """A raises a fall by little evidence; for B nothing is evidence enough."""
    rule = AlertRule(false_per_day={"fall": 4})
    deaf = Model(Engine(B), Percent(B), calibrated("b", 1e6))
    return Harness(folder, A, rule, budget=calibrated("a", 4.0), more=[deaf])


FALL = [5] * 16 + [92] * 8


def test_alerts_are_weighed_by_the_tables_of_the_event_s_own_model(tmp_path: Path) -> None:
    harness = budgets(tmp_path)
    feed(harness, B, 1, FALL)
    assert harness.alerts() == []
    feed(harness, A, 2, FALL)
    assert [(alert.label, alert.model_id) for alert in harness.alerts()] == [("fall", A.model_id)]


def test_an_open_alert_survives_the_change_of_engine_and_is_cleared_by_the_other_model(tmp_path: Path) -> None:
    harness = budgets(tmp_path)
    feed(harness, A, 1, FALL)
    feed(harness, B, 2, [92] * 3)
    assert harness.open_alerts()[-1] == "fall"
    feed(harness, B, 3, [2] * 40)
    raised, cleared = harness.alerts()
    assert (raised.raised, cleared.raised) == (True, False) and cleared.first_id == raised.id
    assert (raised.model_id, cleared.model_id) == (A.model_id, B.model_id)


def test_the_baseline_of_one_model_is_not_taken_for_that_of_another_after_a_restart(tmp_path: Path) -> None:
    """Three releases of B have come, and no event yet: the counts are still A's."""
    harness = budgets(tmp_path)
    feed(harness, A, 1, [30] * 400)
    feed(harness, B, 2, [30] * 3)
    record = harness.bridge._records["lab/door"]
    assert record.event["model"] == f"{B.model_id:016x}" and record.event["weighed"] == f"{A.model_id:016x}"
    learned = record.in_a_row["fall baseline"]
    assert learned > 600, "it begins at 300"
    harness.bridge._store.close()
    harness = budgets(tmp_path)
    assert harness.bridge._books["lab/door"].in_a_row["fall baseline"] == learned
    feed(harness, B, 3, [0] * 8)
    assert harness.bridge._books["lab/door"].in_a_row["fall baseline"] != learned
    harness.bridge._store.close()
    bare = Harness(tmp_path, A, AlertRule(false_per_day={"fall": 4}), budget=calibrated("a", 4.0))
    assert bare.bridge._books["lab/door"].in_a_row == {"fall baseline": 300}


def test_verdicts_in_a_row_are_counted_whatever_model_made_them(tmp_path: Path) -> None:
    harness, _ = two(tmp_path, rule=AlertRule(raise_at=0.6, raise_for=2))
    feed(harness, A, 1, [0] * 7 + [90])
    feed(harness, B, 2, [0] * 7 + [90])
    assert [(a.label, a.model_id) for a in harness.alerts()] == [("fall", B.model_id)]


def test_a_camera_whose_new_model_has_no_table_counts_verdicts(tmp_path: Path) -> None:
    """What was weighed before is not read with directions of another model; what is open is cleared by verdicts."""
    harness = Harness(tmp_path, A, budget=calibrated("a", 1e6), more=[Model(Engine(B), Percent(B))])
    feed(harness, A, 1, FALL)
    assert harness.alerts() == []
    feed(harness, B, 2, FALL)
    feed(harness, B, 3, [2] * 40)
    assert [(a.raised, a.model_id) for a in harness.alerts()] == [(True, B.model_id), (False, B.model_id)]
    feed(harness, A, 4, FALL)
    assert len(harness.alerts()) == 2, "A weighs again"


def test_counts_and_evidence_are_not_taken_for_each_other_after_a_restart(tmp_path: Path) -> None:
    counting = Harness(tmp_path, A)
    feed(counting, A, 1, [0] * 7 + [90])
    assert counting.bridge._books["lab/door"].in_a_row == {"fall": 1, "fight": 0}
    counting.bridge._store.close()
    weighing = Harness(tmp_path, A, budget=calibrated("a", 4.0))
    assert weighing.bridge._books["lab/door"].in_a_row == {"fall baseline": 300}
    feed(weighing, A, 2, [30] * 20)
    weighing.bridge._store.close()
    assert Harness(tmp_path, A).bridge._books["lab/door"].in_a_row == {}


def test_an_alert_of_the_last_event_of_a_start_names_the_model_of_that_start(tmp_path: Path) -> None:
    """The message that ends the event is the other engine's."""
    harness, _ = two(tmp_path, rule=AlertRule(raise_at=0.6, raise_for=1))
    feed(harness, A, 1, [90] * 3)
    feed(harness, B, 2, [1])
    assert [(a.label, a.boot_id, a.model_id) for a in harness.alerts()] == [("fall", 1, A.model_id)]


def test_a_scene_of_two_engines_is_read_together(tmp_path: Path) -> None:
    room = SceneConfig("room", ["lab/door", "lab/hall"], weight=1.0)
    harness, _ = two(tmp_path, rule=AlertRule(raise_at=0.6, raise_for=1), scenes=[room])
    harness.send(*(release(slot, 55, manifest=B, key=OTHER, camera="hall") for slot in range(8)), camera="lab/hall")
    feed(harness, A, 1, [55] * 8)
    assert [alert.label for alert in harness.alerts()] == ["fall"]
    assert harness.alerts()[0].sentence.startswith("scene room: door 0.55, hall 0.55")


def test_a_figure_is_drawn_by_the_decoder_of_its_own_model(tmp_path: Path) -> None:
    draws = Model(Engine(B), Percent(B), artist=Artist(make_decoder(), B))
    harness = Harness(tmp_path, A, more=[draws])
    shown = list[tuple[str, int]]()
    harness.bridge.viewers.append(lambda camera, contour: shown.append((camera, contour.model_id)))
    harness.send(*of(A, 1, range(8)))
    harness.send(*(release(slot, manifest=B, key=OTHER, camera="hall") for slot in range(8)), camera="lab/hall")
    assert shown == [("lab/hall", B.model_id)]
    sent = [m for m in harness.link.sent if m.topic.endswith("/hall/contour")]
    assert len(sent) == 1
    open_contour(sent[0].payload, harness.key.public, "lab", "hall", B.model_id)


# --- two real families


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, EngineManifest]]:
    """Two checkpoints of the same shapes and other weights, and a manifest of each."""
    found = list[tuple[Path, EngineManifest]]()
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("family")
        save(make_family(seed=seed), folder)
        found.append((folder, make_manifest(checkpoint=checkpoint_hash(folder))))
    return found


def test_two_families_of_other_weights_are_read_each_by_its_own(
    tmp_path: Path, families: list[tuple[Path, EngineManifest]]
) -> None:
    (one, first), (other, second) = families
    assert first.hashes["checkpoint"] != second.hashes["checkpoint"] and first.model_id != second.model_id
    members = [FamilyMember.load(one, first, 1), FamilyMember.load(other, second, 1)]
    harness = Harness(tmp_path, first)
    harness.bridge.change(by_id(*(Model(Engine(m), who) for m, who in zip((first, second), members, strict=True))))
    feed(harness, first, 1, range(60, 70))
    feed(harness, second, 2, range(60, 70))
    found = harness.verdicts()
    assert [v.model_id for v in found] == [first.model_id] * 3 + [second.model_id] * 3
    for alone, verdicts, manifest in zip(members, (found[:3], found[3:]), (first, second), strict=True):
        only = Harness(tmp_path / hashlib.sha256(manifest.to_json().encode()).hexdigest()[:8], manifest)
        only.bridge.change(by_id(Model(Engine(manifest), alone)))
        feed(only, manifest, 1, range(60, 70))
        for got, wanted in zip(verdicts, only.verdicts(), strict=True):
            assert list(got.probabilities.values()) == pytest.approx([*wanted.probabilities.values()], abs=1e-6)
        only.bridge._store.close()
    same = [np.array([*v.probabilities.values()]) for v in (found[0], found[3])]
    assert np.abs(same[0] - same[1]).max() > 1e-3, "the two families read alike: the test would see no mix-up"
