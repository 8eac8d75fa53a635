"""The test behind alerts: an event is the sum of its releases, false alerts of pure noise keep the budget."""

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

from calibration.alert_tables import Evidence, Recorded, contested, evidence_of, fit, fit_lying, law_of, raised
from familial.evaluate.lying import CEILING, LyingTest, SequentialTest, score
from familial.evaluate.sequential import FILE, AlertCalibration, EventTest, Moment, OperatingPoint, ScoreLaw
from tests.support.bridge_factory import make_manifest
from wire.errors import CheckpointError, DataError
from wire.protocol.event import level_weight

R = 8
ALL = (1 << R) - 1  # every release is there
LAW = ScoreLaw(mean=-2.0, spread=1.0, rise=2.0, direction=(0.5, -0.25))
LOW = ScoreLaw(mean=-3.0, spread=2.0, rise=3.0, own_baseline=False)  # of "lying still"
Scores = npt.NDArray[np.float64]


def events(test: EventTest, scores: list[float], first: int = 0, boot: int = 1, present: int = ALL) -> list[float]:
    """The evidence of every whole event of consecutive releases."""
    windows = [scores[index : index + R][::-1] for index in range(len(scores) - R + 1)]
    return [test.step(each, Moment(boot, first + R - 1 + index, present)) for index, each in enumerate(windows)]


def noise_alone(releases: int, seed: int, mean: float = -2.0) -> Scores:
    """Scores (releases,) of nothing but noise, with standard deviation 1."""
    return np.random.default_rng(seed).normal(mean, 1.0, releases)


scores = st.lists(st.floats(-8, 8), min_size=R, max_size=40)


@settings(deadline=None)
@given(scores, st.integers(0, 39), st.floats(0, 5))
def test_evidence_is_monotone_in_every_score(row: list[float], at: int, more: float) -> None:
    """With the baseline held: a camera's own past is meant to take back a little."""
    law = dataclasses.replace(LAW, own_baseline=False)
    higher = [value + more * (index == at % len(row)) for index, value in enumerate(row)]
    low, high = (events(EventTest(law, R, 10.0), each) for each in (row, higher))
    assert all(a <= b + 1e-9 for a, b in zip(low, high, strict=True))


def test_an_event_is_the_sum_of_its_releases_and_no_more() -> None:
    law = dataclasses.replace(LAW, own_baseline=False)
    for evidence in events(EventTest(law, R, 1e9), [1.0] * 60):
        assert evidence == pytest.approx(R * law.increment(1.0, law.mean))


def test_what_was_before_a_risk_does_not_speak_against_it() -> None:
    """Five releases of a risk count as five, wherever in the event it began; fewer than half of an event as half."""
    law = dataclasses.replace(LAW, own_baseline=False, shortest=4)
    nothing, risk = law.increment(-2.0, law.mean), law.increment(1.0, law.mean)
    found = events(EventTest(law, R, 1e9), [-2.0] * 12 + [1.0] * 8 + [-2.0] * 8)
    at = found[12 - R + 1 :]  # of the event that ends with the first release of the risk, and so on
    assert at[:8] == pytest.approx([4 * nothing + k * (risk - nothing) if k < 4 else k * risk for k in range(1, 9)])
    whole = events(EventTest(dataclasses.replace(law, shortest=0), R, 1e9), [-2.0] * 12 + [1.0] * 8 + [-2.0] * 8)
    assert all(one >= other for one, other in zip(found, whole, strict=True)) and max(found) == max(whole)


def test_pure_noise_clears_an_alert_of_the_newest_releases_soon() -> None:
    law = dataclasses.replace(LAW, shortest=4)
    test = EventTest(law, R, 8.0)
    said = [-2.0] * 20 + [1.0] * R + noise_alone(40, 9).tolist()
    for index in range(len(said) - R + 1):
        test.step(said[index : index + R][::-1], Moment(1, index + R, ALL))
        if index == 20:
            assert test.raises
    assert test.clears


@given(st.integers(0, ALL))
def test_what_is_absent_counts_nothing(present: int) -> None:
    law = dataclasses.replace(LAW, own_baseline=False)
    test = EventTest(law, R, 10.0)
    evidence = test.step([2.0 if present >> age & 1 else 1e6 for age in range(R)], Moment(1, 20, present))
    assert evidence == pytest.approx(present.bit_count() * law.increment(2.0, law.mean))


def test_the_evidence_is_the_log_likelihood_ratio_of_gaussians() -> None:
    """Of scores about the baseline against scores that have risen, spread 1: to rounding."""
    row = noise_alone(R, 5).tolist()
    ratio = sum(((x + 2.0) ** 2 - (x + 2.0 - LAW.rise) ** 2) / 2.0 for x in row)
    assert EventTest(LAW, R, 10.0).step(row[::-1], Moment(1, 7, ALL)) == pytest.approx(ratio)


@given(st.lists(st.floats(0.5, 3.0), min_size=R, max_size=R))
def test_at_any_level_the_evidence_is_the_log_likelihood_ratio(noise: list[float]) -> None:
    """Each release has the noise of its level, and the same rise; spread 1, so there is nothing but noise."""
    sigma = np.array(noise)
    row = -2.0 + sigma * noise_alone(R, 7, 0.0)  # newest first, as `sigma`
    ratio = float(np.sum(((row + 2.0) ** 2 - (row + 2.0 - LAW.rise) ** 2) / (2.0 * sigma**2)))
    assert EventTest(LAW, R, 10.0).step(row.tolist(), Moment(1, 7, ALL), noise) == pytest.approx(ratio)


def test_scenes_are_as_various_at_any_level() -> None:
    law = dataclasses.replace(LAW, spread=1.5)
    assert [law.variance(noise) for noise in (1.0, 2.0, 0.5)] == pytest.approx([2.25, 1.25 + 4.0, 1.25 + 0.25])
    tight = dataclasses.replace(LAW, spread=0.5)  # less than the noise itself: a made-up law
    assert [tight.variance(noise) for noise in (1.0, 2.0, 0.1)] == pytest.approx([0.25, 1.0, 0.0025])


@pytest.mark.parametrize("noise", [1.5, 1.0, 0.75])
def test_a_release_is_read_before_the_weight_of_its_level(noise: float) -> None:
    """z comes multiplied by it (`level_weight`): unmade, a risk has risen as much at every level, and so has a room."""
    weights = np.full(R, level_weight(1.0, noise))
    fall, nothing = np.tile([2.0, 4.0], (R, 1)), np.tile([-2.0, 4.0], (R, 1))  # scores 0 and -2, the mean
    test = EventTest(LAW, R, 10.0)
    test.read(Moment(1, 7, ALL, nothing * weights[:, None], weights))
    assert test.baseline == pytest.approx(LAW.mean)
    found = test.read(Moment(1, 20, ALL, fall * weights[:, None], weights))
    assert found == pytest.approx(R * LAW.rise**2 / (2.0 * noise**2))


def test_a_table_counts_the_evidence_of_any_level_as_the_bridge_does() -> None:
    law, noise = dataclasses.replace(LAW, shortest=4), 1.5
    weight = level_weight(1.0, noise)
    row = noise_alone(40, 11) + 1.5 * np.sin(np.arange(40.0))
    test, weights = EventTest(law, R, 10.0), np.full(R, weight)
    z = np.stack([np.zeros(40), -4.0 * row * weight], axis=1)  # LAW projects the second column by -0.25
    found = [test.read(Moment(1, k + R - 1, ALL, z[k : k + R][::-1], weights)) for k in range(40 - R + 1)]
    assert found == pytest.approx(evidence_of(law, row, R, noise).nats.tolist())


@pytest.mark.parametrize("noise", [3.0, 1.5, 0.75])
def test_noise_alone_passes_the_threshold_of_any_level_as_often(noise: float) -> None:
    """A threshold that nothing passes in 2 % of independent events, and at this level nothing in 2 % as well."""
    law = dataclasses.replace(LAW, own_baseline=False, rise=0.6)
    row, levels = np.random.default_rng(3).normal(-2.0, 1.0, (2_000, R)), [noise] * R
    usual = np.array([law.event(each, -2.0).nats for each in row.tolist()])
    other = np.array([law.event(each, -2.0, levels).nats for each in (noise * (row + 2.0) - 2.0).tolist()])
    threshold = float(np.quantile(usual, 0.98))
    assert np.mean(other >= law.threshold_at(threshold, levels)) == pytest.approx(0.02, rel=0.1)
    assert law.threshold_at(threshold, [1.0] * R) == pytest.approx(threshold)


def test_what_would_clear_an_alert_raises_none_at_any_level() -> None:
    assert LAW.threshold_at(0.1, [0.25] * R) > 0.0
    test = EventTest(LAW, R, 0.1)
    test.step([-2.0 + LAW.rise / 2.0 - 0.01] * R, Moment(1, 7, ALL), [0.25] * R)
    assert test.clears and not test.raises


def test_a_louder_release_of_an_event_moves_its_threshold() -> None:
    """The bridge's own test: an event of one level and another, by what both give."""
    law = dataclasses.replace(LAW, own_baseline=False)
    noise = [2.0] * 4 + [1.0] * 4
    limit = law.threshold_at(6.0, noise)
    d, here = 2.0 * 8**0.5, 2.0 * 5**0.5
    assert limit == pytest.approx(here * (6.0 / d + d / 2 - here / 2))
    for evidence, raises in ((limit + 0.01, True), (limit - 0.01, False)):
        test = EventTest(law, R, 6.0)
        found = test.step([-2.0 + (evidence / here**2 + 0.5) * 2.0] * R, Moment(1, 7, ALL), noise)
        assert found == pytest.approx(evidence) and test.raises is raises


def test_of_two_risks_the_likelier_one_is_told_by_the_quieter_releases() -> None:
    law = dataclasses.replace(LAW, own_baseline=False, shortest=4)
    noise = [3.0] * 4 + [1.0] * 4
    early, late = (law.event(row, -2.0, noise).claim for row in ([0.0] * 4 + [-2.0] * 4, [0.0] * 8))
    assert early == pytest.approx(4 * 2.0 / 9.0) and late == pytest.approx(4 * 2.0 / 9.0 + 4 * 2.0)


def test_a_release_is_projected_on_the_direction_of_the_law() -> None:
    z = np.arange(2 * R).reshape(R, 2)
    read, stepped = EventTest(LAW, R, 10.0), EventTest(LAW, R, 10.0)
    assert read.read(Moment(1, 7, ALL, z)) == stepped.step((0.5 * z[:, 0] - 0.25 * z[:, 1]).tolist(), Moment(1, 7, ALL))
    for wrong in (None, z[:4], z[:, :1]):
        with pytest.raises(ValueError, match=r"give \(8, 2\)"):
            read.read(Moment(1, 8, ALL, wrong))


def test_a_repeated_or_older_event_changes_nothing() -> None:
    test = EventTest(LAW, R, 10.0)
    first, baseline = test.step([3.0] * R, Moment(1, 20, ALL)), test.baseline
    assert test.step([-9.0] * R, Moment(1, 20, ALL)) == test.step([9.0] * R, Moment(1, 12, ALL)) == first
    assert test.baseline == baseline
    assert test.step([-9.0] * R, Moment(2, 12, ALL)) < 0.0  # a new start counts its slots anew


def test_a_release_moves_the_baseline_once() -> None:
    once, again = EventTest(LAW, R, 10.0), EventTest(LAW, R, 10.0)
    events(once, [0.0] * 9)
    again.step([0.0] * R, Moment(1, 7, ALL))
    again.step([0.0] * R, Moment(1, 8, ALL))
    expected = LAW.mean
    for _ in range(9):
        expected += LAW.drift(0.0, expected)
    assert once.baseline == again.baseline == pytest.approx(expected)


def test_an_alert_is_cleared_by_what_speaks_against_it_alone() -> None:
    test = EventTest(LAW, R, 10.0)
    test.step([2.0] * R, Moment(1, 20, ALL))
    assert test.raises and not test.clears
    for present, clears in ((0b1, False), (0b111, False), (0b1111, True), (ALL, True)):
        test.step([-3.0] * R, Moment(1, 100 + present, present))
        assert not test.raises and test.clears is clears


def test_scores_that_are_no_number_count_nothing() -> None:
    test = EventTest(LAW, R, 10.0)
    assert events(test, [float("nan"), float("inf")] * R) == [0.0] * 9 and test.baseline == LAW.mean
    assert np.isfinite(score(0.0, 1.0)) and np.isfinite(score(1.0, 0.0))


def test_a_room_that_always_looks_like_a_risk_adds_up_to_none() -> None:
    """A score 1.2 above the mean of all cameras is this camera's baseline after some minutes."""
    test = EventTest(LAW, R, 4.0)
    evidence = events(test, noise_alone(6000, 3, mean=-0.8).tolist())
    assert test.baseline == pytest.approx(-0.8, abs=0.3)
    assert np.mean(np.array(evidence[3000:]) >= 4.0) < 0.01


@settings(deadline=None)
@given(st.lists(st.floats(-8, 8), min_size=1, max_size=40))
def test_low_evidence_stays_between_zero_and_the_ceiling(row: list[float]) -> None:
    test = SequentialTest(LOW, R, 3.0)
    assert all(0.0 <= test.step(x, Moment(1, 7 + k, ALL)) <= CEILING * 3.0 + 1e-9 for k, x in enumerate(row))


def test_a_verdict_of_who_is_low_counts_as_much_as_is_new_in_it() -> None:
    """A steady score over N + R - 1 releases gives (N + R - 1) / R events' worth, not N; gaps add nothing."""
    test = SequentialTest(LOW, R, 1e9)
    for index in range(25):
        evidence = test.step(3.0, Moment(1, 7 + index, ALL))
    assert evidence == pytest.approx((25 + R - 1) / R * LOW.increment(3.0, LOW.mean))
    assert test.step(3.0, Moment(1, 20, ALL)) == evidence
    assert test.step(-9.0, Moment(1, 90, ALL)) == 0.0  # after a gap it begins anew


@pytest.fixture(scope="module")
def law() -> ScoreLaw:
    """Calibrated on a day of pure noise and risks of eight releases."""
    normal = [noise_alone(6000, seed) for seed in range(14)]
    shape = np.r_[np.zeros(60), np.ones(8), np.zeros(20)]
    risks = [(noise_alone(len(shape), 100 + seed) + 2.0 * shape, 60.0) for seed in range(40)]
    recorded = Recorded(normal, risks)
    return fit(law_of(recorded, R, LAW.direction), recorded, R, 1.0)


def test_the_law_is_that_of_the_scores(law: ScoreLaw) -> None:
    assert law.mean == pytest.approx(-2.0, abs=0.1) and law.spread == pytest.approx(1.0, abs=0.1)
    assert law.rise == pytest.approx(2.0, abs=0.2) and law.direction == LAW.direction and law.shortest == R // 2
    rates = [point.false_per_day for point in law.points]
    assert rates == sorted(rates, reverse=True) and law.least < 2.5


@pytest.mark.parametrize("budget", [5.0, 20.0, 100.0])
def test_pure_noise_keeps_the_budget(law: ScoreLaw, budget: float) -> None:
    """Four other days of noise: no more than the budget, with three standard errors of a count."""
    point, days = law.at_most(budget), 4
    assert point is not None
    fresh = [noise_alone(6000, 1000 + seed) for seed in range(14 * days)]
    count = sum(len(raised(evidence_of(law, each, R).nats, np.array([point.threshold]))[0]) for each in fresh)
    assert count <= days * budget + 3.0 * np.sqrt(days * budget)


def test_a_smaller_budget_costs_threshold_and_delay(law: ScoreLaw) -> None:
    loose, tight = law.at_most(100.0), law.at_most(5.0)
    assert loose is not None and tight is not None and law.at_most(law.least / 2) is None
    assert loose.threshold < tight.threshold and loose.found >= tight.found > 0.5
    assert loose.delay_p50_s <= tight.delay_p50_s


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(1.0, 8.0), st.sampled_from([0, 1, 4, R]))
def test_all_thresholds_at_once_are_the_test_itself(seed: int, threshold: float, shortest: int) -> None:
    stream = noise_alone(300, seed) + 2.0 * (np.arange(300) % 90 < 15)
    law = dataclasses.replace(LAW, shortest=shortest)
    evidence, claims = evidence_of(law, stream, R)
    test, turned, is_raised = EventTest(law, R, threshold), list[int](), False
    for index, each in enumerate(evidence.tolist()):
        found = test.step(stream[index : index + R][::-1].tolist(), Moment(1, index + R, ALL))
        assert found == pytest.approx(each, abs=1e-9) and test.claim == pytest.approx(claims[index], abs=1e-9)
        if not is_raised and test.raises:
            turned.append(index)
        is_raised = not test.clears if is_raised else test.raises
    assert raised(evidence, np.array([threshold, 99.0]))[0] == turned


def test_a_risk_that_does_not_raise_its_score_is_refused() -> None:
    with pytest.raises(DataError, match="no rule can tell"):
        law_of(Recorded([noise_alone(600, 1)], [(noise_alone(90, 2) - 3.0 * (np.arange(90) > 50), 60.0)]), R)


def test_of_two_risks_the_one_with_the_larger_claim_is_raised() -> None:
    fall, fight = np.array([-1.0, 5.0, 7.0, 3.0, -2.0]), np.array([0.0, 4.0, 9.0, 9.0, 9.0])
    nats = np.array([-1.0, 5.0, 7.0, 3.0, -2.0])
    own = contested(Evidence(nats, fall), [Evidence(nats, fight)])
    assert raised(own, np.array([2.0])) == [[1]]
    assert raised(contested(Evidence(nats, fight), [Evidence(nats, fall)]), np.array([2.0])) == [[2]]
    assert own[3] > 0.0 and own[4] == -2.0  # a raised alert stays, and is cleared by what speaks against it


def test_a_risk_that_is_seen_less_well_claims_as_much_as_another() -> None:
    """The same scores: the law with the higher rise has more evidence, which says nothing of which risk it is."""
    laws = [dataclasses.replace(LAW, rise=rise, shortest=4) for rise in (1.0, 1.5)]
    here = [1.0] * R
    (weak, one), (strong, other) = (law.event(here, LAW.mean) for law in laws)
    assert strong > weak > 0.0 and one == other == pytest.approx(R * 3.0)
    whole = dataclasses.replace(LAW, shortest=0)
    assert len({*whole.event(here, LAW.mean)}) == 1  # tables from before compare evidence


def test_a_table_counts_what_a_rival_takes_as_not_found(law: ScoreLaw) -> None:
    """Risks that look more like another: their alerts are the other's, in normal life and in risks."""
    rng = np.random.default_rng(4)
    normal = [noise_alone(3000, seed) for seed in range(4)]
    shape = np.r_[np.zeros(60), np.ones(8), np.zeros(20)]
    risks = [(noise_alone(len(shape), 50 + seed) + 3.0 * shape, 60.0) for seed in range(20)]
    more = Recorded(normal, [(scores + 1.0 * shape + rng.normal(0, 0.1, len(shape)), at) for scores, at in risks])
    alone, beside = (fit(law, Recorded(normal, risks), R, 1.0, rivals) for rivals in ((), ((law, more),)))
    assert alone.points[0].found > 0.9 > 0.2 > beside.points[0].found
    assert beside.points[0].false_per_day <= alone.points[0].false_per_day


# --- lying still


def lies(fall: list[float], low: list[float], slots: int = 60) -> list[int]:
    test = LyingTest(SequentialTest(LOW, R, 5.0), slots, R)
    said = [
        test.step(a >= 4.0, b, Moment(1, 7 + index, ALL)) for index, (a, b) in enumerate(zip(fall, low, strict=True))
    ]
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


def test_a_threshold_that_finds_fewer_than_a_higher_one_is_not_in_the_table(law: ScoreLaw) -> None:
    """Now and then a verdict sees nobody low: it empties the evidence under a low threshold, not under a high one."""
    rng = np.random.default_rng(0)
    fell = np.r_[np.zeros(60), np.full(8, 3.0), np.zeros(200)]
    falls, low = list[tuple[Scores, float]](), list[tuple[Scores, float]]()
    for seed in range(40):
        down = np.arange(len(fell) - R + 1) >= 62
        seen = np.where(down, np.where(rng.random(len(down)) < 0.05, -6.0, 1.0), -4.0) + rng.normal(0, 0.3, len(down))
        falls.append((noise_alone(len(fell), 100 + seed) + fell, 60.0))
        low.append((seen, 60.0))
    normal = [noise_alone(6000, seed) for seed in range(6)]
    upright = [rng.normal(-4.0, 1.0, 6000 - R + 1) for _ in normal]
    made = fit_lying(law, Recorded(normal, falls), Recorded(upright, low), R, 1.0, 1.0, 60.0)
    found = [point.found for point in made.points]
    assert found == sorted(found, reverse=True) and found[0] > 0.8
    assert made.points[0].threshold > 0.5, "the lowest that is tried"


# --- the file


def calibration(**changes: Any) -> AlertCalibration:
    manifest = make_manifest()
    points = (OperatingPoint(2.0, 50.0, 0.9, 3.0, 6.0), OperatingPoint(4.0, 2.0, 0.0, float("nan"), float("nan")))
    laws = {"fall": dataclasses.replace(LAW, points=points, direction=(0.25,) * manifest.n, shortest=4)}
    values = {"checkpoint": manifest.hashes["checkpoint"], "sigma": str(manifest.sigma), "made_of": "x", "hours": 24.0}
    return AlertCalibration(**{**values, "laws": laws, **changes})


def test_a_table_from_before_sums_whole_events(tmp_path: Path) -> None:
    """Its thresholds are of that: with the newest releases alone it would raise more than it promises."""
    path = calibration().save(tmp_path)
    document = json.loads(path.read_text())
    del document["laws"]["fall"]["shortest"]
    path.write_text(json.dumps(document))
    found = AlertCalibration.load(tmp_path, make_manifest())
    assert found is not None and found.laws["fall"].shortest == 0


def test_a_saved_table_is_read_again(tmp_path: Path) -> None:
    calibration().save(tmp_path)
    found = AlertCalibration.load(tmp_path, make_manifest())
    assert found is not None and found.laws["fall"].points[0] == calibration().laws["fall"].points[0]
    assert found.laws["fall"].direction == calibration().laws["fall"].direction
    assert found.laws["fall"].shortest == 4
    assert found.laws["fall"].least == 2.0 and np.isnan(found.laws["fall"].points[1].delay_p50_s)
    assert AlertCalibration.load(tmp_path / "none", make_manifest()) is None


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"checkpoint": "d" * 64}, "these are others"),
        ({"sigma": "7/2"}, "the engine has"),
        (
            {"laws": {"fight": dataclasses.replace(calibration().laws["fall"], direction=(1.0, 2.0))}},
            "fight has a direction of 2, codes have",
        ),
        ({"laws": {"fall": dataclasses.replace(calibration().laws["fall"], shortest=9)}}, "fall sums 9 of the 8"),
    ],
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
        lambda law: law["direction"].append(float("nan")),
        lambda law: law.pop("direction"),
        lambda law: law.update(shortest=-1),
        lambda law: law.update(shortest=None),
        lambda law: law.update(shortest=float("inf")),
    ],
)
def test_a_damaged_table_is_refused(damage: Any, tmp_path: Path) -> None:
    calibration().save(tmp_path)
    document = json.loads((tmp_path / FILE).read_text())
    damage(document["laws"]["fall"])
    (tmp_path / FILE).write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="unreadable"):
        AlertCalibration.load(tmp_path, make_manifest())
