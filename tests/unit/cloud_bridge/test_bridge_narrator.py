"""The sentence: how sure, what, when and the member's words, the same for whichever member spoke."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_bridge.alerts.lifecycle import AlertChange
from cloud_bridge.alerts.rules import AlertRule
from cloud_bridge.alerts.scenes import SceneConfig
from cloud_bridge.inference.member import Reading
from cloud_bridge.ingest.events import Event
from cloud_bridge.narrator import SURE, TOLERANCE_S, Narrator, how_sure
from familial.model.code_space import prototypes
from familial.model.config import nano
from tests.support.bridge_factory import Harness, make_manifest, release
from wire.artifact.manifest import WindowSpec
from wire.privacy.certificate import sigma_for
from wire.protocol.event import level_weight
from wire.protocol.message import MAX_SENTENCE

MANIFEST = replace(make_manifest(), window=WindowSpec(128, 128, 1.0, 8, 52, 0.125, 0.5))
NARRATOR = Narrator.of(MANIFEST, unsure_below=0.05)
CODES = prototypes(3, 4, 16, 64.0).numpy()
LABELS = MANIFEST.labels


def event(seen: list[int], label: str = "fall", sigma: float = 0.0, seed: int = 0, **fields: Any) -> Event:
    """An event whose releases are codes of `label` where `seen` is 1, of no risk where 0, and missing where -1."""
    there = np.array(seen) >= 0
    codes = CODES[[LABELS.index(label) if each > 0 else 0 for each in seen]]
    z = np.rint(codes + np.random.default_rng(seed).normal(0.0, sigma, codes.shape)) * there[:, None, None]
    return Event("lab/door", 1, 0, len(seen) - 1, z.astype(np.int32), there, **fields)


def reading(label: str = "fall", p: float = 0.9) -> Reading:
    rest = (1.0 - p) / (len(LABELS) - 1)
    return Reading({each: p if each == label else rest for each in LABELS})


def steps(first: int, count: int = 8) -> list[int]:
    return [int(k >= first) for k in range(count)]


@pytest.mark.parametrize("label", ["fall", "fight"])
@pytest.mark.parametrize("first", range(1, 8))
def test_a_step_in_the_codes_is_when_it_began(label: str, first: int) -> None:
    found = NARRATOR.began_s(event(steps(first), label), label)
    assert found == 8 - first


@pytest.mark.parametrize("label", ["fall", "fight"])
def test_with_the_noise_of_a_device_most_times_are_right(label: str) -> None:
    sigma, hits = float(MANIFEST.sigma), []
    for seed in range(300):
        first = 1 + seed % 7
        found = NARRATOR.began_s(event(steps(first), label, sigma, seed), label)
        hits.append(found is not None and abs(found - (8 - first)) <= TOLERANCE_S)
    assert np.mean(hits) > 0.85


def test_what_all_releases_see_began_with_the_event_or_before() -> None:
    assert NARRATOR.began_s(event([1] * 8, "fight"), "fight") == 8.0
    assert NARRATOR.began_s(event([1] * 4 + [0] * 4, "fight"), "fight") == 8.0
    said = NARRATOR.sentence(event([1] * 8, "fight"), reading("fight"), "")
    assert said == "very probably a fight that began 8 seconds ago or earlier"


def test_a_sudden_risk_leaves_the_receptive_field() -> None:
    """A fall is seen by seven releases: of eight, the last one does not see what began with the event."""
    assert NARRATOR.began_s(event([1] * 7 + [0]), "fall") == 8.0
    assert NARRATOR.began_s(event([1] * 2 + [0] * 6), "fall") == 8.0


def test_without_evidence_no_time_is_said() -> None:
    for label in ("fall", "fight"):
        assert NARRATOR.began_s(event([-1] * 8), label) is None
    assert (
        NARRATOR.sentence(event([-1] * 8), reading(), "a person falls")
        == "very probably a fall; perhaps: a person falls"
    )


def test_a_missing_release_speaks_for_nothing() -> None:
    assert NARRATOR.began_s(event([0, 0, 0, 0, 1, -1, 1, 1]), "fall") == 4.0


def test_a_sentence_has_all_four_parts() -> None:
    said = NARRATOR.sentence(event(steps(5)), reading(p=0.7), "a person falls")
    assert said == "probably a fall about 3 seconds ago; perhaps: a person falls"
    normal = NARRATOR.sentence(event([0] * 8), reading("normal", 0.99), "a person sits")
    assert normal == "very probably no risk; perhaps: a person sits"
    assert "that began about" in NARRATOR.sentence(event(steps(5), "fight"), reading("fight"), "")


def test_one_second_is_not_several() -> None:
    assert NARRATOR.sentence(event(steps(7)), reading(), "") == "very probably a fall about 1 second ago"
    quick = Narrator.of(replace(MANIFEST, window=replace(MANIFEST.window, slot_s=0.5, context_step_s=0.06)))
    assert quick.sentence(event(steps(6)), reading(), "") == "very probably a fall about 1 second ago"
    assert quick.sentence(event([1] * 8, "fight"), reading("fight"), "").endswith(" began 4 seconds ago or earlier")


@pytest.mark.parametrize("p", [0.0, 0.34, 0.599, 0.6, 0.849, 0.85, 1.0, float("nan")])
def test_the_words_for_a_probability_are_those_of_its_span(p: float) -> None:
    least = dict(SURE)[how_sure(p)]
    assert not p < least
    assert all(not p >= other for words, other in SURE if other > least)


def test_a_strange_scene_is_no_more_than_possible() -> None:
    for p_value, words in ((0.01, "possibly"), (0.2, "very probably"), (None, "very probably")):
        assert NARRATOR.sentence(event(steps(5), ood_p_value=p_value), reading(), "").startswith(words)


def test_what_is_late_has_no_time() -> None:
    assert NARRATOR.sentence(event(steps(5), late=True), reading(), "") == "very probably a fall"


def test_an_alert_is_told_by_its_own_label() -> None:
    """A budget raises by evidence, also where a verdict says something else: then the words are of something else."""
    seen, calm = event(steps(5)), reading("normal", 0.7)
    raised = NARRATOR.sentence(seen, calm, "a person sits", AlertChange("fall", True, 0.3))
    assert raised.startswith("possibly a fall about ") and "sits" not in raised
    cleared = NARRATOR.sentence(seen, calm, "a person sits", AlertChange("fall", False, 0.1))
    assert cleared == "probably no risk; perhaps: a person sits"
    lying = NARRATOR.sentence(seen, calm, "a person sits", AlertChange("lying still", True, 0.9))
    assert lying == "very probably lying still; perhaps: a person sits"


def test_a_long_answer_fits_into_a_message() -> None:
    said = NARRATOR.sentence(event(steps(5)), reading(), "a" * 400)
    assert len(said) == MAX_SENTENCE and said.startswith("very probably a fall")


@pytest.mark.parametrize("label", ["fall", "fight"])
def test_a_release_of_another_level_says_as_much_as_its_noise_leaves(label: str) -> None:
    """It comes times the weight of its level, and is told as the narrator of an engine of that noise tells it."""
    strict = replace(MANIFEST, sigma=sigma_for(64, 2.0), profile="strict")
    weight, own = level_weight(MANIFEST.sigma, strict.sigma), Narrator.of(strict)
    same, told = 0, 0
    for seed in range(200):
        seen = event(steps(1 + seed % 7), label, float(strict.sigma), seed)
        ordered = replace(seen, z=np.rint(seen.z * weight).astype(np.int32), weights=np.full(8, weight))
        expected = own.began_s(seen, label)
        same += NARRATOR.began_s(ordered, label) == expected
        told += NARRATOR.began_s(seen, label) == expected
    assert same >= 198 > told


def test_a_family_and_its_engine_have_one_narrator() -> None:
    family = Narrator.of(nano(("<pad>", "<end>")))
    for label in ("fall", "fight"):
        np.testing.assert_allclose(family._directions[label], NARRATOR._directions[label], rtol=1e-3)


def test_the_bridge_tells_verdicts_and_alerts_alike(tmp_path: Path) -> None:
    rule = AlertRule(raise_at=0.8, raise_for=2, clear_at=0.4, clear_for=2)
    harness = Harness(tmp_path, MANIFEST, rule, narrator=NARRATOR)
    harness.send(*(release(slot, 90 if slot > 7 else 0, manifest=MANIFEST) for slot in range(12)))
    (alert,) = harness.alerts()
    (verdict,) = [each for each in harness.verdicts() if each.last_slot == alert.slot]
    assert alert.sentence == verdict.sentence
    assert alert.sentence.startswith("very probably a fall") and alert.sentence.endswith(
        "; perhaps: someone lies on the floor"
    )


def test_words_of_a_scene_come_first_and_all_fits(tmp_path: Path) -> None:
    room = SceneConfig("r" * 64, ["lab/door", "lab/hall"])
    harness = Harness(tmp_path, MANIFEST, AlertRule(raise_at=0.8, raise_for=1), scenes=[room], narrator=NARRATOR)
    harness.member.describe = lambda events: ["b" * 400] * len(events)  # type: ignore[method-assign]
    harness.send(*(release(slot, 90, manifest=MANIFEST) for slot in range(9)))
    (alert,) = harness.alerts()
    assert alert.sentence.startswith(f"scene {'r' * 64}: door 0.90: very probably a fall")
    assert len(alert.sentence) == MAX_SENTENCE
