"""Alerts measured and calibrated: a minute of life end to end, and tables that are those of what was read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.model import alarms
from calibration import alerts as command
from calibration.alerts import calibrate
from familial.evaluate import life
from familial.evaluate.life import Block, Kind, Said, strung
from familial.evaluate.life_readings import Readings, Risk, looped
from familial.evaluate.lying import LYING_STILL
from familial.evaluate.sequential import FILE, AlertCalibration
from familial.model.checkpoint import checkpoint_hash, save
from familial.model.family import Family
from familial.train.attributes import with_attributes
from tests.support.family_factory import make_family, small_config
from tests.support.loop_factory import a_clip
from wire.protocol.event import level_weight

LABELS, R = ("normal", "fall", "fight"), 8


def a_family() -> Family:
    """Untrained, with attributes."""
    torch.manual_seed(0)
    return Family(with_attributes(small_config())).eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save(make_family(), folder)
    (folder / "noise.json").write_text('{"profile": "balanced", "sigma": "1931/32", "levels": {}}')
    return folder


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kinds of life, clips of 20 s."""
    monkeypatch.setattr(life, "DAY", {"empty": Kind(0.5, ("empty",), still=True), "walks": Kind(0.5, ("walk",))})
    monkeypatch.setattr(life, "_MINUTE", 20.0)


def a_manifest(folder: Path) -> Path:
    rows = ["file,label,set,group,note,onset_s"]
    for index, label in enumerate(("normal", "fall", "normal", "fight")):
        a_clip(folder / f"{index}.mp4", 3.0)
        rows.append(f"{index}.mp4,{label},home,{index},,{1.0 if label == 'fall' else ''}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


SMALL = ["--hours", "0.03", "--rooms", "2", "--risks", "1"]


@pytest.mark.usefixtures("short")
def test_a_minute_of_life_is_measured_end_to_end(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(a_manifest(tmp_path)), "--noise-samples", "1"]
    assert alarms.COMMAND.main(["--checkpoint", str(checkpoint), *SMALL, *data]) == 0
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["name"] == "alarms"
    figures = document["figures"]
    for source in ("rendered", "real"):
        assert sum(figures[source]["hours"].values()) == pytest.approx(0.03, rel=0.3)
        rules = figures[source]["rules"]
        assert {row["label"] for row in rules} == {"fall", "fight"}
        assert sum(row["rule"].startswith("budget") for row in rules) == 2 * 6
        assert all(row["false_per_day"] >= 0 and 0 <= row["found"] <= 1 for row in rules)
    assert set(figures["rendered"]["hours"]) == {"empty", "walks"} and set(figures["real"]["hours"]) == {"home"}


@pytest.mark.usefixtures("short")
def test_a_fold_is_measured_on_the_clips_that_it_left_out(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fold = tmp_path / "fold-0"
    shutil.copytree(checkpoint, fold)
    data = ["--data", str(a_manifest(tmp_path)), "--noise-samples", "1"]
    (fold / "left_out.json").write_text('["0.mp4", "1.mp4", "3.mp4"]')
    assert alarms.COMMAND.main(["--checkpoint", str(fold), *SMALL, *data, "--rooms", "0"]) == 0
    assert "real: 1 blocks of life, 2 risks" in capsys.readouterr().out
    (fold / "left_out.json").write_text("{")
    assert alarms.COMMAND.main(["--checkpoint", str(fold), *SMALL, *data, "--rooms", "0"]) == 2
    assert "left_out.json: unreadable" in capsys.readouterr().err
    assert alarms.COMMAND.main(["--checkpoint", str(checkpoint), "--rooms", "0"]) == 2
    assert "--rooms 0: give 1 or more" in capsys.readouterr().err


@pytest.mark.usefixtures("short")
def test_a_table_is_written_beside_the_weights(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--checkpoint", str(checkpoint), *SMALL]) == 0
    found = AlertCalibration.read(checkpoint)
    assert found is not None and found.sigma == "1931/32" and found.hours == pytest.approx(0.03, rel=0.3)
    assert "lying still: no table: the checkpoint has no attribute low" in capsys.readouterr().out


@pytest.mark.usefixtures("short")
def test_another_profile_is_measured_by_the_table_of_the_own_one(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "made"
    shutil.copytree(checkpoint, folder)
    (folder / FILE).unlink(missing_ok=True)
    run = ["--checkpoint", str(folder), *SMALL, "--noise-samples", "1", "--profile", "strict"]
    assert alarms.COMMAND.main(run) == 2
    assert f"has no table for its weights and member; run python -m calibration.alerts --checkpoint {folder}" in (
        capsys.readouterr().err
    )
    assert command.main(["--checkpoint", str(folder), *SMALL]) == 0
    capsys.readouterr()
    assert alarms.COMMAND.main(run) == 0
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1])["figures"]["profile"] == "strict"
    assert "thresholds by the checkpoint's table" in out


def test_another_profile_s_noise_is_read_as_the_bridge_reads_it() -> None:
    """Scores are those of the release before its weight; what the member reads is weighed."""
    family, codes = make_family(), torch.zeros(2000, 4, 16)
    family_reads, seen = life._read, list[torch.Tensor]()

    def read(own: Family, events: torch.Tensor, member: str) -> tuple[Any, Any]:
        seen.append(events)
        return family_reads(own, events[:1], member)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(life, "_read", read)
        said = life.read(family, codes, 90.0, "edge", torch.Generator().manual_seed(0), own_sigma=60.0)
    assert said.noise == 1.5 and said.scores.std() == pytest.approx(1.5, rel=0.05)
    assert float(torch.cat(seen).std()) == pytest.approx(90.0 * level_weight(60.0, 90.0), rel=0.02)


@pytest.mark.usefixtures("short")
def test_a_family_that_sees_people_has_a_table_too(tmp_path: Path) -> None:
    save(make_family(sees_people=True), tmp_path)
    (tmp_path / "noise.json").write_text('{"profile": "balanced", "sigma": "1931/32", "levels": {}}')
    assert command.main(["--checkpoint", str(tmp_path), *SMALL]) == 0
    assert AlertCalibration.read(tmp_path) is not None


def test_a_table_of_own_clips_is_made_by_the_families_that_left_them_out(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(a_manifest(tmp_path)), "--hours", "0.1"]
    folds = tmp_path / "folds"
    for number, names in enumerate((["0.mp4", "1.mp4"], ["2.mp4", "3.mp4"])):
        shutil.copytree(checkpoint, folds / f"fold-{number}")
        (folds / f"fold-{number}/left_out.json").write_text(json.dumps(names))
    made = tmp_path / "made"
    shutil.copytree(checkpoint, made)
    assert command.main(["--checkpoint", str(made), *data, "--folds", str(folds)]) == 0
    found = AlertCalibration.read(made)
    assert found is not None and found.checkpoint == checkpoint_hash(made)
    assert found.made_of == "4 clips, each read by the one of 2 families that left it out"
    for options, hint in ((data, "go together"), (["--folds", str(folds)], "go together")):
        assert command.main(["--checkpoint", str(made), *options]) == 2
        assert hint in capsys.readouterr().err
    save(a_family(), folds / "fold-1")
    assert command.main(["--checkpoint", str(made), *data, "--folds", str(folds)]) == 2
    assert "--folds: attributes of fold 1 is" in capsys.readouterr().err


def test_a_checkpoint_that_is_missing_ends_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--checkpoint", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def said(fall: np.ndarray[Any, Any], low: np.ndarray[Any, Any], fight: float = 0.0) -> Said:
    """Of releases with scores `fall` (N,), and shares of attributes with log odds `low` (N,) in whole events."""
    events, low = len(fall) - R + 1, low[R - 1 :]
    share = 1.0 / (1.0 + np.exp(-low))
    others = np.repeat((1.0 - share)[:, None] / 4.0, 4, axis=1)
    labels = np.tile([0.9, 0.05, 0.05], (events, 1))
    scores = np.stack([fall, np.random.default_rng(len(fall)).normal(0.0, 1.0, len(fall)) + fight], axis=1)
    return Said(labels, np.insert(others, 3, share, axis=1), scores)


def made_up_readings() -> Readings:
    """Normal life of six cameras, falls, and falls after which somebody stays down for minutes."""
    rng = np.random.default_rng(0)
    normal = [said(rng.normal(-3, 1, 2000), rng.normal(-3, 1, 2000)) for _ in range(6)]
    risks = list[Risk]()
    for index in range(24):
        stays, events = index % 2 == 0, 260
        on = np.arange(events) >= 60
        fall = rng.normal(-3, 1, events) + 2.0 * (on & (np.arange(events) < 70))
        low = rng.normal(-3, 1, events) + 3.0 * (on & stays)
        risks.append(Risk(LYING_STILL if stays else "fall", 60.0, said(fall, low)))
        risks.append(Risk("fight", 60.0, said(rng.normal(-3, 1, 90), rng.normal(-3, 1, 90), -1.0)))
    return Readings(normal, [np.full(2000 - R + 1, "walks")] * 6, risks)


def test_tables_say_what_is_found_and_what_cannot_be() -> None:
    made, lacking = calibrate(made_up_readings(), a_family(), "c" * 64, "1", "made up")
    assert "fight" in lacking and "no rule can tell" in lacking["fight"]
    fall, lying = made.laws["fall"].at_most(100.0), made.laws[LYING_STILL].at_most(24.0)
    assert fall is not None and fall.found > 0.9 and 0 < fall.delay_p50_s < 10
    assert lying is not None and lying.found > 0.9 and 60 <= lying.delay_p50_s < 100
    assert not made.laws[LYING_STILL].own_baseline


def test_the_benchmark_counts_what_the_bridge_would_raise() -> None:
    """At the laws of the tables: lying still is found in most, and normal life keeps the budget."""
    readings, family = made_up_readings(), a_family()
    made, _ = calibrate(readings, family, "", "1", "")
    half = alarms._Half(
        list(zip(readings.normal, readings.kinds, strict=True)),
        readings.risks,
        dict(made.laws),
    )
    outcomes = {
        (o.label, o.budget): o
        for o in [*alarms._lying([half], family.config), *alarms._tried([half], family.config, "fall")]
        if o.budget > 0
    }
    hours = sum(alarms._hours([half], family.config).values())
    for label in ("fall", LYING_STILL):
        outcome = outcomes[label, 100.0]
        assert np.mean(np.isfinite(outcome.delays)) > 0.9
        assert len(outcome.false) / hours * 24.0 <= 100.0


def test_life_is_strung_by_the_shares_of_a_day() -> None:
    blocks = [
        Block(kind, torch.full((50, 4, 16), float(number)), source)
        for number, kind in enumerate(("empty", "walks"))
        for source in ("room 1", "room 2")
    ]
    streams = strung(blocks, 8000, np.random.default_rng(0), {"empty": 0.75, "walks": 0.25, "never": 9.0})
    assert [len(stream.codes) for stream in streams] == [4000, 4000]
    for stream in streams:
        assert (stream.kinds == "empty").mean() == pytest.approx(0.75, abs=0.01)
        assert ((stream.codes[:, 0, 0] == 1.0).numpy() == (stream.kinds == "walks")).all()


def test_a_fall_is_looped_only_where_somebody_stays_down() -> None:
    codes = torch.arange(20.0)[:, None, None].expand(20, 4, 16)
    fall = Block("fall", codes, "room 1", 4.0, (12, 20))
    stays = looped(fall, 1.0)
    assert stays is not None and stays.kind == LYING_STILL and len(stays.codes) >= 20 + 180
    assert stays.codes[20:, 0, 0].min() == 12.0
    assert looped(Block("fall", codes, "room 1", 4.0), 1.0) is None
