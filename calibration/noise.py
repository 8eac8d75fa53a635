"""Chooses the noise: target -> the least sigma that keeps it, its table, the certificate in words. Needs no torch.

    config.json (C, K, d, cadence) + --target --bracket, bisect--> sigma on the grid of 1/64, on the safe side
                                                     --> noise.json + noise_table.bin: its table, then stricter ones

A target is compared with the numbers that the certificate will say, rounding and the sampler's total variation
included: what is written always keeps it, and one step of the grid less noise would not. `build_engine` reads the files
and pins them. No noise sample is drawn here, and nothing here depends on the weights.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import mpmath
import numpy as np

from familial.model.config import FamilyConfig
from wire.errors import ConfigError, DataError, VeilsightError
from wire.files import write_whole
from wire.privacy.certificate import NOT_PROVED, PASSED, PROFILES, Certificate, bits, eps_at_delta, round_up
from wire.privacy.noise_check import NoiseCheck
from wire.privacy.noise_table import NoiseTable

__all__ = ["GRID", "Noise", "Target", "build_table", "choose", "least_sigma", "main", "words", "write"]

GRID = 64
"""Steps of sigma in 1: every sigma here is a multiple of 1/GRID."""

_BITS = 128
_GUARD_BITS = 64  # beyond the table's own; a floor that this leaves undecided is decided at more
_INT16_MAX = 32767
_TAILS = 14  # sigmas of noise that must fit beside the code: where the table ends
_FORM = re.compile(r"(?:(S|bits|p|eps)=)?([^@/=]+)(?:@([^/]+))?(?:/(release|event|([0-9.]+)s))?")
_HELP = f"""{", ".join(PROFILES)}; or S=3, bits=6.5, p=0.2@1000 (naming one of 1,000 with chance 0.2 at most),
eps=8@1e-6; per event, or /release, or /10s for an incident of 10 s: bits=9/10s"""


@dataclass(frozen=True, slots=True)
class Noise:
    """What was chosen.

    Attributes:
        profile: its name; "custom" for any other target.
        table: of the noise.
        certificate: of the noise.
        levels: tables of the other profiles, by name: an operator may switch a device to a stricter one, and the
            adaptive privacy level chooses among all.
    """

    profile: str
    table: NoiseTable
    certificate: Certificate
    levels: Mapping[str, NoiseTable] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the text of noise.json."""
        found = self.certificate
        document = {
            "profile": self.profile,
            "clip_norm": found.clip_norm,
            "sigma": _fraction(found.sigma),
            "s_release": float(round_up(found.s_release, 6)),
            "s_event": float(round_up(found.s_event, 6)),
            "levels": {name: _fraction(table.sigma) for name, table in self.levels.items()},
        }
        return json.dumps(document, indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class Target:
    """What may be revealed at most.

    Attributes:
        text: as it was given.
        profile: its name, or "custom".
        unit: S, bits, p or eps.
        value: in this unit.
        of: M for p, delta for eps, else 0.
        span: "event", "release", or the seconds of an incident.
    """

    text: str
    profile: str
    unit: str
    value: float
    of: float = 0.0
    span: str | float = "event"

    @classmethod
    def parse(cls, text: str) -> Target:
        """Parse the value of --target.

        Raises:
            ConfigError: the text is not a target, no noise keeps it, or it is kept without noise.
        """
        if text in PROFILES:
            return cls(text, text, "S", PROFILES[text])
        found = _FORM.fullmatch(text)
        try:
            unit, value = (found[1] or "S", float(found[2])) if found else ("", math.nan)
            of = float(found[3]) if found and found[3] else 0.0
            span: str | float = "event" if not found or not found[4] else float(found[5]) if found[5] else found[4]
        except ValueError:
            unit = ""
        if not unit or not (math.isfinite(value) and value > 0) or (unit in ("p", "eps")) != (of > 0):
            raise ConfigError(f"--target is {text!r}; give {_HELP}".replace("\n", " "))
        target = cls(text, "custom", unit, value, of, span)
        problem = target._problem()
        if problem:
            raise ConfigError(f"--target {text}: {problem}")
        return target

    def _problem(self) -> str:
        """Return why no noise keeps the target, or why none is needed; "" where it depends on the noise."""
        if self.unit == "p" and not (self.of >= 2 and self.of == int(self.of)):
            return f"M is {self.of:g}; it must be a whole number of at least 2, the people among whom one is named"
        if self.unit == "p" and self.value <= 1 / self.of:
            return f"a guess names one of {self.of:g} with chance {1 / self.of:g}; no noise gives less, allow more"
        if self.unit == "p" and self.value >= 1:
            return "a chance of 1 promises nothing; give one below 1"
        if self.unit == "eps" and not self.of < 1:
            return f"delta is {self.of:g}; it must lie between 0 and 1, such as 1e-6"
        return ""

    def releases(self, certificate: Certificate) -> int:
        """Return how many releases the target is about."""
        if isinstance(self.span, float):
            return certificate.releases_touched(self.span)
        return certificate.event_releases if self.span == "event" else 1

    def keeps(self, certificate: Certificate) -> bool:
        """Return whether the certificate says no more than the target allows."""
        releases = self.releases(certificate)
        if self.unit == "p":
            return certificate.chance(releases, 1.0 / self.of) <= self.value
        if self.unit == "eps":  # the delta that is asked for pays for the sampler as well
            shift = certificate.shift(releases)
            eps = min(self.value, eps_at_delta(shift, 0.999 * self.of))
            delta = self.of - certificate.delta_lost(releases, eps)
            return delta > 0 and eps_at_delta(shift, delta) <= eps
        says: float = certificate.reveals(releases)[self.unit]
        return says <= self.value


def build_table(sigma: Fraction) -> NoiseTable:
    """Return the table of round(g), g normal of deviation `sigma`: entry j = floor(2^128 P(|g| < j + 1/2)), exact.

    It ends where less than 2^-128 lies beyond, or where an entry would repeat the one before it: from there on
    magnitudes are rarer than the table can say.

    Raises:
        DataError: sigma is not positive.
    """
    if sigma <= 0:
        raise DataError(f"sigma is {sigma}; a noise table needs a positive one")
    entries: list[int] = []
    while (entry := _entry(sigma, len(entries))) > (entries[-1] if entries else -1):
        entries.append(entry)
    high = np.array([entry >> 64 for entry in entries], np.uint64)
    low = np.array([entry & (2**64 - 1) for entry in entries], np.uint64)
    return NoiseTable(sigma, high, low)


def _entry(sigma: Fraction, magnitude: int) -> int:
    """Return 2^128 P(|g| < magnitude + 1/2), rounded down: worked out more precisely until the floor is decided."""
    guard = _GUARD_BITS
    while True:
        with mpmath.workprec(_BITS + 2 * guard):
            half = mpmath.mpf((2 * magnitude + 1) * sigma.denominator) / (2 * sigma.numerator)
            beyond = mpmath.ldexp(mpmath.erfc(half / mpmath.sqrt(2)), _BITS)
            error = mpmath.ldexp(1, -guard)  # erfc is off by far less
            least, most = (int(mpmath.ceil(beyond + step)) for step in (-error, error))
        if least == most or beyond < 1:  # nothing beyond is rounded to one unit beyond: an entry is below 2^128
            return (1 << _BITS) - max(most, 1)
        guard *= 2


def least_sigma(certificate: Certificate, target: Target, largest: Fraction) -> Fraction | None:
    """Return the least sigma of the grid, at most `largest`, that keeps `target`; None where none does.

    It doubles until the target is kept, then bisects: the sigma returned keeps it, the step below does not.
    """
    low, high, last = 0, 1, math.floor(largest * GRID)
    while not target.keeps(certificate.at(Fraction(high, GRID))):
        if high >= last:
            return None
        low, high = high, min(2 * high, last)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if target.keeps(certificate.at(Fraction(middle, GRID))) else (middle, high)
    return Fraction(high, GRID)


def choose(config: FamilyConfig, text: str) -> Noise:
    """Return the least noise at which a family of `config` keeps the target `text`.

    Raises:
        ConfigError: no noise keeps it, or none that the device could use; says why.
    """
    target = Target.parse(text)
    clip_norm, n = config.clip_norm, config.n
    if clip_norm < 4 * math.sqrt(n):
        raise ConfigError(
            f"clip_norm is {clip_norm}, but {n} coordinates want 4 sqrt(n) = {math.ceil(4 * math.sqrt(n))} at least: "
            "else rounding to integers destroys the code; set it in config.json (the S of a target stays what it is)"
        )
    window = config.window
    certificate = Certificate(clip_norm, Fraction(1), n, window.slot_s, window.receptive_field_s, config.event_releases)
    largest = Fraction(_INT16_MAX - clip_norm, _TAILS)
    sigma = least_sigma(certificate, target, largest)
    if sigma is None:
        raise ConfigError(
            f"--target {text}: no sigma up to {float(largest):.0f} keeps it, and no more noise fits beside the code "
            f"into a coordinate of z, which is 16 bits wide; allow more, or set clip_norm in config.json below "
            f"{clip_norm} ({math.ceil(4 * math.sqrt(n))} at least)"
        )
    certificate = certificate.at(sigma)
    releases = target.releases(certificate)
    allowed, capacity = bits(certificate.shift(releases)), releases * n * math.log2(2 * clip_norm + 1)
    if allowed >= capacity:
        raise ConfigError(
            f"--target {text}: it allows {round_up(allowed)} bits, but {releases} codes of {n} coordinates hold at "
            f"most {capacity:.0f}: that promises nothing; allow less, such as S=3"
        )
    if min(NoiseCheck(sigma, n, config.event_releases).thresholds) <= 0:
        raise ConfigError(
            f"--target {text}: sigma {float(sigma):g} would do, but over {n} coordinates the device could not tell it "
            "from a buffer that is stuck or empty; allow less, or train with a larger code (clip_norm, tokens x width)"
        )
    levels = {}
    for name in PROFILES:
        found = least_sigma(certificate, Target.parse(name), largest)
        if found not in (None, sigma) and min(NoiseCheck(found, n, config.event_releases).thresholds) > 0:
            levels[name] = build_table(found)
    return Noise(target.profile, build_table(sigma), certificate, levels)


def write(noise: Noise, checkpoint: Path) -> None:
    """Write the tables, the profile's first, then noise.json, into the checkpoint folder."""
    others = sorted(noise.levels.values(), key=lambda table: -table.sigma)
    try:
        write_whole(checkpoint / "noise_table.bin", b"".join(table.to_bytes() for table in (noise.table, *others)))
        write_whole(checkpoint / "noise.json", noise.to_json())
    except OSError as error:
        reason = f"the noise cannot be written ({error.strerror}); the folder must be writable"
        raise DataError(f"{checkpoint}: {reason}") from error


def words(noise: Noise) -> str:
    """Return the certificate in words: what each span can reveal at most, rounded up, and what is not proved."""
    certificate = noise.certificate
    document = certificate.document()
    spans = {"release": "one release", "event": f"an event ({certificate.event_releases} releases)"}
    spans |= {key: f"an incident of {key[9:-1]} s" for key in document if key.startswith("incident_")}
    spans |= {"visit_5min": "a visit of 5 minutes", "hour": "an hour", "day": "a day"}
    lines = [
        f"profile {noise.profile}: clip norm C = {certificate.clip_norm}, "
        f"sigma = {certificate.sigma} = {float(certificate.sigma):g}, "
        f"a release every {certificate.slot_s:g} s, receptive field {certificate.receptive_field_s:g} s",
        "What is revealed at most, rounded up, whatever the network computes and whoever attacks:",
        f"  {'':26}{'S':>8}{'bits':>11}{'name 1 of 10':>14}{'1 of 1,000':>12}{'1 of 100,000':>14}{'yes or no':>11}"
        f"{'eps':>9}",
    ]
    for key, title in spans.items():
        row = document[key]
        chances = [_chance(p) for p in (*row["name_one_of"].values(), row["attribute"]["0.5"])]
        lines.append(
            f"  {title:26}{round_up(row['S']):>8}{round_up(row['bits']):>11}{chances[0]:>14}{chances[1]:>12}"
            f"{chances[2]:>14}{chances[3]:>11}{round_up(row['eps']):>9}"
        )
    lines.append("  (yes or no: to guess a two-valued attribute that half of the people have; eps: at delta 1e-6)")
    passed = ", ".join(f"{chance:g}" for chance in PASSED)
    lines.append(f"Seconds in view after which the bound on being named passes {passed}:")
    for cameras, people in document["time_in_view_s"].items():
        seen = "one camera" if cameras == "1" else f"in view of {cameras} cameras at once"
        held = "; ".join(f"1 of {int(m):,}: {', '.join(map('{:g}'.format, t.values()))}" for m, t in people.items())
        lines.append(f"  {seen}: {held}")
    years = f"{certificate.lifetime_years:g} years"
    lines.append(f"The sampler is within 2^{math.ceil(certificate.log2_tau)} of ideal noise over {years}.")
    lines.append("A release, an event, an hour, a day: whatever the eye does. The others: if the eye also forgets.")
    lines.append("Not proved: " + "; ".join(NOT_PROVED) + ".")
    return "\n".join(lines)


def _fraction(sigma: Fraction) -> str:
    return f"{sigma.numerator}/{sigma.denominator}"


def _chance(p: float) -> str:
    return "no bound" if p >= 1.0 else round_up(p)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m calibration.noise", description="Choose a checkpoint's noise.")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"), help="folder with config.json")
    parser.add_argument("--target", required=True, help=f"what may be revealed at most: {_HELP}")
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
    tables = ", ".join((noise.profile, *noise.levels))
    print(f"written: noise.json and noise_table.bin (tables of {tables}) in {args.checkpoint}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
