"""Cameras of one scene: certificate, budgets and ledger count what all of them reveal, and no number is too small."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.gate.ledger import Ledger, start_ledger
from tests.support.engine_factory import make_engine
from wire.artifact.manifest import EngineManifest
from wire.errors import CertificateError, ConfigError
from wire.privacy.budget import Budget, Terms
from wire.privacy.certificate import CAMERAS, Certificate, sigma_for
from wire.privacy.gaussian_dp import guess_bound
from wire.privacy.level_rule import UNIT, AdaptiveLevel, LevelRule

ALONE = Certificate(clip_norm=64, sigma=sigma_for(64, 3.0), n=64, slot_s=1.0, receptive_field_s=5.0)
SPANS = ("release", "event", "incident_2s", "incident_10s", "incident_60s", "visit_5min", "hour", "day")
SCENES = (2, 3, 4)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> EngineManifest:
    return make_engine(tmp_path_factory.mktemp("made") / "engine")


@pytest.mark.parametrize("cameras", SCENES)
def test_a_scene_states_the_numbers_of_all_its_cameras(cameras: int) -> None:
    """S of k cameras is sqrt(k) S, rounded up; each chance is the bound at that S."""
    document, alone = ALONE.of_scene(cameras).document(), ALONE.document()
    for span in SPANS:
        exact = alone[span]["releases"] * cameras * Fraction(64) ** 2 / ALONE.sigma**2
        assert document[span]["releases"] == cameras * alone[span]["releases"]
        assert 0 <= Fraction(document[span]["S"]) ** 2 - exact <= exact / 10**4
        named = guess_bound(float(exact) ** 0.5, 1 / 1000)
        assert named <= document[span]["name_one_of"]["1000"] <= named * (1 + 1e-4) + 1e-9
    assert document["cameras"].keys() == {str(each) for each in {*CAMERAS, cameras} - {cameras}}
    assert document["cameras"]["1"]["event"] == alone["event"]
    assert document["time_in_view_s"].keys() == {str(each) for each in {*CAMERAS, cameras}}


def test_two_and_four_cameras_are_what_a_camera_alone_says_of_as_many() -> None:
    alone = ALONE.document()
    for cameras in CAMERAS[1:]:
        document = ALONE.of_scene(cameras).document()
        assert {span: document[span] for span in SPANS} == alone["cameras"][str(cameras)]


@pytest.mark.parametrize("cameras", SCENES)
def test_no_matched_filter_over_all_cameras_beats_the_stated_chance(cameras: int) -> None:
    """M orthogonal codes of norm C, one release of each camera, the best attacker: z of all cameras, added up."""
    people, tries = 10, 20_000
    document = ALONE.of_scene(cameras).document()
    random, sigma = np.random.default_rng(7), float(ALONE.sigma)
    sums = np.rint(random.normal(0.0, sigma, (cameras, tries, people))).sum(axis=0)
    sums[:, 0] += 64 * cameras  # person 0 is before every camera
    found = float(np.mean(sums.argmax(axis=1) == 0))
    spread = 4 * math.sqrt(found * (1 - found) / tries)
    assert found <= document["release"]["name_one_of"]["10"] + spread
    assert found > ALONE.document()["release"]["name_one_of"]["10"] * 0.8, "the attack is a real one"


def test_words_and_watching_say_that_they_are_of_the_scene() -> None:
    document = ALONE.of_scene(3).document()
    assert all("each of the scene's 3 cameras" in text for text in document["unit"].values())
    assert document["watching"]["bits_hostile_eye"] == 3 and "by at most 8" in document["watching"]["meaning"]
    assert ALONE.document()["watching"]["bits_hostile_eye"] == 1
    assert "scene_cameras" not in ALONE.document()["inputs"], "a camera alone has the document of before"


def test_a_scene_is_read_back_and_an_edited_number_of_cameras_is_refused() -> None:
    text = ALONE.of_scene(3).to_json()
    assert Certificate.from_json(text) == ALONE.of_scene(3)
    for wrong in (1, 2, 4):
        document = json.loads(text)
        document["inputs"]["scene_cameras"] = wrong
        with pytest.raises(CertificateError):
            Certificate.from_json(json.dumps(document))
    for unfit in (0, 5, 1.5, "2", True):
        document = json.loads(text)
        document["inputs"]["scene_cameras"] = unfit
        with pytest.raises(CertificateError):
            Certificate.read(json.dumps(document).encode())


def test_a_bridge_takes_a_scene_of_its_engine_and_none_that_states_too_little(manifest: EngineManifest) -> None:
    two = manifest.certificate().of_scene(2).to_json().encode()
    assert manifest.covers(two) and manifest.covers(two, 2)
    assert not manifest.covers(two, 3), "three cameras are known to see the same people"
    assert manifest.covers(manifest.certificate().to_json().encode(), 3), "of itself alone it says so"
    other = replace(manifest.certificate(), sigma=manifest.sigma / 2).of_scene(2).to_json().encode()
    assert not manifest.covers(other)


@pytest.mark.parametrize("cameras", SCENES)
def test_budgets_are_held_against_what_the_scene_can_spend(manifest: EngineManifest, cameras: int) -> None:
    alone = Terms.of(manifest, "", Budget())
    bits = float(alone.price * manifest.event_releases) / math.log(4)
    Terms.of(manifest, "", Budget(bits * 1.001))
    with pytest.raises(ConfigError, match="bits_per_event"):
        Terms.of(manifest, "", Budget(bits * 1.001), cameras=cameras)
    Terms.of(manifest, "", Budget(bits * 1.001 * cameras), cameras=cameras)
    together = Terms.of(manifest, "", Budget(), cameras=cameras)
    assert together.price == cameras * alone.price and f"{cameras} cameras" in together.words
    assert all(cameras * one <= each + cameras for one, each in zip(alone.costs, together.costs, strict=True))
    assert together.certificate == alone.certificate.of_scene(cameras)


def test_with_the_level_rule_a_scene_spends_what_the_rule_allows_each_of_its_cameras() -> None:
    sigmas = tuple(sigma_for(64, s) for s in (2.0, 3.0, 4.0))
    towards = np.where(np.arange(64) % 3 == 0, 16, -16).tolist()
    limits = AdaptiveLevel(LevelRule.around((towards, towards), 64, sigmas, 1, 8), 64, sigmas, 8).limits
    alone = replace(ALONE, adaptive_level=limits)
    for releases in (1, 8, 3600):
        assert alone.of_scene(3).spends(releases) == 3 * alone.spends(releases)
        assert alone.of_scene(3).shift(releases, 3) == alone.shift(releases, 3)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 150), min_size=2, max_size=4))
def test_no_ledger_of_a_scene_that_cuts_off_lets_the_sum_pass_its_budget(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int]
) -> None:
    """Cameras that run for different times: the sum of what they were granted is within every budget of the hour."""
    price, cameras = Fraction(9, 8), len(lengths)
    budget, granted = Fraction(100) * price, 0
    for number, slots in enumerate(lengths):
        folder = tmp_path_factory.mktemp(f"camera-{number}")
        start_ledger(folder, "key")
        ledger = Ledger(folder, cameras * price, 1.0, budget, key_id="key")
        mine = sum(ledger.charge(slot).granted for slot in range(slots))
        assert ledger.totals()["s2_total"] >= float(mine * cameras * price) - 1 / UNIT
        granted += mine
        ledger.close()
    assert granted * price <= budget


def test_the_largest_ledger_of_a_scene_is_never_below_what_all_spent_together(tmp_path: Path) -> None:
    price, lengths = Fraction(9, 8), (40, 7, 200)
    sums = []
    for number, slots in enumerate(lengths):
        (folder := tmp_path / str(number)).mkdir()
        start_ledger(folder, "key")
        ledger = Ledger(folder, len(lengths) * price, 1.0, key_id="key")
        for slot in range(slots):
            ledger.charge(slot)
        sums.append(ledger.totals()["s2_total"])
        ledger.close()
    assert max(sums) >= float(sum(lengths) * price)
