"""The curves of alerts: they show the shipped tables, and the page's table says the same."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.broker import ROOT
from benchmarks.model import alert_curves
from benchmarks.model.alert_curves import BUDGETS, COMMAND, draw, tables
from familial.evaluate.sequential import OperatingPoint

SHIPPED = [ROOT / "checkpoints" / name for name in ("nano", "nano-research")]


def test_the_page_shows_the_picture_that_its_command_draws() -> None:
    kept = (ROOT / "docs" / "img" / "alerts.svg").read_text()
    cure = "run: python -m benchmarks.alert_curves --out docs/img/alerts.svg"
    assert kept == draw(tables(SHIPPED)) + "\n", cure


def test_the_page_names_what_the_shipped_tables_find_at_every_budget() -> None:
    page, known = (ROOT / "docs" / "alerts.md").read_text(), tables(SHIPPED)
    for budget in BUDGETS:
        cells = []
        for table in known.values():
            for label in ("fall", "fight"):
                point = table.laws[label].at_most(budget)
                assert point is not None
                cells.append(f"{point.found:.2f} ({point.delay_p50_s:.1f}, {point.delay_p90_s:.1f})")
        assert f"| {budget:g} | {' | '.join(cells)} |\n" in page


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    """The lines of a picture."""
    found = re.findall(r'<polyline points="([^"]*)"', svg)
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())] for line in found]


def test_a_row_has_a_line_for_each_label_and_percentile_and_a_dot_for_each_budget() -> None:
    table = tables(SHIPPED[:1])["nano"]
    steps = [(1.0, 1000.0, 1.0, 4.0, 8.0), (2.0, 50.0, 0.5, 4.0, 8.0), (3.0, 0.6, 0.0, math.nan, math.nan)]
    law = replace(table.laws["fall"], points=tuple(OperatingPoint(*step) for step in steps))
    lying = replace(law, direction=())
    svg = draw({"ours": replace(table, laws={"fall": law, "lying still": lying})})
    found, p50, p90 = points_of(svg)
    assert [len(line) for line in (found, p50, p90)] == [3, 2, 2]  # no delay where nothing is found
    assert found[0][0] > found[1][0] > found[2][0] and found[0][1] < found[1][1] < found[2][1]
    top, bottom = found[0][1], found[2][1]
    assert found[1][1] == pytest.approx((top + bottom) / 2)
    assert p50[0][1] == pytest.approx(bottom - (bottom - top) / 4) and p90[0][1] == pytest.approx((top + bottom) / 2)
    dots = svg.count('r="3.5"')
    assert dots == len(BUDGETS) + 2  # of 100 in each of the other lines
    words = " ".join(element.text or "" for element in ElementTree.fromstring(svg).iter())
    assert "ours: " in words and "goal" in words and "lying still" not in words


def test_a_checkpoint_without_a_table_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "alerts.svg"
    shutil.copytree(SHIPPED[0], tmp_path / "own", ignore=shutil.ignore_patterns("alert_calibration.json"))
    assert COMMAND.main(["--checkpoint", str(tmp_path / "own"), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "own: no alert_calibration.json; make it: python -m calibration.alerts" in error and not out.exists()


def test_a_table_without_false_alerts_is_drawn_within_the_panel() -> None:
    """A rate of 0 has no logarithm: the point is left out, not an error."""
    table = tables(SHIPPED[:1])["nano"]
    law = replace(
        table.laws["fall"], points=(OperatingPoint(1.0, 10.0, 0.5, 4.0, 8.0), OperatingPoint(2, 0, 0.5, 4, 8))
    )
    lines = points_of(draw({"ours": replace(table, laws={"fall": law})}))
    assert [len(line) for line in lines] == [1, 1, 1]
    assert alert_curves._LEFTS[0] < lines[0][0][0] < alert_curves._LEFTS[0] + alert_curves._WIDE
