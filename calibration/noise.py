"""Chooses the noise: a target per event -> sigma, its table, and the certificate in words. Needs no torch.

    config.json (C, K, d, cadence) + --target --> sigma on the grid of 1/64, on the safe side
                                              --> noise.json + noise_table.bin in the checkpoint

`build_engine` reads both files and pins them. The noise is never drawn here, and nothing here depends on the weights.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np

from familial.config import FamilyConfig
from wire.certificate import NOT_PROVED, PROFILES, Certificate, bits, sigma_for
from wire.errors import ConfigError, DataError, VeilsightError
from wire.noise_table import NoiseTable

__all__ = ["Noise", "build_table", "choose", "main", "target_shift", "words", "write"]

_BITS = 128
_GUARD_BITS = 192  # beyond the table's own; a floor that this leaves undecided is decided at more
_INT16_MAX = 32767


@dataclass(frozen=True, slots=True)
class Noise:
    """What was chosen: a profile's name ("custom" for any other target), the table and the certificate."""

    profile: str
    table: NoiseTable
    certificate: Certificate

    def to_json(self) -> str:
        """The text of noise.json."""
        found = self.certificate
        document = {
            "profile": self.profile,
            "clip_norm": found.clip_norm,
            "sigma": f"{found.sigma.numerator}/{found.sigma.denominator}",
            "s_release": float(f"{found.s_release:.6g}"),
            "s_event": float(f"{found.s_event:.6g}"),
        }
        return json.dumps(document, indent=1) + "\n"


def build_table(sigma: Fraction) -> NoiseTable:
    """The table of the discrete Gaussian of parameter `sigma`: entry j = floor(2^128 P(|X| <= j)), every floor exact.

    Ends where less than 2^-128 lies beyond, or where an entry would repeat the one before it: from there on magnitudes
    are rarer than the table can say. Raises DataError for a sigma that is not positive.
    """
    if sigma <= 0:
        raise DataError(f"sigma is {sigma}; a noise table needs a positive one")
    guard = _GUARD_BITS
    while True:
        entries = _entries(sigma, guard)
        if entries is not None:
            break
        guard *= 2
    high = np.array([entry >> 64 for entry in entries], np.uint64)
    low = np.array([entry & (2**64 - 1) for entry in entries], np.uint64)
    return NoiseTable(sigma, high, low)


def _entries(sigma: Fraction, guard: int) -> list[int] | None:
    """The entries at 128 + `guard` bits of precision, or None where that leaves a floor undecided."""
    precision = _BITS + guard
    one = 1 << precision
    with mpmath.workprec(precision + 32):
        rate = mpmath.mpf(sigma.denominator**2) / (2 * sigma.numerator**2)
        weights: list[int] = []  # exp(-k^2 / (2 sigma^2)) in fixed point, each within one unit
        while not weights or weights[-1] > 0:
            weights.append(int(mpmath.floor(mpmath.ldexp(mpmath.exp(-rate * len(weights) ** 2), precision))))
    total = one + 2 * sum(weights[1:])
    # Units of 2^-precision by which the quotients below may be off: one a weight, and a tail below one unit a weight.
    slack = 8 * len(weights)
    entries: list[int] = []
    inside = -one
    for weight in weights:
        inside += 2 * weight
        exact = (inside << precision) // total
        low, high = (exact - slack) >> guard, (exact + slack) >> guard
        if high >= 1 << _BITS:  # as close to 1 as this precision can tell
            high = (1 << _BITS) - 1
            low = high if one - exact < 1 << (guard - 1) else low
        if low != high:
            return None
        if entries and high <= entries[-1]:
            break
        entries.append(high)
    return entries


def target_shift(target: str) -> tuple[str, float]:
    """(profile, S per event) of a target: a profile's name, or per event S=2.5 or bits=6; ConfigError."""
    if target in PROFILES:
        return target, PROFILES[target]
    unit, _, number = target.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if unit not in ("", "S", "bits") or not (math.isfinite(value) and value > 0):
        raise ConfigError(
            f"--target is {target!r}; give {', '.join(PROFILES)}, "
            "or what an event may reveal as a positive number: S=3, bits=6.5"
        )
    return "custom", math.sqrt(2.0 * math.log(2.0) * value) if unit == "bits" else value


def choose(config: FamilyConfig, target: str) -> Noise:
    """The least noise that keeps `target` for a family of `config`; ConfigError with the reason where none can."""
    profile, shift = target_shift(target)
    capacity = config.event_releases * config.n * math.log2(2 * config.clip_norm + 1)
    if bits(shift) >= capacity:
        raise ConfigError(
            f"--target {target}: S = {shift:g} an event allows {bits(shift):.0f} bits, but {config.event_releases} "
            f"codes of {config.n} coordinates hold at most {capacity:.0f}: that promises nothing; "
            "give a smaller S, such as 3"
        )
    sigma = sigma_for(config.clip_norm, shift, config.event_releases)
    largest = _INT16_MAX - config.clip_norm
    if 14 * sigma > largest:
        raise ConfigError(
            f"--target {target}: sigma would be {float(sigma):.1f}, but a coordinate of z is 16 bits wide and with "
            f"clip_norm {config.clip_norm} holds noise of sigma {largest / 14:.0f} at most; "
            "train with a smaller clip_norm, or allow a larger S"
        )
    certificate = Certificate(
        clip_norm=config.clip_norm,
        sigma=sigma,
        n=config.n,
        slot_s=config.window.slot_s,
        reach_s=config.window.reach_s,
        event_releases=config.event_releases,
    )
    return Noise(profile, build_table(sigma), certificate)


def write(noise: Noise, checkpoint: Path) -> None:
    """Write noise_table.bin, then noise.json, into the checkpoint folder."""
    try:
        noise.table.save(checkpoint / "noise_table.bin")
        (checkpoint / "noise.json").write_text(noise.to_json())
    except OSError as error:
        reason = f"the noise cannot be written ({error.strerror}); the folder must be writable"
        raise DataError(f"{checkpoint}: {reason}") from error


def words(noise: Noise) -> str:
    """The certificate as a page for people: what each span can reveal at most, and what is not proved."""
    certificate = noise.certificate
    document = certificate.document()
    spans = (
        ("one release", "release"),
        (f"an event ({certificate.event_releases} releases)", "event"),
        ("an incident of 10 s", "incident_10s"),
        ("a visit of 5 minutes", "visit_5min"),
        ("an hour", "hour"),
        ("a day", "day"),
    )
    lines = [
        f"profile {noise.profile}: clip norm C = {certificate.clip_norm}, "
        f"sigma = {certificate.sigma} = {float(certificate.sigma):g}, "
        f"a release every {certificate.slot_s:g} s with {certificate.reach_s:g} s of reach",
        "What can be told at most, whatever the network does and whoever looks:",
        f"  {'':26}{'S':>8}{'bits':>11}{'name 1 of 10':>14}{'1 of 1,000':>12}{'1 of 100,000':>14}",
    ]
    for title, key in spans:
        row = document[key]
        named = [_chance(p) for p in row["name_one_of"].values()]
        lines.append(f"  {title:26}{row['S']:8.3g}{row['bits']:11,.2f}{named[0]:>14}{named[1]:>12}{named[2]:>14}")
    times = document["time_to_vacuous_s"]
    lines.append(
        "Someone in view this long has no bound left on being named: "
        + ", ".join(f"1 of {int(m):,} after {seconds:g} s" for m, seconds in times.items())
    )
    years = f"{certificate.lifetime_years:g} years"
    lines.append(f"The sampler is within 2^{certificate.log2_tau:.0f} of ideal noise over {years}.")
    lines.append("Not proved: " + "; ".join(NOT_PROVED) + ".")
    return "\n".join(lines)


def _chance(p: float) -> str:
    return "no bound" if p >= 1.0 else f"{p:.4f}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m calibration.noise", description="Choose a checkpoint's noise.")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"), help="folder with config.json")
    targets = f"what an event may reveal: {', '.join(PROFILES)}, or a number such as S=2.5 or bits=6"
    parser.add_argument("--target", required=True, help=targets)
    args = parser.parse_args(argv)
    try:
        config = FamilyConfig.load(args.checkpoint / "config.json")
        noise = choose(config, args.target)
        write(noise, args.checkpoint)
    except VeilsightError as error:
        print(f"calibration.noise: {error}", file=sys.stderr)
        return 1
    print(words(noise))
    if noise.profile != config.profile:
        print(f"Note: this family was trained at profile {config.profile}; measure it here with familial.evaluate.")
    print(f"written: noise.json and noise_table.bin ({len(noise.table.high)} entries) in {args.checkpoint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
