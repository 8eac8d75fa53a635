"""Budgets in bits, compared with what the cadence can spend before anything is released.

    bits per event, hour, day + what T releases spend at most --> refuse, accept, or a cut-off for the ledger

The budget of an event can be kept by the cadence only, because its releases are made at fixed slots. The budgets of an
hour and of a day can also be kept by a cut-off: once one is spent, releases are noise alone and nothing is observed.
Such a cut-off is a filter of Gaussian differential privacy: while the sum of S^2 stays within a limit B, whatever chose
the terms on the way, all releases together are one Gaussian mechanism of shift sqrt(B) (docs/proofs.md). Bits are
S^2 / (2 ln 2) here, never below what the certificate says of so many coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from wire.artifact.manifest import EngineManifest
from wire.errors import ConfigError
from wire.privacy.certificate import Certificate, round_up
from wire.privacy.level_rule import units

__all__ = ["OVER", "Budget", "Terms", "slots_an_hour"]

OVER = ("refuse", "report", "cut")
"""What happens where the cadence can spend more than a budget: refuse to start; accept it; noise alone once spent."""

_BITS = Fraction(math.log(4) * (1 - 1e-15))  # S^2 of one bit is 2 ln 2, here rounded down


def slots_an_hour(slot_s: float) -> int:
    """Slots that make an hour of the ledger; a day has 24 times as many."""
    return max(1, round(3600 / slot_s))


@dataclass(frozen=True, slots=True)
class Budget:
    """Bits that an event, an hour and a day may reveal at most; 0: no budget.

    Attributes:
        over: What happens where the cadence can spend more: one of OVER.
    """

    per_event: float = 0.0
    per_hour: float = 0.0
    per_day: float = 0.0
    over: str = "refuse"

    def check(self, spends: Callable[[int], Fraction], event_releases: int, slot_s: float) -> tuple[Fraction, Fraction]:
        """Compute the S^2 per hour and per day at which the ledger must cut off; 0 where it must not.

        Args:
            spends: Releases in a row -> the S^2 that they spend at most, at the most revealing profile that the device
                may be switched to.
            event_releases: Releases of an event.
            slot_s: Seconds between releases.

        Raises:
            ConfigError: The device must not start under these budgets; the message lists every reason.
        """
        hour = slots_an_hour(slot_s)
        problems = list(self._problems(spends, event_releases, hour))
        if problems:
            raise ConfigError("\n".join(f"[privacy] {problem}" for problem in problems))
        if self.over != "cut":
            return Fraction(0), Fraction(0)
        return Fraction(self.per_hour) * _BITS, Fraction(self.per_day) * _BITS

    def _problems(self, spends: Callable[[int], Fraction], event_releases: int, hour: int) -> Iterator[str]:
        if self.over not in OVER:
            yield f"over_budget is {self.over!r}; expected one of {', '.join(OVER)}"
        if self.over == "cut" and not (self.per_hour or self.per_day):
            yield "over_budget is 'cut', but bits_per_hour and bits_per_day are missing: there is nothing to cut off at"
        spans = {"event": (self.per_event, event_releases), "hour": (self.per_hour, hour)}
        spans["day"] = (self.per_day, 24 * hour)
        for name, (allowed, releases) in spans.items():
            if not allowed:
                continue
            if not (math.isfinite(allowed) and allowed > 0):
                yield f"bits_per_{name} is {allowed}; expected a number above 0, or 0 for no budget"
                continue
            stated = f"bits_per_{name} is {allowed:g}"
            one, most = (float(spends(count) / _BITS) for count in (1, releases))
            shown = round_up(most, 6)  # a budget that is copied from the message is large enough
            cuts = self.over == "cut" and name != "event"
            if cuts and allowed < one:
                yield f"{stated}, less than the {round_up(one)} bits of one release: all would be noise; allow more"
            elif cuts and allowed >= most:
                yield f"{stated}, but no {name} spends more than {shown}: the cut-off would never act; leave it out"
            elif not cuts and self.over != "report" and allowed < most:
                cure = "or over_budget = 'report' to accept it" + (", or 'cut'" if name != "event" else "")
                yield f"{stated}, but this cadence can spend {shown} in it; choose a stricter max_profile, {cure}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a device may reveal: fixed at its start by engine and configuration, whatever a command orders later.

    Attributes:
        profiles: Name -> level of the profiles that may be ordered, the most revealing last.
        price: S^2 of a release of each camera of the scene, at that last profile.
        certificate: What is published: that of the last profile.
        costs: Units of a release, for every level.
        cut_off: S^2 per hour and per day after which slots are noise alone, or 0.
        words: A summary for the log.
        adaptive_level: Whether the engine's rule chooses the level while the engine's own profile is in force; price
            and certificate are then the rule's.
    """

    profiles: Mapping[str, int]
    price: Fraction
    certificate: Certificate
    costs: tuple[int, ...]
    cut_off: tuple[Fraction, Fraction]
    words: str
    adaptive_level: bool = False

    @classmethod
    def of(
        cls, manifest: EngineManifest, maximum: str, budget: Budget, adaptive_level: bool = False, cameras: int = 1
    ) -> Terms:
        """Compute the terms of an engine under the device's own configuration.

        Args:
            manifest: Of the engine.
            maximum: The most revealing profile that may be ordered; "" for the engine's own.
            budget: Bits that may be spent.
            adaptive_level: Whether the level rule is switched on.
            cameras: That see the same people, this one among them. Each charges for all of them, so that what they
                spend together is never more than what each of their ledgers says (docs/proofs.md).

        Raises:
            ManifestError: The engine has no such profile, or no rule.
            ConfigError: The budgets or the switch cannot be kept.
        """
        profiles, slot_s = manifest.allowed(maximum), manifest.window.slot_s
        top = max(profiles.values())
        if adaptive_level and top != manifest.level:
            raise ConfigError(
                f"[privacy] adaptive_level is built around profile {manifest.profile}, but max_profile is {maximum}; "
                "turn adaptive_level off, or leave max_profile out"
            )
        prices = [cameras * Fraction(manifest.clip_norm) ** 2 / sigma**2 for sigma in manifest.sigmas]
        price, costs = prices[-1 if adaptive_level else top], tuple(units(each) for each in prices)
        certificate = manifest.certificate(adaptive_level).at(manifest.sigmas[top]).of_scene(cameras)
        cut_off = budget.check(certificate.spends, manifest.event_releases, slot_s)
        words = f"S = {round_up(float(price) ** 0.5)} a release at most"
        words += f", of the {cameras} cameras of the scene together" if cameras > 1 else ""
        for name, limit in zip(("hour", "day"), cut_off, strict=True):
            if limit:
                words += f", noise alone after {math.floor(limit / price) * slot_s:,.0f} s"
                words += f"{' or more' if adaptive_level else ''} of every {name} of slots"
        return cls(profiles, price, certificate, costs, cut_off, words, adaptive_level)
