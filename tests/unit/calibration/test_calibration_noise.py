"""The noise table against an independent arithmetic, the search for the least noise, and the command."""

from __future__ import annotations

import decimal
import json
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.noise import GRID, Target, build_table, choose, least_sigma, main
from familial.model.config import nano
from tests.support.services import ROOT
from wire.errors import ConfigError, DataError
from wire.privacy.certificate import NOT_PROVED, PROFILES, Certificate, eps_at_delta, guess_bound, sigma_for
from wire.privacy.noise_table import NoiseTable

ONE = 1 << 128
SIGMAS = ("1/64", "1/3", "1", "7/2", "3862/64", "5793/64")


def entries(table: NoiseTable) -> list[int]:
    return [(int(high) << 64) | int(low) for high, low in zip(table.high, table.low, strict=True)]


def digits(sigma: Fraction) -> int:
    """Decimal digits that tell P(|X| <= 0) from 1, however narrow the noise."""
    return 90 + int(1 / sigma**2)


def pi() -> decimal.Decimal:
    """At the context's precision, by the iteration of Gauss and Legendre."""
    a, b, t, p = decimal.Decimal(1), decimal.Decimal("0.5").sqrt(), decimal.Decimal("0.25"), 1
    for _ in range(20):  # digits double at each step
        middle = (a + b) / 2
        b, t, p, a = (a * b).sqrt(), t - p * (a - middle) ** 2, 2 * p, middle
    return (a + b) ** 2 / (4 * t)


def probabilities(sigma: Fraction, count: int) -> list[decimal.Decimal]:
    """P(|round(g)| = j) for j < count, by the standard library's decimal instead of mpmath: erf by its power series."""
    with decimal.localcontext() as context:
        context.prec = digits(sigma)
        context.Emin, context.Emax = -(10**9), 10**9
        inside = [decimal.Decimal(0), *(_erf((k + Fraction(1, 2)) / sigma) for k in range(count))]
        return [later - earlier for earlier, later in zip(inside, inside[1:], strict=False)]


def _erf(x: Fraction) -> decimal.Decimal:
    """P(|g| < x) of the standard normal: sqrt(2/pi) e^(-x^2/2) (x + x^3/3 + x^5/(3 5) + ...), all terms positive."""
    at = decimal.Decimal(x.numerator) / decimal.Decimal(x.denominator)
    term = total = at
    k = 1
    while term > total.scaleb(-digits(1 / x)):
        k += 2
        term = term * at * at / k
        total += term
    return (2 / pi()).sqrt() * (-at * at / 2).exp() * total


@pytest.mark.parametrize("text", SIGMAS)
def test_every_entry_is_the_exact_floor(text: str) -> None:
    sigma = Fraction(text)
    found = entries(build_table(sigma))
    with decimal.localcontext() as context:
        context.prec = digits(sigma)
        total = decimal.Decimal(0)
        for entry, probability in zip(found, probabilities(sigma, len(found)), strict=True):
            total += probability
            scaled = total * ONE
            assert entry <= scaled < entry + 1


@pytest.mark.parametrize("text", SIGMAS)
def test_the_table_is_as_close_to_ideal_as_the_certificate_says(text: str) -> None:
    """Total variation of one noise sample is at most (J + 1) 2^-128, with J at most 13.5 sigma + 2."""
    sigma = Fraction(text)
    found = entries(build_table(sigma))
    assert len(found) <= 13.5 * float(sigma) + 2
    steps = np.diff([0, *found, ONE])  # Python integers: magnitude J takes what lies beyond the last entry
    ideal = probabilities(sigma, len(found) + 1)
    with decimal.localcontext() as context:
        context.prec = digits(sigma)
        context.Emin = -(10**9)
        apart = sum(abs(decimal.Decimal(int(step)) - p * ONE) for step, p in zip(steps, ideal, strict=True)) / 2
    assert apart <= len(found) + 1


def test_entries_increase_up_to_almost_one() -> None:
    found = entries(build_table(Fraction(3862, 64)))
    assert all(later > earlier for earlier, later in zip(found, found[1:], strict=False))
    assert ONE - 64 < found[-1] < ONE


def test_a_table_is_built_fast_and_reproducibly() -> None:
    started = time.thread_time()
    first = build_table(Fraction(3862, 64))
    assert time.thread_time() - started < 10.0  # it takes half a second of a common processor
    assert first.to_bytes() == build_table(Fraction(3862, 64)).to_bytes()


@pytest.mark.parametrize("sigma", [Fraction(0), Fraction(-1, 2)])
def test_a_sigma_that_is_not_positive_is_refused(sigma: Fraction) -> None:
    with pytest.raises(DataError, match="positive"):
        build_table(sigma)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint folder that holds nothing but its configuration."""
    nano(("a", "b")).save(tmp_path / "config.json")
    return tmp_path


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_a_profile_rounds_sigma_up(checkpoint: Path, profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--checkpoint", str(checkpoint), "--target", profile]) == 0
    written = json.loads((checkpoint / "noise.json").read_text())
    table = NoiseTable.load(checkpoint / "noise_table.bin")
    assert written["profile"] == profile
    assert Fraction(written["sigma"]) == table.sigma
    assert PROFILES[profile] * 0.999 < 64 * 8**0.5 / float(table.sigma) <= PROFILES[profile]
    assert "name 1 of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "unit", "value", "of", "span"),
    [
        ("2.5", "S", 2.5, 0.0, "event"),
        ("S=2.5/release", "S", 2.5, 0.0, "release"),
        ("bits=6.5/10s", "bits", 6.5, 0.0, 10.0),
        ("p=0.05@1000", "p", 0.05, 1000.0, "event"),
        ("p=0.05@1000/2.5s", "p", 0.05, 1000.0, 2.5),
        ("eps=8@1e-6", "eps", 8.0, 1e-6, "event"),
    ],
)
def test_a_target_is_parsed(text: str, unit: str, value: float, of: float, span: str | float) -> None:
    found = Target.parse(text)
    assert (found.profile, found.unit, found.value, found.of, found.span) == ("custom", unit, value, of, span)


@pytest.mark.parametrize(
    "target",
    ["gold", "", "0", "-1", "nan", "inf", "S=", "p=0.1", "eps=3", "bits=none", "S=3@4", "S=3/hour", "S=3/s", "q=1@2"],
)
def test_a_malformed_target_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="--target"):
        Target.parse(target)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("S=0.01", "16 bits"),
        ("eps=1e-6@1e-30", "16 bits"),
        ("1e4", "promises nothing"),
        ("bits=4000/release", "promises nothing"),
        ("p=0.001@1000", "a guess names one of 1000 with chance 0.001"),
        ("p=0.0001@1000", "a guess names"),
        ("p=1@1000", "promises nothing"),
        ("p=0.5@1.5", "whole number"),
        ("eps=3@1.5", "delta is 1.5"),
    ],
)
def test_an_impossible_target_is_refused_with_the_reason(
    checkpoint: Path, target: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--checkpoint", str(checkpoint), "--target", target]) == 1
    assert reason in capsys.readouterr().err
    assert not (checkpoint / "noise.json").exists()


def test_a_clip_norm_too_small_for_the_code_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"clip_norm is 31, .* 4 sqrt\(n\) = 32"):
        choose(replace(nano(("a",)), clip_norm=31), "balanced")


def test_noise_that_the_device_cannot_check_is_refused() -> None:
    """Four coordinates: an empty buffer and sound noise may look alike to the device's own check."""
    narrow = replace(nano(("a",)), tokens=1, width=4, clip_norm=8)
    with pytest.raises(ConfigError, match="stuck or empty"):
        choose(narrow, "balanced")


def certificate_of(clip_norm: int, tokens: int, width: int, receptive_field_s: float, releases: int) -> Certificate:
    return Certificate(clip_norm, Fraction(1), tokens * width, 1.0, receptive_field_s, releases)


spans = st.one_of(st.sampled_from(["", "/release", "/event"]), st.integers(0, 600).map(lambda t: f"/{t}s"))
targets = st.one_of(
    st.builds("S={:.4g}{}".format, st.floats(0.3, 8.0), spans),
    st.builds("bits={:.4g}{}".format, st.floats(0.1, 60.0), spans),
    st.builds("p={:.4g}@{}{}".format, st.floats(0.11, 0.95), st.sampled_from([10, 1000, 100_000]), spans),
    st.builds("eps={:.4g}@{:.2g}{}".format, st.floats(1.0, 60.0), st.floats(1e-9, 1e-2), spans),
    st.sampled_from(sorted(PROFILES)),
)


@settings(deadline=None, max_examples=40)
@given(targets, st.sampled_from([(32, 4, 16), (64, 4, 16), (200, 8, 32)]), st.sampled_from([1.0, 5.0]))
def test_the_least_noise_that_keeps_a_target_is_found(
    text: str, sizes: tuple[int, int, int], receptive_field_s: float
) -> None:
    """What is written keeps the target; one step of the grid less noise would not."""
    target, largest = Target.parse(text), Fraction(2300)
    certificate = certificate_of(*sizes, receptive_field_s, 8)
    sigma = least_sigma(certificate, target, largest)
    if sigma is None:
        assert not target.keeps(certificate.at(largest))
        return
    assert (sigma * GRID).denominator == 1
    kept = certificate.at(sigma)
    assert target.keeps(kept)
    releases = target.releases(kept)
    if target.unit in ("S", "bits"):  # the very number that is written down
        assert kept.reveals(releases)[target.unit] <= target.value
    if target.unit == "p":
        assert guess_bound(kept.shift(releases), 1 / target.of) <= target.value
    if target.unit == "eps":
        assert eps_at_delta(kept.shift(releases), target.of) <= target.value
    assert sigma == Fraction(1, GRID) or not target.keeps(certificate.at(sigma - Fraction(1, GRID)))


def test_profiles_have_the_sigma_of_training() -> None:
    """Bisection here gives the sigma that training computes in closed form."""
    for name, shift in PROFILES.items():
        assert choose(nano(("a",)), name).table.sigma == sigma_for(64, shift, 8)


def test_tables_of_the_other_profiles_are_written_too(checkpoint: Path) -> None:
    """The profile's own table comes first; a device may be switched to the others, and the adaptive level uses them."""
    cases = {target: [name for name in PROFILES if name != target] for target in ("detailed", "S=2.5", "strict")}
    for target, names in cases.items():
        assert main(["--checkpoint", str(checkpoint), "--target", target]) == 0
        written = json.loads((checkpoint / "noise.json").read_text())
        expected = {name: sigma_for(64, PROFILES[name], 8) for name in names}
        assert {name: Fraction(sigma) for name, sigma in written["levels"].items()} == expected
        tables = NoiseTable.load_all(checkpoint / "noise_table.bin")
        assert [table.sigma for table in tables] == [Fraction(written["sigma"]), *expected.values()]


def test_the_output_has_every_span_and_what_is_not_proved(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--checkpoint", str(checkpoint), "--target", "balanced"]) == 0
    output = capsys.readouterr().out
    for said in ("one release", "an event (8 releases)", "incident of 10 s", "a visit", "an hour", "a day"):
        assert said in output
    assert "no bound" in output
    assert "in view of 2 cameras" in output
    assert all(line in output for line in NOT_PROVED)


def test_a_missing_checkpoint_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--checkpoint", str(tmp_path / "none"), "--target", "strict"]) == 1
    assert "config.json" in capsys.readouterr().err


def test_shorter_events_need_less_noise() -> None:
    config = nano(("a",))
    shorter = replace(config, event_releases=2)
    assert choose(shorter, "balanced").table.sigma < choose(config, "balanced").table.sigma


def test_the_command_needs_no_torch(checkpoint: Path) -> None:
    code = (
        f"import sys, calibration.noise as c; c.main(['--checkpoint', {str(checkpoint)!r}, '--target', 'S=3'])\n"
        "assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
