"""Bounds that people read: rounded up, and in README and docs exactly what the generator prints now."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.bounds import blocks, fill, main, of_checkpoint, of_engine
from tests.support.engine_factory import make_engine
from tests.support.services import ROOT as PROJECT
from wire.artifact.manifest import EngineManifest
from wire.errors import CertificateError, DataError
from wire.privacy.certificate import GALLERIES, PASSED, PROFILES, Certificate, guess_bound, round_up

ROOT = Path(__file__).resolve().parents[3]
CURE = "run: python -m calibration.bounds --write README.md docs/*.md docs/assurance/*.md"
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.name != "log.md")]


# --- rounding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (6.43489, "6.44"),
        (0.463973, "0.464"),
        (0.818527, "0.819"),
        (0.0293054, "0.0294"),
        (0.197106, "0.198"),
        (2.99975, "3.00"),
        (3.0, "3"),
        (0.198, "0.198"),
        (1.0, "1"),
        (0.99999, "1.00"),
        (0.0, "0"),
        (70123.4, "70200"),
        (9.999, "10.0"),
        (1e-7, "0.0000001"),
    ],
)
def test_a_bound_is_rounded_up(value: float, text: str) -> None:
    assert round_up(value) == text


@given(st.floats(0.0, 1e12), st.integers(1, 9))
def test_a_rounded_bound_is_never_below_the_value_and_less_than_one_unit_above(value: float, digits: int) -> None:
    text = round_up(value, digits)
    assert float(text) >= value
    exact = Decimal(repr(value))
    unit = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    assert 0 <= Decimal(text) - exact < unit or value == 0
    assert len(text.replace(".", "").strip("0")) <= digits


@given(st.floats(0.0, 1.0), st.integers(1, 9))
def test_a_rounded_probability_is_a_probability(p: float, digits: int) -> None:
    assert p <= float(round_up(p, digits)) <= 1.0


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_bound_without_a_number_is_refused(value: float) -> None:
    with pytest.raises(CertificateError, match="only a finite one"):
        round_up(value)


# --- the generator ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> tuple[str, dict[str, Certificate]]:
    return of_checkpoint(ROOT / "checkpoints" / "nano")


@pytest.fixture(scope="module")
def made(shipped: tuple[str, dict[str, Certificate]]) -> dict[str, str]:
    return blocks(*shipped)


def test_blocks_are_the_certificate_rounded_up(
    shipped: tuple[str, dict[str, Certificate]], made: dict[str, str]
) -> None:
    certificate = shipped[1]["balanced"]
    for span, releases in (("release", 1), ("event", 8)):
        row = certificate.reveals(releases)
        exact = {"S": row["S"], "bits": row["bits"]} | {str(m): row["name_one_of"][str(m)] for m in GALLERIES}
        for name, value in exact.items():
            assert value <= float(made[f"{span}-{name}"]) <= value * 1.01
    assert made["event-bits"] == "6.44" and made["event-1000"] == "0.464"
    assert made["passed-1000"] == "after 18 s" and made["passed-10"] == "after 3 s"
    assert (
        made["profiles"].count("\n") == 1 + len(PROFILES)
        and "| `balanced` (default) | 3.00 | 6.44 |" in made["profiles"]
    )
    assert made["time"].count("\n") == 1 + len(PROFILES) * len(GALLERIES)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("gallery", GALLERIES)
def test_time_in_view_is_where_the_bound_passes_the_level(
    shipped: tuple[str, dict[str, Certificate]], profile: str, gallery: int
) -> None:
    certificate = shipped[1][profile]
    times = [certificate.time_in_view_s(gallery, level) for level in PASSED]
    assert times == sorted(times)
    for seconds, level in zip(times, PASSED, strict=True):
        after = guess_bound(certificate.shift(certificate.releases_touched(seconds + 0.5)), 1 / gallery)
        assert after > level
        if seconds:
            until = guess_bound(certificate.shift(certificate.releases_touched(seconds)), 1 / gallery)
            assert until <= level


def test_an_engine_has_its_own_bounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = make_engine(tmp_path)
    profile, certificates = of_engine(tmp_path)
    assert profile == manifest.profile and certificates[profile] == manifest.certificate()
    assert main(["--engine", str(tmp_path)]) == 0
    assert blocks(profile, certificates)["profiles"] in capsys.readouterr().out


def test_bounds_of_a_smaller_noise_are_larger() -> None:
    quiet, loud = (Certificate(64, Fraction(sigma), 64, 1.0, 7.9) for sigma in (181, 61))
    assert float(blocks("a", {"a": quiet})["event-bits"]) < float(blocks("a", {"a": loud})["event-bits"])


def test_blocks_of_a_file_are_filled(tmp_path: Path, made: dict[str, str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "At most <!-- bounds:event-bits -->1<!-- /bounds --> bits.\n\n<!-- bounds:naming -->\n<!-- /bounds -->\n"
    )
    assert main(["--checkpoint", str(ROOT / "checkpoints" / "nano"), "--write", str(page)]) == 0
    text = page.read_text()
    assert "At most <!-- bounds:event-bits -->6.44<!-- /bounds --> bits." in text
    assert f"<!-- bounds:naming -->\n{made['naming']}\n<!-- /bounds -->" in text
    assert fill(text, made, "page") == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("is <!-- bounds:event-nats -->1<!-- /bounds -->", "'bounds:event-nats' is unknown; expected one of profiles"),
        ("is <!-- bounds:event-bits -->1", "write each block as"),
        ("a\n<!-- bounds:event-bits -->1<!-- /bounds --> bits", "starts a line"),
    ],
)
def test_a_wrong_block_is_refused_with_the_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert main(["--checkpoint", str(ROOT / "checkpoints" / "nano"), "--write", str(page)]) == 1
    assert said in capsys.readouterr().err
    assert page.read_text() == text


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ["--checkpoint", str(ROOT / "checkpoints" / "nano")]
    assert main([*source, "--write", str(tmp_path / "none.md")]) == 1
    assert "none.md: cannot be read" in capsys.readouterr().err


# --- README and docs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_bounds_in_the_docs_are_what_the_certificate_says_now(page: Path, made: dict[str, str]) -> None:
    text = page.read_text()
    assert fill(text, made, page.name) == text, CURE


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("README.md", {"event-bits", "event-1000", "profiles"}),
        ("docs/privacy.md", {"event-bits", "event-1000", "naming", "time"}),
    ],
)
def test_the_promise_is_generated_wherever_it_is_made(page: str, names: set[str]) -> None:
    there = set(re.findall(r"<!-- bounds:([\w-]+) -->", (ROOT / page).read_text()))
    assert names <= there, f"{page}: put <!-- bounds:NAME --> <!-- /bounds --> of {sorted(names - there)}; {CURE}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_bound_in_the_docs_is_rounded_down(page: Path) -> None:
    """These were: 6.49128 as 6.49, 0.723043 as 0.723, 0.0293054 as 0.029, 0.197106 as 0.197."""
    said = re.search(r"(6\.49) bits|(?:at most|chance of|p <=) (6\.49|0\.723|0\.029|0\.197)\b", page.read_text())
    assert not said, f"{page.name} says {said and said[0]!r}; use a block, then {CURE}"


def test_an_unknown_block_is_named() -> None:
    with pytest.raises(DataError, match="unknown"):
        fill("is <!-- bounds:x -->1<!-- /bounds -->", {}, "page")


@pytest.mark.parametrize(
    ("start", "releases"), [("| S^2 of one", 1), ("| of an event", 8), ("18 rel", 18), ("308 rel", 308)]
)
def test_the_table_of_the_adaptive_level_is_rounded_up(start: str, releases: int, shipped_engine: Path) -> None:
    manifest = EngineManifest.load(shipped_engine)
    page = (PROJECT / "docs" / "adaptive-level.md").read_text()
    row = next(line for line in page.split("\n") if line.startswith("|") and start in line)
    stated = [float(cell) for cell in row.strip("|").split("|")[1:]]
    spent = [manifest.certificate(adaptive).spends(releases) for adaptive in (False, True)]
    for said, true in zip(stated, spent, strict=True):
        assert true <= said <= float(round_up(float(true))) + 1e-9, f"{row}: {round_up(float(true))}"


def test_the_budgets_of_the_configuration_page_are_rounded_up(shipped_engine: Path) -> None:
    manifest = EngineManifest.load(shipped_engine)
    page = " ".join((PROJECT / "docs" / "configuration.md").read_text().split())
    found = re.search(
        r"an hour spends ([\d,]+) bits and a day ([\d,]+), so the day's budget covers the first ([\d,]+) s", page
    )
    assert found, "docs/configuration.md: say what an hour and a day spend"
    hour, day, covered = (int(group.replace(",", "")) for group in found.groups())
    per_release = float(manifest.certificate().spends(1)) / (2 * math.log(2))
    assert (hour, day) == (math.ceil(3600 * per_release), math.ceil(86_400 * per_release))
    assert covered == math.floor(30_000 / per_release)
