"""What a release, an event, an incident, a visit, an hour and a day can reveal at most.

    C, sigma, n, slot, receptive field  ->  S per release  ->  S over r releases of c cameras = S sqrt(c r)
    cameras of the scene: what the certificate says of each span is said of all of them together
                                        ->  bits, chances, eps, zCDP, time in view;  tau of the sampler

The certificate depends on the clip norm C, the noise sigma and the cadence alone: never on the network, its
weights or its precision. The gate keeps every code within norm C and adds a rounded Gaussian of deviation sigma, so a
release is post-processing of a Gaussian mechanism with a shift of at most S = C / sigma (`wire.privacy.gaussian_dp`).
S^2 adds over releases and over cameras, and processing cannot raise it.

Every number is rounded up, to the safe side. Chances and delta hold for the noise that the device samples, not for
ideal noise: the total variation of the noise samples in question is in them.

What the promise is about, against whom, and what is NOT proved are part of the document
(`wire.privacy.certificate_words`) and are shown wherever the numbers are.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from wire.bounded_json import read_json
from wire.errors import CertificateError
from wire.privacy.certificate_words import NOT_PROVED, words
from wire.privacy.gaussian_dp import bits, eps_at_delta, guess_bound, round_up, zcdp_rho
from wire.privacy.level_rule import Limits, exact

__all__ = [
    "ATTRIBUTES",
    "CAMERAS",
    "GALLERIES",
    "INCIDENTS_S",
    "MAX_CERTIFICATE",
    "NOT_PROVED",
    "PASSED",
    "PROFILES",
    "RANKS",
    "Certificate",
    "bits",
    "eps_at_delta",
    "guess_bound",
    "round_up",
    "sigma_for",
    "zcdp_rho",
]

PROFILES: Mapping[str, float] = {"ultra": 1.0, "strict": 2.0, "balanced": 3.0, "detailed": 4.0}
"""Profile name -> S per event. At `detailed` the bound on naming one of 1,000 is 0.82: it promises little."""

GALLERIES = (10, 1_000, 100_000)
"""Sizes M of the galleries for which the chance to name one person is bounded."""

PASSED = (0.5, 0.9, 0.99)
"""Chances to name one person; the certificate says after how long in view the bound passes each."""

RANKS = (5, 20)
"""Ranks k for which the chance that the right one is among the first k of a gallery is bounded."""

ATTRIBUTES = (0.5, 0.7, 0.9)
"""Shares of the majority for which the chance to tell an attribute is bounded: what guessing it always achieves."""

CAMERAS = (1, 2, 4)
"""Cameras that see one person at once, for which the certificate is worked out."""

INCIDENTS_S = (2, 10, 60)
"""Lengths of an incident in seconds, for which the certificate is worked out."""

MAX_CERTIFICATE = 64 * 1024
"""Upper bound on the bytes of a certificate; a longer one is refused unread."""

_DEPTH, _VALUES = 8, 4000  # of the document: 6 and about 900
_SHOWN = 80  # characters of what somebody else wrote that an error shows
_WIDEST = Fraction(2) ** 40  # of sigma
_MOST_S = 86400.0  # of a slot and a receptive field
_LONGEST_YEARS = 1000.0
_MOST_RELEASES = 100_000  # of an event
_SIGMA_GRID = 64  # sigma is a multiple of 1/64: exact as a fraction, and rounded up costs less than 1/60 %
_TABLE_BITS = 128
_VERSION = 4  # of the document: 4 has the bounds of Gaussian differential privacy, and says unit and adversary
_CURE = "build the engine again: python -m export.build_engine"
_DELTA = 1e-6
_VISIT_S, _HOUR_S, _DAY_S = 300.0, 3600.0, 86400.0


def sigma_for(clip_norm: int, s_event: float, releases: int = 8) -> Fraction:
    """The smallest sigma on the grid of 1/64 that keeps `releases` releases within a shift of `s_event`."""
    if not (math.isfinite(s_event) and s_event > 0):
        raise CertificateError(
            f"S per event is {s_event}; it must be a positive number, such as 3.0 (profile balanced)"
        )
    exact = clip_norm * math.sqrt(releases) / s_event
    sigma = Fraction(math.ceil(exact * _SIGMA_GRID), _SIGMA_GRID)
    while float(sigma) * s_event < clip_norm * math.sqrt(releases):  # on the safe side, whatever the rounding above did
        sigma += Fraction(1, _SIGMA_GRID)
    return sigma


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was fixed when the engine was built, and everything that follows from it.

    Attributes:
        clip_norm: C, lattice units.
        sigma: Noise parameter, lattice units, exact; with an adaptive privacy level, that of the profile around which
            its rule is built.
        n: Coordinates of a code.
        slot_s: Seconds between releases.
        receptive_field_s: Longest time in seconds for which a frame is still part of a release.
        event_releases: Releases read together for one verdict.
        lifetime_years: The device's, for tau.
        adaptive_level: Limits of the public rule that chooses the noise of each release, or None.
        scene_cameras: Cameras that see the same people, this one among them; each releases no more than this one.

    Raises:
        CertificateError: A value is out of range, or the values contradict each other.
    """

    clip_norm: int
    sigma: Fraction
    n: int
    slot_s: float
    receptive_field_s: float
    event_releases: int = 8
    lifetime_years: float = 10.0
    adaptive_level: Limits | None = None
    scene_cameras: int = 1

    def __post_init__(self) -> None:
        if self.clip_norm < 1:
            raise CertificateError(f"clip_norm is {self.clip_norm}; it must be an integer of at least 1")
        if self.n < 1:
            raise CertificateError(f"n is {self.n}; a code has at least one coordinate")
        if self.n * self.clip_norm**2 >= 2**31:
            raise CertificateError(
                f"n * clip_norm^2 = {self.n * self.clip_norm**2} does not fit in int32: the norm guard would "
                "overflow; lower clip_norm (and sigma with it)"
            )
        if self.sigma <= 0:
            raise CertificateError(f"sigma is {self.sigma}; it must be positive: run calibration.noise")
        if not 1 / _WIDEST <= self.sigma <= _WIDEST:
            raise CertificateError(f"sigma is {float(self.sigma):g}; it must be 2^-40 to 2^40: run calibration.noise")
        if not (self.slot_s > 0 and self.receptive_field_s >= self.slot_s):
            raise CertificateError(
                f"slot_s is {self.slot_s}, receptive_field_s is {self.receptive_field_s}; "
                "0 < slot_s <= receptive_field_s must hold"
            )
        if not 1 <= self.event_releases <= _MOST_RELEASES:
            raise CertificateError(f"event_releases is {self.event_releases}; it must be 1 to {_MOST_RELEASES}")
        if not (self.receptive_field_s <= _MOST_S and self.slot_s >= 1.0 / _MOST_S):
            raise CertificateError(
                f"slot_s is {self.slot_s}, receptive_field_s is {self.receptive_field_s}; a day is the most"
            )
        if not 0 < self.lifetime_years <= _LONGEST_YEARS:
            raise CertificateError(f"lifetime_years is {self.lifetime_years}; it must be above 0, up to 1,000")
        if not 1 <= self.scene_cameras <= CAMERAS[-1]:
            raise CertificateError(f"scene_cameras is {self.scene_cameras}; a scene has 1 to {CAMERAS[-1]} cameras")
        rule = self.adaptive_level
        same = rule is None or (rule.clip_norm, rule.releases) == (self.clip_norm, self.event_releases)
        if rule and not (same and self.sigma in rule.sigmas):
            raise CertificateError(f"the adaptive privacy level is for other codes or events; {_CURE}")

    def at(self, sigma: Fraction) -> Certificate:
        """The certificate of the same codes and cadence under other noise."""
        return replace(self, sigma=sigma)

    def of_scene(self, cameras: int) -> Certificate:
        """The certificate of the same device as one of so many cameras of a scene."""
        return replace(self, scene_cameras=cameras)

    @property
    def s_release(self) -> float:
        """S of one release: C / sigma, of the least noise where a rule chooses among several."""
        return float(self.clip_norm / self._sigmas[-1])

    @property
    def _sigmas(self) -> tuple[Fraction, ...]:
        return self.adaptive_level.sigmas if self.adaptive_level else (self.sigma,)

    def shift(self, releases: int, cameras: int = 1) -> float:
        """S over `releases` releases in a row of each of `cameras`: S^2 adds."""
        if self.adaptive_level:
            return math.sqrt(cameras * self.adaptive_level.most(releases))
        return self.s_release * math.sqrt(cameras * releases)

    @property
    def s_event(self) -> float:
        """S of the releases that one verdict reads."""
        return self.shift(self.event_releases)

    def spends(self, releases: int) -> Fraction:
        """S^2 that so many releases in a row of each camera of the scene spend at most, together."""
        if self.adaptive_level:
            return self.scene_cameras * self.adaptive_level.most(releases)
        return self.scene_cameras * releases * Fraction(self.clip_norm) ** 2 / self.sigma**2

    def releases_touched(self, seconds: float) -> int:
        """Releases that can depend on something `seconds` long: its length plus the receptive field, in slots."""
        return math.ceil((seconds + self.receptive_field_s) / self.slot_s - 1e-9)

    def time_in_view_s(self, gallery: int, level: float, cameras: int = 1) -> float:
        """Seconds in view during which the bound on naming one of `gallery` stays at or below `level`; 0: none."""
        counts = range(1, self.lifetime_releases)
        releases = bisect_right(counts, level, key=lambda count: self.chance(count, 1.0 / gallery, cameras))
        return max(0.0, releases * self.slot_s - self.receptive_field_s)

    @property
    def lifetime_releases(self) -> int:
        """Releases that a device makes in its life, rounded up."""
        return math.ceil(self.lifetime_years * 365.25 * _DAY_S / self.slot_s)

    def log2_tau_of(self, releases: int) -> float:
        """Return log2 of the sampler's total variation from ideal noise over so many releases.

        Every noise sample of a coordinate is within (J + 1) 2^-128 of ideal, where J <= 13.5 sigma + 2 is the table's
        length (each entry is rounded down by less than 2^-128, and less than 2^-128 lies beyond the last).
        """
        return math.log2(releases * self.n * (13.5 * float(self._sigmas[0]) + 3.0)) - _TABLE_BITS

    @property
    def log2_tau(self) -> float:
        """`log2_tau_of` all releases of the life of the scene's devices."""
        return self.log2_tau_of(self.scene_cameras * self.lifetime_releases)

    def reveals(self, releases: int, cameras: int = 1) -> dict[str, Any]:
        """What `releases` releases in a row of each of `cameras` together reveal at most."""
        shift = self.shift(releases, cameras)
        eps = eps_at_delta(shift, _DELTA)

        def chance(prior: float) -> float:
            return self.chance(releases, prior, cameras)

        return {
            "releases": cameras * releases,
            "S": _up(shift),
            "bits": _up(bits(shift, cameras * releases * self.n)),
            "name_one_of": {str(m): chance(1.0 / m) for m in GALLERIES},
            "right_one_among": {str(k): {str(m): chance(k / m) for m in GALLERIES if m > k} for k in RANKS},
            "attribute": {str(share): chance(share) for share in ATTRIBUTES},
            "zcdp_rho": _up(zcdp_rho(shift)),
            "eps": _up(eps),
            "delta": min(1.0, _up(_DELTA, self.delta_lost(cameras * releases, eps))),
            "log2_tau": _up(self.log2_tau_of(cameras * releases)),
        }

    def chance(self, releases: int, prior: float, cameras: int = 1) -> float:
        """Return `guess_bound` for the noise that the device samples: with tau in it, rounded up."""
        tau = 2.0 ** self.log2_tau_of(cameras * releases)
        return min(1.0, _up(guess_bound(self.shift(releases, cameras), prior), tau))

    def delta_lost(self, releases: int, eps: float) -> float:
        """What the sampler adds to a delta: (1 + e^eps) tau over these releases; 1 where it is more."""
        log_lost = eps + math.log1p(math.exp(-eps)) + self.log2_tau_of(releases) * math.log(2.0)
        return math.exp(min(0.0, log_lost))

    def document(self) -> dict[str, Any]:
        """The certificate as it is published and stored: the inputs, all that follows, and what is not proved."""
        spans = {f"incident_{seconds}s": float(seconds) for seconds in INCIDENTS_S}
        spans |= {"visit_5min": _VISIT_S}
        counts = {"release": 1, "event": self.event_releases}
        counts |= {name: self.releases_touched(seconds) for name, seconds in spans.items()}
        counts |= {"hour": math.ceil(_HOUR_S / self.slot_s), "day": math.ceil(_DAY_S / self.slot_s)}
        views, stated = self.scene_cameras, sorted({*CAMERAS, self.scene_cameras})
        return {
            "version": _VERSION,
            "inputs": {
                "clip_norm": self.clip_norm,
                "sigma": str(self.sigma),
                "n": self.n,
                "slot_s": self.slot_s,
                "receptive_field_s": self.receptive_field_s,
                "event_releases": self.event_releases,
                "lifetime_years": self.lifetime_years,
                **({"adaptive_level": self.adaptive_level.document()} if self.adaptive_level else {}),
                **({"scene_cameras": views} if views > 1 else {}),
            },
            **{name: self.reveals(count, views) for name, count in counts.items()},
            "cameras": {
                str(cameras): {name: self.reveals(count, cameras) for name, count in counts.items()}
                for cameras in stated
                if cameras != views
            },
            "time_in_view_s": {
                str(cameras): {str(m): self._times(m, cameras) for m in GALLERIES} for cameras in stated
            },
            "log2_tau": _up(self.log2_tau),
            "lifetime_releases": self.lifetime_releases,
            **words(counts, self.event_releases, views),
        }

    def _times(self, gallery: int, cameras: int) -> dict[str, float]:
        return {f"{level:g}": round(self.time_in_view_s(gallery, level, cameras), 6) for level in PASSED}

    def to_json(self) -> str:
        """`document()` as JSON text, the same text for the same certificate."""
        return json.dumps(self.document(), indent=1, sort_keys=True) + "\n"

    def sha256(self) -> str:
        """Hash of `to_json()` in hex: what a manifest pins."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> Certificate:
        """Read a certificate.

        Raises:
            CertificateError: The document is of another version, or a number in it is not what its inputs give.
        """
        certificate, found = cls.read(text.encode())
        difference = certificate.difference(found)
        if difference:
            raise CertificateError(f"{difference}; a certificate is computed, never edited: {_CURE}")
        return certificate

    @classmethod
    def read(cls, payload: bytes) -> tuple[Certificate, dict[str, Any]]:
        """Read the inputs of a certificate that anybody may have written; nothing is computed from them.

        Returns:
            What the inputs are, and the whole document, of which no other number may be believed (`difference`). It is
            the same for the next who asks: change nothing in it.

        Raises:
            CertificateError: It is no certificate, of another version, or its inputs are out of range.
        """
        return _read(payload)

    def difference(self, found: Any) -> str:
        """Say where `found` is not this certificate's document; "" where it is. Floats agree to 1e-4."""
        try:
            return _first_difference(_expected(self), found, "certificate")
        except ArithmeticError as error:
            raise CertificateError(f"certificate: its inputs give no bounds ({error}); {_CURE}") from error


@lru_cache(maxsize=2)  # why one is refused is asked for after it was
def _read(payload: bytes) -> tuple[Certificate, dict[str, Any]]:
    try:
        found = read_json(payload, MAX_CERTIFICATE, _DEPTH, _VALUES)
        if found["version"] != _VERSION:
            version = str(found["version"])[:_SHOWN]
            raise CertificateError(
                f"certificate: version is {version}, this software reads version {_VERSION}; {_CURE}"
            )
        given = found["inputs"]
        certificate = Certificate(
            clip_norm=_integer(given, "clip_norm"),
            sigma=exact(given["sigma"]),
            n=_integer(given, "n"),
            slot_s=_real(given, "slot_s"),
            receptive_field_s=_real(given, "receptive_field_s"),
            event_releases=_integer(given, "event_releases"),
            lifetime_years=_real(given, "lifetime_years"),
            adaptive_level=Limits.of(given["adaptive_level"]) if "adaptive_level" in given else None,
            scene_cameras=_integer(given, "scene_cameras") if "scene_cameras" in given else 1,
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise CertificateError(f"certificate: unreadable ({repr(error)[:_SHOWN]}); {_CURE}") from error
    return certificate, found


@lru_cache(maxsize=16)
def _expected(certificate: Certificate) -> dict[str, Any]:
    return certificate.document()


def _integer(given: Mapping[str, Any], name: str) -> int:
    value = given[name]
    if type(value) is not int:
        raise ValueError(f"{name} is no integer")
    return value


def _real(given: Mapping[str, Any], name: str) -> float:
    value = given[name]
    if type(value) not in (int, float):
        raise ValueError(f"{name} is no number")
    return float(value)


def _up(value: float, more: float = 0.0) -> float:
    """`value + more` in six significant digits, rounded up, past what floating point may have lost on the way."""
    exact = Decimal(value) + abs(Decimal(value)) * Decimal("1e-9") + Decimal(more)
    return float(Context(prec=6, rounding=ROUND_CEILING).plus(exact))


def _first_difference(expected: Any, found: Any, path: str) -> str:
    """Where `found` is not what was `expected`, in words; empty where it is."""
    if isinstance(expected, dict):
        if not isinstance(found, dict) or expected.keys() != found.keys():
            return f"{path}: the fields are not {sorted(expected)}"
        for key, value in expected.items():
            if text := _first_difference(value, found[key], f"{path}.{key}"):
                return text
        return ""
    if isinstance(expected, float) and isinstance(found, (int, float)) and not isinstance(found, bool):
        same = math.isclose(expected, found, rel_tol=1e-4, abs_tol=1e-12)
    else:
        same = type(expected) is type(found) and expected == found
    return "" if same else f"{path} is {repr(found)[:_SHOWN]}, but C, sigma and the cadence give {expected!r}"
