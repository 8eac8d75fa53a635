"""Arithmetic of the accuracy benchmarks: ideal codes, leakage read from an audit, alerts of a stream."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.model import attributes, curves
from benchmarks.model.alarms import alerts
from benchmarks.privacy.frontier import _exact, _leaks, label_alone
from cloud_bridge.alerts.rules import AlertRule
from familial.data.clips import Clip
from familial.model.code_space import prototypes
from familial.synth.truth import ATTRIBUTES
from wire.errors import DataError, VeilsightError


def test_ideal_codes_reach_the_known_ceiling() -> None:
    """Three labels with class prototypes 147, 140 and 73 degrees apart.

    At S = 2.83 of one event an exact classifier is right in about 0.962, as the three distances give, and separates
    risks from normal in 0.995.
    """
    made, right, alarmed = prototypes(3, 4, 16, 63.0), [], []
    sigma = 8**0.5 * 64 / 2.83
    for label in range(3):
        z = made[label].expand(4000, 8, 4, 16)
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(label)) * sigma
        said = _exact(z + noise, made, sigma, 8).argmax(axis=1)
        right.append(float((said == label).mean()))
        alarmed.append(float(((said > 0) == (label > 0)).mean()))
    assert 0.955 < float(np.mean(right)) < 0.97
    assert 0.99 < float(np.mean(alarmed)) < 0.999


def test_leakage_is_read_from_an_audit(tmp_path: Path) -> None:
    rows = [
        {"attack": "naming", "name": "place, from an event", "S_event": 3, "value": 0.2},
        {"attack": "naming", "name": "place, from a release", "S_event": 3, "value": 0.1},
        {"attack": "norm", "name": "fp32"},
    ]
    (tmp_path / "audit.json").write_text(json.dumps({"attacks": rows}))
    assert _leaks(tmp_path / "audit.json") == {"place": {3.0: 0.2}}
    with pytest.raises(VeilsightError, match="calibration.audit"):
        _leaks(tmp_path / "none.json")


def test_alerts_of_a_stream_are_those_of_the_bridge() -> None:
    """Raised once for two verdicts in a row, and again only after it was cleared."""
    falls = np.array([0.1, 0.7, 0.1, 0.7, 0.7, 0.9, 0.1, 0.1, 0.1, 0.1, 0.8, 0.8])
    verdicts = np.stack([1.0 - falls, falls], axis=1)
    assert alerts(verdicts, ("normal", "fall"), AlertRule(raise_at=0.6, raise_for=2)) == [(4, "fall"), (11, "fall")]
    assert alerts(verdicts, ("normal", "fall"), AlertRule(raise_at=0.95, raise_for=1)) == []


def columns(rows: list[tuple[Clip, int]]) -> tuple[list[Clip], list[int]]:
    """The clips and their labels."""
    return [clip for clip, _ in rows], [label for _, label in rows]


def test_the_label_alone_names_a_place_whose_labels_no_other_place_has() -> None:
    def clips(group: str, *labels: int) -> list[tuple[Clip, int]]:
        return [(Clip(Path("x"), "x", "", "made", group, ""), label) for label in labels]

    alike = clips("a", 0, 0, 1, 1) + clips("b", 0, 0, 1, 1)
    assert label_alone(*columns(alike)) == (0.5, 2)  # chance: the label says nothing of the place
    apart = clips("a", 0, 0, 0, 0) + clips("b", 1, 1, 1, 1) + clips("small", 2)
    assert label_alone(*columns(apart)) == (1.0, 2)
    assert label_alone([], []) == (0.0, 0)


def test_people_are_counted_by_the_likeliest_group_of_attributes() -> None:
    true = np.eye(5, dtype=np.float32)[[0, 1, 2, 3, 4, 1]]
    predicted = np.eye(5)[[0, 3, 2, 1, 2, 1]][None]  # one, low and running are all one person
    assert attributes._counts(ATTRIBUTES, true, predicted) == (5 / 6, 4 / 6)
    assert (
        attributes._area(true[:, 0], predicted[..., 0]) == 1.0
        and 0.4 < attributes._area(true[:, 4], predicted[..., 4]) < 0.6
    )


def test_a_curve_is_drawn_from_what_training_writes(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("step,seconds,clean,val_cloud\n10,30,1.5,\n20,60,0.5,0.75\n")
    drawn = curves.draw(path, ["clean", "val_cloud", "cloud"])
    assert drawn.count("<polyline") == 2 and "val_cloud" in drawn
    out = tmp_path / "curve.svg"
    assert curves.COMMAND.main([str(path), "--svg", str(out)]) == 0 and out.read_text().startswith("<svg")
    with pytest.raises(DataError, match="no row has any of"):
        curves.draw(path, ["cloud"])
    with pytest.raises(DataError, match="not a training curve"):
        curves.draw(tmp_path / "no.csv", ["clean"])
