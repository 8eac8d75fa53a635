"""A budget of false alerts: thresholds by the table, or an error with its cure; alerts by evidence, over restarts."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_bridge.alerts.budget import AlertBudget
from cloud_bridge.alerts.lifecycle import AlertBook
from cloud_bridge.alerts.rules import AlertRule
from familial.evaluate.lying import LYING_STILL
from familial.evaluate.sequential import AlertCalibration, Moment, OperatingPoint, ScoreLaw
from tests.support.bridge_factory import Harness, a_state, make_manifest, release
from tests.support.services import ROOT
from wire.errors import ConfigError
from wire.privacy.certificate import sigma_for

MANIFEST = make_manifest()
LABELS = MANIFEST.labels
POINTS = (
    OperatingPoint(2.0, 50.0, 0.9, 3.0, 6.0),
    OperatingPoint(4.0, 4.0, 0.7, 4.0, 8.0),
    OperatingPoint(6.0, 0.5, 0.3, 5.0, 9.0),
)
PERCENT = (0.06, *[0.0] * (MANIFEST.n - 1))  # the first coordinate, as `FakeMember` reads it: 50 is a score of 3
NOTHING = tuple([0.0] * MANIFEST.n)
LAWS = {
    "fall": ScoreLaw(0.3, 1.0, 2.0, POINTS, direction=PERCENT),
    "fight": ScoreLaw(0.3, 1.0, 2.0, POINTS, direction=NOTHING),
    LYING_STILL: ScoreLaw(-3.0, 2.0, 3.0, POINTS, own_baseline=False),
}
CALIBRATION = AlertCalibration("c" * 64, "1", "made up", 24.0, LAWS)
ALL = 255


def budget_of(calibration: AlertCalibration | None = CALIBRATION, **rule: Any) -> AlertBudget | None:
    return AlertBudget.of(AlertRule(**rule), calibration, LABELS, 8, 1.0, "checkpoints/x")


def made(**rule: Any) -> AlertBudget:
    budget = budget_of(**rule)
    assert budget is not None
    return budget


def test_a_number_is_shared_alike_by_all_risks() -> None:
    assert budget_of() is None
    assert {label: p.threshold for label, p in made(false_per_day=8).points.items()} == {"fall": 4.0, "fight": 4.0}
    assert made(false_per_day=12, long_lie_s=60).points.keys() == {"fall", "fight", LYING_STILL}


def test_a_table_gives_each_risk_its_own_and_the_others_none() -> None:
    points = made(false_per_day={"fall": 0.5}).points
    assert {label: point.threshold for label, point in points.items()} == {"fall": 6.0}


def test_the_cost_of_a_budget_is_told(caplog: pytest.LogCaptureFixture) -> None:
    budget = made(false_per_day={"fall": 4, "fight": 0.5})
    fall, fight = budget.told()
    assert fall.startswith("alert fall: at most 4 false a day, evidence 4.00")
    assert "70% found, delay 4.0 s (p50), 8.0 s (p90)" in fall
    budget.warn()
    assert "alert fight: with this budget only 30 %" in caplog.text and "alert fall" not in caplog.text
    assert "at most 0.5 false a day" in fight


@pytest.mark.parametrize(
    ("rule", "calibration", "hint"),
    [
        ({"false_per_day": 0.2}, CALIBRATION, r"for fall is 0.1, but 24 hours of calibration support 0.5 at least"),
        ({"false_per_day": 1}, None, "checkpoints/x has no table of alerts; run python -m calibration.alerts"),
        (
            {"false_per_day": {"flood": 1}},
            CALIBRATION,
            "false_per_day.flood: there is no such risk; there are",
        ),
        ({"false_per_day": {LYING_STILL: 1}}, CALIBRATION, "it needs long_lie_s"),
        ({"false_per_day": {"fall": 1}, "long_lie_s": 60}, CALIBRATION, "no budget for .lying still."),
        (
            {"false_per_day": 3, "long_lie_s": 60},
            dataclasses.replace(CALIBRATION, laws={label: LAWS[label] for label in ("fall", "fight")}),
            "does not tell who lies",
        ),
        ({"false_per_day": 3}, dataclasses.replace(CALIBRATION, laws={"fall": LAWS["fall"]}), "the table has no fight"),
    ],
)
def test_a_budget_that_the_table_cannot_support_is_refused(
    rule: dict[str, Any], calibration: AlertCalibration | None, hint: str
) -> None:
    with pytest.raises(ConfigError, match=hint):
        budget_of(calibration, **rule)


class Stream:
    """Releases whose score says a fall with some probability, read event by event."""

    def __init__(
        self, budget: AlertBudget, raised: list[str] | None = None, kept: dict[str, int] | None = None
    ) -> None:
        self.raised = [] if raised is None else raised
        self.book = AlertBook(AlertRule(), self.raised, kept or {}, budget)
        self._past = [0.05] * 7

    def changes(self, *fall: float, first: int = 7, low: float = 0.0) -> list[tuple[int, str, bool]]:
        out = list[tuple[int, str, bool]]()
        for slot, p in enumerate(fall, first):
            self._past = [*self._past[-7:], p]
            z = np.zeros((8, MANIFEST.n))
            z[:, 0] = 100.0 * np.array(self._past[::-1])
            said = {"normal": 1 - p, "fall": p, "fight": 0.0}
            at = Moment(1, slot, ALL, z)
            out += [(slot, c.label, c.raised) for c in self.book.update(said, {"low": low}, at)]
        return out


@pytest.mark.parametrize("checkpoint", ["nano", "nano-research"])
def test_the_budgets_of_the_page_are_those_that_the_shipped_tables_support(checkpoint: str) -> None:
    table = AlertCalibration.read(ROOT / "checkpoints" / checkpoint)
    page = (ROOT / "docs" / "alerts.md").read_text()
    example = page.split("```toml\n[alerts]\n")[1].split("```")[0].splitlines()
    words = page.split()
    for line in example:
        (rule,) = tomllib.loads(line.removeprefix("# or: ")).values()
        assert budget_of(table, false_per_day=rule) is not None
    least = float(words[words.index(f"`{checkpoint}`,") - 4])  # 0.41 a risk for `nano`, which
    assert budget_of(table, false_per_day=2 * least) is not None
    with pytest.raises(ConfigError, match="hours of calibration support 0"):
        budget_of(table, false_per_day=2 * (least - 0.02))


def test_the_smallest_budget_that_a_refusal_names_is_not_refused() -> None:
    *points, last = CALIBRATION.laws["fall"].points
    law = dataclasses.replace(CALIBRATION.laws["fall"], points=(*points, last._replace(false_per_day=0.3704)))
    table = dataclasses.replace(CALIBRATION, laws={**CALIBRATION.laws, "fall": law})
    with pytest.raises(ConfigError) as refused:
        budget_of(table, false_per_day={"fall": 0.37, "fight": 1})
    named = str(refused.value).split(" support ")[1].split(" at least")[0]
    assert named == "0.38"
    allowed = budget_of(table, false_per_day={"fall": float(named), "fight": 1})
    assert allowed is not None and next(iter(allowed.told())).startswith("alert fall: at most 0.38 false a day")


def test_evidence_raises_an_alert_and_its_falling_back_clears_it() -> None:
    stream = Stream(made(false_per_day={"fall": 4}))
    assert stream.changes(*[0.05] * 20) == []
    found = stream.changes(*[0.9] * 8, *[0.02] * 20, first=27)
    assert [(label, raised) for _, label, raised in found] == [("fall", True), ("fall", False)]
    assert found[0][0] < 27 + 8 < found[1][0] < 27 + 16


def test_one_loud_release_is_not_enough_for_a_small_budget() -> None:
    stream = Stream(made(false_per_day={"fall": 0.5}))
    assert stream.changes(*[0.05] * 20, 1.0, *[0.05] * 20) == []


@pytest.mark.parametrize("budget", [{"fall": 4}, {"fall": 4, "fight": 4}])
def test_a_fight_that_looks_a_little_like_a_fall_is_no_fall(budget: dict[str, float]) -> None:
    """Whether fights have a budget or not."""
    twice = tuple(2.0 * each for each in PERCENT)
    laws = LAWS | {"fight": ScoreLaw(0.6, 1.0, 2.0, POINTS, direction=twice)}
    made_of = budget_of(dataclasses.replace(CALIBRATION, laws=laws), false_per_day=budget)
    assert made_of is not None
    found = Stream(made_of).changes(*[0.05] * 20, *[0.45] * 8)
    assert [label for _, label, _ in found] == [label for label in budget if label == "fight"]


@pytest.mark.parametrize(("shortest", "labels"), [(4, {"fall"}), (0, {"fall", "fight"})])
def test_a_fall_is_no_fight_because_fights_rise_more(shortest: int, labels: set[str]) -> None:
    """Its score rises more as a fall; the higher rise of the fights' law alone gives them more evidence.

    A table from before (0) is read as it was made.
    """
    nearly = tuple(0.9 * each for each in PERCENT)
    laws = {
        "fall": ScoreLaw(0.3, 1.0, 1.0, POINTS, direction=PERCENT, shortest=shortest),
        "fight": ScoreLaw(0.27, 1.0, 2.0, POINTS, direction=nearly, shortest=shortest),
    }
    made_of = budget_of(dataclasses.replace(CALIBRATION, laws=laws), false_per_day={"fall": 4, "fight": 4})
    assert made_of is not None
    assert {label for _, label, _ in Stream(made_of).changes(*[0.05] * 20, *[0.6] * 8)} == labels


def test_what_the_verdict_says_is_no_evidence() -> None:
    """z is what was calibrated: a member that reads it otherwise, the edge's exit for one, changes nothing."""
    stream, z = Stream(made(false_per_day={"fall": 4})), np.zeros((8, MANIFEST.n))
    for slot in range(40):
        assert stream.book.update({"normal": 0.0, "fall": 1.0, "fight": 0.0}, {}, Moment(1, slot, ALL, z)) == []


def test_a_pause_neither_raises_nor_clears() -> None:
    budget = made(false_per_day={"fall": 4})
    stream = Stream(budget)
    stream.changes(*[0.05] * 9, *[0.9] * 7)
    assert stream.raised == ["fall"]
    stream.book.pause()
    assert stream.raised == ["fall"]
    fresh = Stream(budget, stream.raised, stream.book.in_a_row)  # a restart
    assert fresh.changes(*[0.01] * 40, first=301)[0][1:] == ("fall", False)


def test_the_baseline_of_a_camera_outlives_a_restart() -> None:
    budget = made(false_per_day={"fall": 4})
    stream = Stream(budget)
    stream.changes(*[0.2] * 400)
    kept = stream.book.in_a_row
    assert kept["fall baseline"] > 600 and AlertBook(AlertRule(), [], kept, budget).in_a_row == kept


def test_an_alert_without_a_budget_any_more_is_cleared() -> None:
    stream = Stream(made(false_per_day={"fall": 4}), ["fight", LYING_STILL, "stale"])
    assert stream.changes(0.1) and stream.raised == ["stale"]
    raised = [LYING_STILL]
    AlertBook(AlertRule(), raised).update({"normal": 0.9, "fall": 0.1, "fight": 0.0})
    assert raised == []


def test_who_lies_after_a_fall_is_an_alert_of_its_own() -> None:
    stream = Stream(made(false_per_day={"fall": 4, LYING_STILL: 4}, long_lie_s=60))
    stream.changes(*[0.05] * 20)
    stream.changes(*[0.9] * 8, first=27, low=0.3)
    found = stream.changes(*[0.03] * 100, first=35, low=0.6)
    lying = [(slot, raised) for slot, label, raised in found if label == LYING_STILL]
    assert len(lying) == 1 and lying[0][1] and 27 + 60 <= lying[0][0] <= 27 + 75
    assert (LYING_STILL, False) in [each[1:] for each in stream.changes(*[0.03] * 100, first=135, low=0.01)]


def test_the_bridge_raises_alerts_by_evidence(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, budget=made(false_per_day={"fall": 4}))
    values = [5] * 16 + [92] * 8 + [2] * 30
    harness.send(*(release(slot, value, manifest=MANIFEST) for slot, value in enumerate(values)))
    alerts = harness.alerts()
    assert [(a.label, a.raised) for a in alerts] == [("fall", True), ("fall", False)]
    assert 16 < alerts[0].slot < 24 and harness.open_alerts() == ["fall", ""]


def test_a_budget_finds_risks_at_the_noise_of_a_quieter_profile_too(tmp_path: Path) -> None:
    """An order can set `strict`: each release then says less, and none of it is taken for nothing."""
    levels = dataclasses.replace(MANIFEST, levels={"strict": sigma_for(64, 2.0)})
    harness = Harness(tmp_path, levels, budget=made(false_per_day={"fall": 4}))
    values = [5] * 16 + [40] * 8 + [2] * 30
    sent = [release(slot, value, manifest=levels, level=0) for slot, value in enumerate(values)]
    assert levels.sigmas[0] == levels.levels["strict"]
    harness.send(*sent)
    assert [(a.label, a.raised) for a in harness.alerts()] == [("fall", True), ("fall", False)]


def test_what_lies_before_a_silence_is_no_evidence_after_it(tmp_path: Path) -> None:
    """Four seconds of a likely fall before a silence and three after it are not seven."""
    for first, found in ((100, []), (20, ["fall"])):
        harness = Harness(tmp_path / str(first), MANIFEST, budget=made(false_per_day={"fall": 4}))
        harness.send(*(release(slot, 5, manifest=MANIFEST) for slot in range(16)))
        harness.send(*(release(slot, 32, manifest=MANIFEST) for slot in range(16, 20)))
        harness.send(*(release(slot, 32, manifest=MANIFEST) for slot in range(first, first + 3)))
        assert [alert.label for alert in harness.alerts()] == found


def test_a_late_stream_neither_raises_nor_clears(tmp_path: Path) -> None:
    harness = Harness(tmp_path, MANIFEST, budget=made(false_per_day={"fall": 4}))
    harness.now_s = 10_000.0
    values = [5] * 16 + [92] * 20
    harness.send(*(release(slot, value, manifest=MANIFEST, time_s=60) for slot, value in enumerate(values)))
    assert "fall" not in [alert.label for alert in harness.alerts()]
    harness.send(a_state("online", time_s=10_000), name="state")
    assert np.all([alert.label == "late" for alert in harness.alerts()])
