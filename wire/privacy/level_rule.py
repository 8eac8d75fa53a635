"""The adaptive privacy level: a public rule chooses how much each release may say, from what was published before it.

    published (level, z) ──► evidence of each risk ──┐
                         ──► budget: bucket, event ──┴─► level of the next release ─► its sigma, its charge

The level is a function of past messages and of the manifest alone, so the charge is public: whoever holds the messages
computes it again (`Witness`), and it reveals nothing that z did not reveal. For ANY z, any T releases in a row spend at
most `AdaptiveLevel.most(T)` = B of S^2. So all of them together are one Gaussian mechanism of shift sqrt(B), although
each shift was chosen on the way: a fully adaptive filter of Gaussian differential privacy (Smith and Thakurta 2022;
docs/adaptive-level.md proves it). The rule uses integers only, so that every machine finds the same level.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from wire.errors import ManifestError, PrivacyError

__all__ = ["UNIT", "AdaptiveLevel", "LevelRule", "Limits", "Witness", "exact", "units"]

UNIT = 10**12
"""S^2 is charged in integer units of 10^-12."""

_FRACTION = re.compile(r"[0-9]{1,100}(/[0-9]{1,100})?")
_MOST_LEVELS = 16
_NAT = 1 << 20  # evidence in integer units of 2^-20 nat
_LASTING = Fraction(2, 3)  # of the fixed profile's S^2: what the adaptive privacy level spends in the long run
_EVEN = 15  # releases: an incident of ten seconds with a receptive field of five
_CURE = "build the engine again: python -m export.build_engine"


def units(s_squared: Fraction) -> int:
    """Convert the S^2 of a release to units, rounded up."""
    return math.ceil(s_squared * UNIT)


def exact(text: Any) -> Fraction:
    """Read a fraction as `str` writes it. Raises ValueError: Fraction would take "1e10000000", and hours for it."""
    if type(text) is not str or not _FRACTION.fullmatch(text):
        raise ValueError("not a fraction of two integers")
    return Fraction(text)


@dataclass(frozen=True, slots=True)
class Limits:
    """What releases in a row may spend together, however their levels are chosen.

    A bucket holds S^2 that may be spent beyond the quiet level.

    Attributes:
        clip_norm: C, lattice units.
        sigmas: Of the levels, quietest (largest) first.
        releases: Of an event.
        event_cap: S^2 that as many releases in a row may spend.
        depth: S^2 that the bucket holds at most.
        refill: S^2 that every release brings back into the bucket.
        quiet: Index of the level at which releases are made while nothing seems to happen.

    Raises:
        ManifestError: Even the quiet level breaks the limits.
    """

    clip_norm: int
    sigmas: tuple[Fraction, ...]
    releases: int
    event_cap: Fraction
    depth: Fraction
    refill: Fraction
    quiet: int = 0

    def __post_init__(self) -> None:
        if len(self.sigmas) < 2 or self.sigmas[-1] <= 0 or sorted(set(self.sigmas), reverse=True) != [*self.sigmas]:
            raise ManifestError(
                f"adaptive_level: {len(self.sigmas)} levels; 2 or more of falling sigma are needed; {_CURE}"
            )
        if self.releases < 1 or self.depth < 0 or self.refill < 0:
            raise ManifestError(
                f"adaptive_level: depth is {self.depth}, refill is {self.refill}; neither may be below 0; {_CURE}"
            )
        if not 0 <= self.quiet < len(self.sigmas) - 1:
            raise ManifestError(f"adaptive_level: quiet is {self.quiet}; a louder level must be there; {_CURE}")
        quiet = Fraction(self.releases * self.costs[self.quiet], UNIT)
        if quiet > self.event_cap:
            raise ManifestError(
                f"adaptive_level: {self.releases} of the quiet releases spend {float(quiet):g}, more than the "
                f"event's cap of {float(self.event_cap):g}; {_CURE}"
            )

    @property
    def costs(self) -> tuple[int, ...]:
        """Per level, S^2 of a release in the ledger's integer units, rounded up."""
        return tuple(units(Fraction(self.clip_norm) ** 2 / sigma**2) for sigma in self.sigmas)

    def document(self) -> dict[str, Any]:
        """For JSON: fractions as text."""
        numbers = {name: str(getattr(self, name)) for name in ("event_cap", "depth", "refill")}
        sigmas = [str(sigma) for sigma in self.sigmas]
        return {
            "clip_norm": self.clip_norm,
            "sigmas": sigmas,
            "releases": self.releases,
            "quiet": self.quiet,
            **numbers,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Limits:
        """Read what `document` wrote, which anybody may have written.

        Raises KeyError, TypeError or ValueError where it is something else.
        """
        levels = document["sigmas"]
        if type(levels) is not list or len(levels) > _MOST_LEVELS:
            raise ValueError("sigmas is no list of a few levels")
        sigmas = tuple(exact(sigma) for sigma in levels)
        cap, depth, refill = (exact(document[name]) for name in ("event_cap", "depth", "refill"))
        clip_norm, releases, quiet = (document[name] for name in ("clip_norm", "releases", "quiet"))
        if not all(type(number) is int for number in (clip_norm, releases, quiet)):
            raise ValueError("clip_norm, releases or quiet is no integer")
        return cls(clip_norm, sigmas, releases, cap, depth, refill, quiet)

    def most(self, releases: int) -> Fraction:
        """Return the S^2 that so many releases in a row spend at most: the smallest of three bounds."""
        quiet, loud = self.costs[self.quiet], self.costs[-1]
        events, rest = divmod(releases, self.releases)
        cap = self.event_cap * UNIT
        bucket = releases * (quiet + self.refill * UNIT) + self.depth * UNIT
        return min(Fraction(releases * loud), bucket, events * cap + min(cap, Fraction(rest * loud))) / UNIT


@dataclass(frozen=True, slots=True)
class LevelRule:
    """The public numbers of the rule, in the manifest.

    Attributes:
        directions: Integers (risks, n): a risk's code minus the code of no risk. Any choice is private; a good one is
            useful.
        event_cap: As in `Limits`.
        depth: As in `Limits`.
        refill: As in `Limits`.
        threshold: Nats of evidence above which a release may say more.
        steepness: Nats more for each S^2 that the bucket lacks.
        memory: Nats that evidence never exceeds.
        quiet: As in `Limits`.

    Raises:
        ManifestError: A number is out of range.
    """

    directions: tuple[tuple[int, ...], ...]
    event_cap: Fraction
    depth: Fraction
    refill: Fraction
    threshold: Fraction
    steepness: Fraction
    memory: Fraction
    quiet: int = 0

    def __post_init__(self) -> None:
        wrong = [name for name in _NUMBERS if getattr(self, name) < 0]
        if not self.directions or len({len(row) for row in self.directions}) != 1:
            wrong.append("directions")
        if any(abs(value) > 1 << 20 for row in self.directions for value in row):
            wrong.append("directions")
        if wrong:
            raise ManifestError(f"adaptive_level: {wrong[0]} is {getattr(self, wrong[0])}, which cannot be; {_CURE}")

    @classmethod
    def around(
        cls, directions: Sequence[Sequence[int]], clip_norm: int, sigmas: Sequence[Fraction], level: int, releases: int
    ) -> LevelRule:
        """Make a rule that spends no more than releases at `level` all the time, in an event and in `_EVEN` releases.

        In a few releases in a row it may spend more than they do; in the long run it spends two thirds of it, or what
        the quiet level spends: the next quieter one, since who says too little in quiet times notices too late. The
        numbers were chosen by simulation: `python -m benchmarks.adaptive_level`.
        """
        fixed = Fraction(clip_norm) ** 2 / sigmas[level] ** 2
        below = max(0, level - 1)
        quiet = Fraction(units(Fraction(clip_norm) ** 2 / sigmas[below] ** 2), UNIT)
        refill = max(Fraction(0), _LASTING * fixed - quiet)
        depth = _EVEN * (fixed - quiet - refill)
        return cls(
            directions=tuple(tuple(int(value) for value in row) for row in directions),
            event_cap=releases * fixed,
            depth=depth,
            refill=refill,
            threshold=Fraction(1, 2),
            steepness=Fraction(3) / depth,
            memory=Fraction(12),
            quiet=below,
        )

    def document(self) -> dict[str, Any]:
        """For JSON: fractions as text."""
        numbers = {name: str(getattr(self, name)) for name in _NUMBERS}
        return {"directions": [list(row) for row in self.directions], "quiet": self.quiet, **numbers}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> LevelRule:
        """Read what `document` wrote. Raises KeyError, TypeError or ValueError where it is something else."""
        if set(document) != {"directions", "quiet", *_NUMBERS}:
            raise ValueError(f"adaptive_level has the fields {sorted(document)}")
        rows = tuple(tuple(int(value) for value in row) for row in document["directions"])
        numbers = {name: Fraction(document[name]) for name in _NUMBERS}
        return cls(rows, **numbers, quiet=int(document["quiet"]))


_NUMBERS = ("event_cap", "depth", "refill", "threshold", "steepness", "memory")


class AdaptiveLevel:
    """The state of the rule on one stream: read `level` for the next release, then `advance` with what was published.

    A stream begins as if the one before it had spent all it could. `clip_norm`, `sigmas` and `releases` are as in
    `Limits`.
    """

    def __init__(self, rule: LevelRule, clip_norm: int, sigmas: Sequence[Fraction], releases: int) -> None:
        bounds = rule.event_cap, rule.depth, rule.refill, rule.quiet
        self.limits = limits = Limits(clip_norm, tuple(sigmas), releases, *bounds)
        self.costs, self.releases, self._quiet = limits.costs, releases, limits.costs[rule.quiet]
        self._cap, self._depth, self._refill = (
            math.floor(limit * UNIT) for limit in (rule.event_cap, rule.depth, rule.refill)
        )
        # Codes of equal norm: log P(z | risk) - log P(z | none) = <z, direction> / sigma^2, in units of 1 / _NAT nat.
        self._directions = np.array(rule.directions, np.int64)
        self._rates = [_NAT / sigma**2 for sigma in sigmas]
        self._threshold, self._memory = math.floor(rule.threshold * _NAT), math.floor(rule.memory * _NAT)
        self._steepness = rule.steepness * _NAT / UNIT
        self.least()

    def least(self) -> None:
        """Go to the state that allows least: bucket empty, event spent, no evidence. Every stream begins with it."""
        self._evidence = [0] * len(self._directions)
        self._bucket = 0
        self._recent = deque([self.costs[-1]] * (self.releases - 1), maxlen=self.releases - 1)

    def utmost(self) -> None:
        """Go to the state that allows most: for a `Witness` that does not know what came before."""
        self._evidence = [self._memory] * len(self._directions)
        self._bucket = self._depth
        self._recent = deque([self.costs[0]] * (self.releases - 1), maxlen=self.releases - 1)

    @property
    def level(self) -> int:
        """The level of the next release: index into the levels, 0 the quietest. It is a function of the past alone.

        The level is the most that bucket and event allow: of all levels where there is evidence enough, else of those
        up to the quiet one.
        """
        needed = self._threshold + math.ceil((self._depth - self._bucket) * self._steepness)
        costs = self.costs if max(self._evidence) > needed else self.costs[: self.limits.quiet + 1]
        left = min(self._cap - sum(self._recent), self._bucket + self._quiet)
        return max((k for k, cost in enumerate(costs) if cost <= left), default=0)

    def advance(self, level: int, z: npt.NDArray[np.int16] | None) -> None:
        """Take the release that was charged at `level`.

        Args:
            level: Its level.
            z: int16 (n,) as it was published; None where nothing was published, or noise alone.

        Raises:
            PrivacyError: The release spent more than the rule allows.
        """
        if level > self.level:
            raise PrivacyError(f"a release was made at level {level}, the rule allows {self.level}; stop the device")
        self.follow(level, z)

    def follow(self, level: int, z: npt.NDArray[np.int16] | None) -> None:
        """Do as `advance` without the check: for a witness, whose own state is a bound and not the device's."""
        spent = self.costs[level]
        self._bucket = min(self._depth, max(0, self._bucket + self._quiet + self._refill - spent))
        self._recent.append(spent)
        if z is None:
            return
        rate = self._rates[level]
        for k, dot in enumerate((self._directions @ z.astype(np.int64)).tolist()):
            gained = dot * rate.numerator // rate.denominator
            self._evidence[k] = min(self._memory, max(0, self._evidence[k] + gained))

    def most(self, releases: int) -> Fraction:
        """Return `Limits.most`: the S^2 that so many releases in a row spend at most, whatever z was."""
        return self.limits.most(releases)


class Witness:
    """Follows a device from its messages alone, and decides whether the rule can have chosen each level.

    Two copies of the rule bound the device's state from below and from above, since the level grows with the evidence
    and with what bucket and event have left. As long as no message has been missing since the stream began, both copies
    are equal and the level must be exactly the rule's. After a gap they become equal again within seconds.
    """

    def __init__(self, rule: LevelRule, clip_norm: int, sigmas: Sequence[Fraction], releases: int) -> None:
        self._low, self._high = (AdaptiveLevel(rule, clip_norm, sigmas, releases) for _ in range(2))
        self.begin()

    def begin(self) -> None:
        """Begin a new stream, of which slot 0 was not seen yet."""
        self._next = -1  # slot

    @property
    def sure(self) -> bool:
        """Whether just one level is possible for the next release, if no slot is missing before it."""
        return self._low.level == self._high.level

    def see(self, slot: int, level: int, z: npt.NDArray[np.int16] | None) -> bool:
        """Take the release of `slot` (slots grow from 0 on) and return whether the rule can have chosen its level."""
        if slot == 0:
            self._high.least()
        elif slot != self._next:
            self._high.utmost()
        if slot != self._next:
            self._low.least()
        self._next = slot + 1
        sound = self._low.level <= level <= self._high.level
        for copy in (self._low, self._high):
            copy.follow(level, z)
        return sound
