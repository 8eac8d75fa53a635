"""Routing: the threshold keeps its guarantee, what waits is reconciled, no device is told."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.model import routing
from benchmarks.model.routing_policy import LINKS, Link, Routed, risk_controlled, simulate
from tests.support.source_tree import imports, python_files

LINK = Link(1000.0)


def units(rng: np.random.Generator, count: int) -> tuple[list[Any], list[Any]]:
    """Exits that differ more often, the less sure the edge's is."""
    confidence = [rng.uniform(0.3, 1.0, 20) for _ in range(count)]
    return confidence, [rng.uniform(size=20) > each for each in confidence]


def loss(confidence: list[Any], differs: list[Any], threshold: float) -> float:
    return float(np.mean([((c > threshold) & d).mean() for c, d in zip(confidence, differs, strict=True)]))


def test_the_threshold_is_the_least_that_the_theorem_allows() -> None:
    confidence, differs = units(np.random.default_rng(1), 50)
    found = risk_controlled(confidence, differs, 0.1)
    values = np.unique(np.concatenate([[0.0, 1.0], *confidence]))
    allowed = [t for t in values if (50 * loss(confidence, differs, t) + 1.0) / 51 <= 0.1]
    assert found == allowed[0] and 0.3 < found < 1.0


def test_in_expectation_no_more_is_lost_than_asked_for() -> None:
    rng, level, losses = np.random.default_rng(2), 0.05, list[float]()
    for _ in range(400):
        confidence, differs = units(rng, 100)
        threshold = risk_controlled(confidence[:99], differs[:99], level)
        losses.append(loss(confidence[99:], differs[99:], threshold))
    mean, error = float(np.mean(losses)), float(np.std(losses) / math.sqrt(len(losses)))
    assert 0.5 * level < mean < level + 4.0 * error


def test_too_few_units_leave_nothing_to_the_edge() -> None:
    confidence, differs = units(np.random.default_rng(3), 10)
    assert risk_controlled(confidence, differs, 0.05) == 1.0 and risk_controlled([], [], 0.5) == 1.0
    assert risk_controlled(confidence, [np.zeros(20, bool)] * 10, 0.2) == 0.0


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.0, 1.0), st.integers(1, 40), st.sampled_from(sorted(LINKS)))
def test_every_event_is_answered_once_or_given_up(seed: int, threshold: float, room: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    at_s, confidence = np.sort(rng.integers(0, 200, 300)), rng.uniform(size=300)
    routed = simulate(at_s, confidence, threshold, LINKS[name], 8000, room, 60, seed % 1000)
    assert (routed.asked == (confidence <= threshold)).all()
    assert np.isinf(routed.answered_s[~routed.asked]).all()
    came = routed.answered_s[np.isfinite(routed.answered_s)]
    assert (came >= LINKS[name].delay_s).all() and (came <= 60.0 + LINKS[name].delay_s).all()
    whole = simulate(at_s, confidence, threshold, LINKS[name], 8000, 300, 60, seed % 1000)
    assert np.isfinite(whole.answered_s).sum() >= len(came)


def one_a_second(link: Link, seconds: int, room: int = 100, confidence: float = 0.5) -> Routed:
    return simulate(np.arange(seconds), np.full(seconds, confidence), 0.5, link, 500, room, 600, 0)


def test_what_waited_for_an_outage_is_reconciled_after_it() -> None:
    routed = one_a_second(Link(1000.0, outage_s=20, every_s=60), 60)  # out from second 40 to 59
    assert (routed.answered_s[:40] < 1.0).all()
    late = routed.answered_s[40:60]
    assert np.isfinite(late).all() and late[0] >= 20.0 and (late[:-1] > 0.5).all()


def test_the_least_confident_keep_their_place() -> None:
    link, confidence = Link(1000.0, outage_s=20, every_s=20), np.linspace(0.4, 0.0, 10)
    out = Link(1e-9)
    assert np.isinf(simulate(np.arange(10), confidence, 0.5, out, 500, 3, 600, 0).answered_s).all()
    back = Link(1000.0, outage_s=12, every_s=20)  # out from second 8 to 19
    routed = simulate(np.arange(8, 18), confidence, 0.5, back, 500, 3, 600, 0)
    assert np.flatnonzero(np.isfinite(routed.answered_s)).tolist() == [7, 8, 9]
    assert np.isinf(simulate(np.arange(10), confidence, 0.5, link, 500, 3, 5, 0).answered_s).all()


def test_links_have_the_rate_and_the_outages_that_they_say() -> None:
    rates = LINKS["mobile, outages"].rates(300_000, 0)
    there = rates[np.arange(300_000) % 300 < 240]
    assert (rates[np.arange(300_000) % 300 >= 240] == 0.0).all() and there.mean() == pytest.approx(60e3, rel=0.15)
    assert (
        np.array_equal(rates, LINKS["mobile, outages"].rates(300_000, 0)) and LINK.rates(3, 0).tolist() == [1000.0] * 3
    )


def test_no_device_knows_of_routing() -> None:
    """What a device publishes cannot depend on it: nothing that runs there imports it, by whatever way."""
    found = [
        f"{path}:{line}"
        for path in python_files("wire", "edge_runtime", "export", "firmware_configs")
        for line, module in imports(path, path.read_text())
        if "routing" in module or module.split(".")[0] in ("benchmarks", "cloud_bridge")
    ]
    assert not found


def test_the_benchmark_says_whether_the_deeper_exit_earns_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert routing.COMMAND.main(["--rendered", "12", "--noise-samples", "2"]) == 0
    out = capsys.readouterr().out
    document = json.loads(out.splitlines()[-1])
    points = document["figures"]["points"]
    assert [point["asked"] for point in points] == sorted(point["asked"] for point in points)
    assert points[0]["asked"] == 0.0 == points[-1]["lost"] and points[-1]["asked"] == 1.0
    assert document["figures"]["links"].keys() == LINKS.keys() and "earn" in out
    for shares in document["figures"]["links"].values():
        assert shares["soon"] + shares["later"] + shares["never"] == pytest.approx(1.0) or shares["asked"] == 0.0
