"""The sequential test: a release counts once, evidence is monotone, false alerts of pure noise keep the budget."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.alert_tables import Recorded, fit, raised
from familial.evaluate.sequential import (
    CEILING,
    FILE,
    AlertCalibration,
    LyingTest,
    Moment,
    OperatingPoint,
    ScoreLaw,
    SequentialTest,
    score,
)
from tests.support.bridge_factory import make_manifest
from wire.errors import CheckpointError, DataError

R = 8
ALL = (1 << R) - 1  # every release is there
LAW = ScoreLaw(mean=-2.0, spread=1.0, rise=4.0)
Scores = npt.NDArray[np.float64]


def run(test: SequentialTest, scores: list[float], first: int = 7, boot: int = 1) -> list[float]:
    return [test.step(each, Moment(boot, first + index, ALL)) for index, each in enumerate(scores)]


def noise_alone(events: int, seed: int, mean: float = -2.0) -> Scores:
    """Scores (events,) of independent releases: each the mean of R of them, with standard deviation 1."""
    releases = np.random.default_rng(seed).normal(0.0, np.sqrt(R), events + R - 1)
    return np.asarray(mean + np.convolve(releases, np.ones(R) / R, "valid"))


scores = st.lists(st.floats(-8, 8), min_size=1, max_size=40)


@settings(deadline=None)
@given(scores, st.integers(0, 39), st.floats(0, 5))
def test_evidence_is_monotone_in_every_score(row: list[float], at: int, more: float) -> None:
    """With the baseline held: a camera's own past is meant to take back a little."""
    law = dataclasses.replace(LAW, own_baseline=False)
    higher = [value + more * (index == at % len(row)) for index, value in enumerate(row)]
    low, high = (run(SequentialTest(law, R, 10.0), each) for each in (row, higher))
    assert all(a <= b + 1e-9 for a, b in zip(low, high, strict=True))


@settings(deadline=None)
@given(scores)
def test_evidence_stays_between_zero_and_the_ceiling(row: list[float]) -> None:
    assert all(0.0 <= each <= CEILING * 3.0 + 1e-9 for each in run(SequentialTest(LAW, R, 3.0), row))


def test_every_release_counts_once() -> None:
    """A steady score s over N + R - 1 releases gives (N + R - 1) / R events' worth, not N."""
    law = dataclasses.replace(LAW, own_baseline=False)
    evidence = run(SequentialTest(law, R, 1e9), [3.0] * 25)[-1]
    assert evidence == pytest.approx((25 + R - 1) / R * float(law.increment(3.0, law.mean)))


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=9, max_size=60))
def test_missing_slots_neither_add_nor_repeat_evidence(came: list[bool]) -> None:
    """Slots that never came are no evidence: what is counted is at most the releases that came."""
    law, slots = dataclasses.replace(LAW, own_baseline=False), [slot for slot, there in enumerate(came) if there]
    test, each = SequentialTest(law, R, 1e9), float(law.increment(3.0, law.mean)) / R
    for slot in slots:
        present = sum(1 << (slot - other) for other in slots if slot - R < other <= slot)
        test.step(3.0, Moment(1, slot, present))
    assert test.evidence <= len(slots) * each + 1e-9


def test_a_repeated_or_older_event_adds_nothing() -> None:
    test = SequentialTest(LAW, R, 10.0)
    first = test.step(3.0, Moment(1, 20, ALL))
    assert test.step(3.0, Moment(1, 20, ALL)) == test.step(3.0, Moment(1, 12, ALL)) == first


@pytest.mark.parametrize("moment", [Moment(2, 12, ALL), Moment(1, 60, ALL)])
def test_a_new_start_and_a_long_gap_begin_the_evidence_anew(moment: Moment) -> None:
    test = SequentialTest(LAW, R, 10.0)
    run(test, [3.0] * 5)
    assert test.evidence > 5.0
    assert test.step(-6.0, moment) == 0.0


def test_a_raised_alert_is_cleared_by_verdicts_alone() -> None:
    test = SequentialTest(LAW, R, 10.0)
    run(test, [3.0] * 12)
    test.is_raised = True
    test.pause()
    assert test.evidence == 10.0
    assert test.step(-6.0, Moment(9, 4, ALL)) < 10.0


def test_a_score_that_is_no_number_changes_nothing() -> None:
    test = SequentialTest(LAW, R, 10.0)
    assert run(test, [float("nan"), float("inf")]) == [0.0, 0.0] and test.baseline == LAW.mean
    assert np.isfinite(score(0.0, 1.0)) and np.isfinite(score(1.0, 0.0))


def test_a_room_that_always_looks_like_a_risk_adds_up_to_none() -> None:
    """A score 1.5 spreads above the mean of all cameras is this camera's baseline after some minutes."""
    test = SequentialTest(LAW, R, 4.0)
    evidence = run(test, (noise_alone(6000, 3, mean=-0.2)).tolist())
    assert test.baseline == pytest.approx(-0.2, abs=0.3)
    assert np.mean(np.array(evidence[3000:]) >= 4.0) < 0.01


@pytest.fixture(scope="module")
def law() -> ScoreLaw:
    """Calibrated on a day of pure noise and risks of ten releases."""
    normal = [noise_alone(6000, seed) for seed in range(14)]
    shape = np.convolve(np.r_[np.zeros(60), np.ones(10), np.zeros(20)], np.ones(R) / R, "valid")
    risks = [(noise_alone(len(shape), 100 + seed) + 5.0 * shape, 60.0) for seed in range(40)]
    return fit(Recorded(normal, risks), R, 1.0)


def test_the_law_is_that_of_the_scores(law: ScoreLaw) -> None:
    assert law.mean == pytest.approx(-2.0, abs=0.1) and law.spread == pytest.approx(1.0, abs=0.1)
    assert 1.0 < law.rise < 5.0
    rates = [point.false_per_day for point in law.points]
    assert rates == sorted(rates, reverse=True) and law.least < 2.5


@pytest.mark.parametrize("budget", [5.0, 20.0, 100.0])
def test_pure_noise_keeps_the_budget(law: ScoreLaw, budget: float) -> None:
    """Four other days of noise: no more than the budget, with three standard errors of a count."""
    point, days = law.at_most(budget), 4
    assert point is not None
    fresh = [noise_alone(6000, 1000 + seed) for seed in range(14 * days)]
    count = sum(len(raised(law, each, R, np.array([point.threshold]))[0]) for each in fresh)
    assert count <= days * budget + 3.0 * np.sqrt(days * budget)


def test_a_smaller_budget_costs_threshold_and_delay(law: ScoreLaw) -> None:
    loose, tight = law.at_most(100.0), law.at_most(5.0)
    assert loose is not None and tight is not None and law.at_most(law.least / 2) is None
    assert loose.threshold < tight.threshold and loose.found >= tight.found > 0.5
    assert loose.delay_p50_s <= tight.delay_p50_s


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(1.0, 8.0))
def test_all_thresholds_at_once_are_the_test_itself(seed: int, threshold: float) -> None:
    stream = noise_alone(300, seed) + 4.0 * (np.arange(300) % 90 < 15)
    test, turned = SequentialTest(LAW, R, threshold), list[int]()
    for index, each in enumerate(stream.tolist()):
        evidence = test.step(each, Moment(1, index + R, ALL))
        if not test.is_raised and evidence >= threshold:
            turned.append(index)
        test.is_raised = evidence >= threshold or (test.is_raised and evidence > 0.25 * threshold)
    assert raised(LAW, stream, R, np.array([threshold, 99.0]))[0] == turned


def test_a_risk_that_does_not_raise_its_score_is_refused() -> None:
    with pytest.raises(DataError, match="no rule can tell"):
        fit(Recorded([noise_alone(600, 1)], [(noise_alone(90, 2) - 3.0 * (np.arange(90) > 50), 60.0)]), R, 1.0)


# --- lying still


LOW = ScoreLaw(mean=-3.0, spread=2.0, rise=3.0, own_baseline=False)


def lies(fall: list[float], low: list[float], slots: int = 60) -> list[int]:
    test = LyingTest(SequentialTest(LOW, R, 5.0), 4.0, slots, R)
    said = [test.step(a, b, Moment(1, 7 + index, ALL)) for index, (a, b) in enumerate(zip(fall, low, strict=True))]
    return [index for index, each in enumerate(said) if each]


def test_who_stays_down_after_a_fall_lies_still_from_then_on() -> None:
    fall, low = [0.0] * 20 + [6.0] * 3 + [0.0] * 120, [-4.0] * 22 + [0.5] * 121
    found = lies(fall, low)
    assert found and 22 + 60 <= found[0] <= 22 + 70


def test_a_bed_without_a_fall_is_no_alert_however_long() -> None:
    assert lies([1.0] * 600, [2.0] * 600) == []


def test_who_gets_up_again_does_not_lie_still() -> None:
    fall = [0.0] * 20 + [6.0] * 3 + [0.0] * 200
    assert lies(fall, [-4.0] * 22 + [0.5] * 30 + [-5.0] * 171) == []
    assert lies(fall, [-4.0] * 60 + [2.0] * 163) == []  # lies down a while after a stumble


# --- the file


def calibration(**changes: Any) -> AlertCalibration:
    manifest = make_manifest()
    points = (OperatingPoint(2.0, 50.0, 0.9, 3.0, 6.0), OperatingPoint(4.0, 2.0, 0.0, float("nan"), float("nan")))
    laws = {"fall": dataclasses.replace(LAW, points=points)}
    values = {"checkpoint": manifest.hashes["checkpoint"], "sigma": str(manifest.sigma), "made_of": "x", "hours": 24.0}
    return AlertCalibration(**{**values, "laws": laws, **changes})


def test_a_saved_table_is_read_again(tmp_path: Path) -> None:
    calibration().save(tmp_path)
    found = AlertCalibration.load(tmp_path, make_manifest())
    assert found is not None and found.laws["fall"].points[0] == calibration().laws["fall"].points[0]
    assert found.laws["fall"].least == 2.0 and np.isnan(found.laws["fall"].points[1].delay_p50_s)
    assert AlertCalibration.load(tmp_path / "none", make_manifest()) is None


@pytest.mark.parametrize(
    ("changes", "hint"), [({"checkpoint": "d" * 64}, "these are others"), ({"sigma": "7/2"}, "the engine has")]
)
def test_a_table_of_others_is_refused(changes: dict[str, Any], hint: str, tmp_path: Path) -> None:
    calibration(**changes).save(tmp_path)
    with pytest.raises(CheckpointError, match=f"{hint}.*run: python -m calibration.alerts"):
        AlertCalibration.load(tmp_path, make_manifest())


@pytest.mark.parametrize(
    "damage",
    [
        lambda law: law.update(spread=0),
        lambda law: law.update(rise=None),
        lambda law: law.update(points=[]),
        lambda law: law["points"].reverse(),
        lambda law: law["points"][0].pop(),
        lambda law: law["points"][0].__setitem__(1, -1),
        lambda law: law["points"][0].__setitem__(2, 7),
    ],
)
def test_a_damaged_table_is_refused(damage: Any, tmp_path: Path) -> None:
    calibration().save(tmp_path)
    document = json.loads((tmp_path / FILE).read_text())
    damage(document["laws"]["fall"])
    (tmp_path / FILE).write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="unreadable"):
        AlertCalibration.load(tmp_path, make_manifest())
