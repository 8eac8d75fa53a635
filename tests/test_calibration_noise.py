"""The noise table against another arithmetic, and the command that writes it."""

from __future__ import annotations

import decimal
import json
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from calibration.noise import build_table, choose, main, target_shift
from familial.config import FamilyConfig, nano
from wire.certificate import PROFILES
from wire.errors import ConfigError, DataError
from wire.noise_table import NoiseTable

ROOT = Path(__file__).resolve().parent.parent
ONE = 1 << 128
SIGMAS = ("1/64", "1/3", "1", "7/2", "3862/64", "5793/64")


def entries(table: NoiseTable) -> list[int]:
    return [(int(high) << 64) | int(low) for high, low in zip(table.high, table.low, strict=True)]


def digits(sigma: Fraction) -> int:
    """Decimal digits that tell P(|X| <= 0) from 1, however narrow the noise."""
    return 90 + int(1 / sigma**2)


def probabilities(sigma: Fraction, count: int) -> list[decimal.Decimal]:
    """P(|X| = j) for j < count, by the standard library's decimal instead of mpmath."""
    with decimal.localcontext() as context:
        context.prec = digits(sigma)
        context.Emin, context.Emax = -(10**9), 10**9
        rate = decimal.Decimal(sigma.denominator**2) / decimal.Decimal(2 * sigma.numerator**2)
        weights = [(-rate * k * k).exp() * (1 if k == 0 else 2) for k in range(max(count, int(22 * sigma) + 4))]
        total = sum(weights)
        return [weight / total for weight in weights[:count]]


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
    """Total variation of one draw at most (J + 1) 2^-128, with J at most 13.5 sigma + 2."""
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


def test_entries_increase_and_end_at_the_last_word() -> None:
    found = entries(build_table(Fraction(3862, 64)))
    assert all(later > earlier for earlier, later in zip(found, found[1:], strict=False))
    assert ONE - 64 < found[-1] < ONE


def test_a_table_is_fast_and_the_same_each_time() -> None:
    started = time.monotonic()
    first = build_table(Fraction(3862, 64))
    assert time.monotonic() - started < 2.0
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
def test_a_profile_is_kept_on_the_safe_side(checkpoint: Path, profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--checkpoint", str(checkpoint), "--target", profile]) == 0
    written = json.loads((checkpoint / "noise.json").read_text())
    table = NoiseTable.load(checkpoint / "noise_table.bin")
    assert written["profile"] == profile
    assert Fraction(written["sigma"]) == table.sigma
    assert PROFILES[profile] * 0.999 < 64 * 8**0.5 / float(table.sigma) <= PROFILES[profile]
    assert "name 1 of" in capsys.readouterr().out


@pytest.mark.parametrize(("target", "shift"), [("2.5", 2.5), ("S=2.5", 2.5), ("bits=6.4921", 3.0)])
def test_a_target_may_be_a_number(target: str, shift: float) -> None:
    profile, found = target_shift(target)
    assert profile == "custom"
    assert found == pytest.approx(shift, abs=1e-3)


@pytest.mark.parametrize("target", ["gold", "0", "-1", "nan", "inf", "S=", "p=0.1", "bits=none"])
def test_a_target_that_cannot_be_meant_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="--target"):
        target_shift(target)


@pytest.mark.parametrize(("target", "reason"), [("0.01", "16 bits"), ("1e4", "promises nothing")])
def test_the_impossible_is_refused_with_its_reason(
    checkpoint: Path, target: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--checkpoint", str(checkpoint), "--target", target]) == 1
    assert reason in capsys.readouterr().err
    assert not (checkpoint / "noise.json").exists()


def test_a_missing_checkpoint_is_an_error_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--checkpoint", str(tmp_path / "none"), "--target", "strict"]) == 1
    assert "config.json" in capsys.readouterr().err


def test_shorter_events_need_less_noise() -> None:
    config = nano(("a",))
    fields = {name: getattr(config, name) for name in FamilyConfig.__dataclass_fields__}
    shorter = FamilyConfig(**{**fields, "event_releases": 2})
    assert choose(shorter, "balanced").table.sigma < choose(config, "balanced").table.sigma


def test_the_command_needs_no_torch(checkpoint: Path) -> None:
    code = (
        f"import sys, calibration.noise as c; c.main(['--checkpoint', {str(checkpoint)!r}, '--target', 'S=3'])\n"
        "assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
