"""`python -m benchmarks.bound_over_time --out FILE.svg`: the bound on naming a person over the time in view.

    C, cadence of the checkpoint; S of each profile --certificate--> chance to name one of 10, 1,000, 100,000, at most

A panel for each number of people, a curve for each profile. Nothing is measured: every point is what the certificate
bounds for as many releases as that time touches, receptive field included.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Picture
from calibration.audit.drawing import document, line, text
from familial.model.config import FamilyConfig
from wire.privacy.certificate import GALLERIES, PASSED, PROFILES, Certificate, sigma_for

__all__ = ["COMMAND", "bounds", "certificates", "draw"]

_LONGEST_S = 40
_TICKS_S = (0, 10, 20, 30, 40)
_LOOKS = {
    "ultra": ("#6f42c1", "12 3 2 3"),
    "strict": ("#198754", ""),
    "balanced": ("#0a58ca", "9 4"),
    "detailed": ("#b02a37", "2 3"),
}
_INK, _PALE = "#1d2327", "#d5d9dd"
_LEFT, _TOP, _WIDE, _HIGH, _APART = 56, 70, 248, 210, 286


def certificates(config: FamilyConfig) -> dict[str, Certificate]:
    """Profile -> the certificate of this family at that profile's noise."""
    return {
        name: Certificate(
            clip_norm=config.clip_norm,
            sigma=sigma_for(config.clip_norm, shift, config.event_releases),
            n=config.n,
            slot_s=config.window.slot_s,
            receptive_field_s=config.window.receptive_field_s,
            event_releases=config.event_releases,
        )
        for name, shift in PROFILES.items()
    }


def bounds(certificate: Certificate, people: int, longest_s: float = _LONGEST_S) -> list[tuple[float, float]]:
    """(seconds in view, chance to name one of `people` at most) at every change of the bound up to `longest_s`.

    The bound is a staircase, since a time touches whole releases: each step gives its begin and its end.
    """
    points: list[tuple[float, float]] = []
    releases = certificate.releases_touched(0.0)
    begin = 0.0
    while begin < longest_s:
        end = min(longest_s, releases * certificate.slot_s - certificate.receptive_field_s)
        chance = certificate.chance(releases, 1.0 / people)
        points += [(begin, chance), (end, chance)]
        begin, releases = end, releases + 1
    return points


def draw(config: FamilyConfig) -> str:
    """The three panels as SVG text."""
    known = certificates(config)
    parts = [text(10, 22, "Chance to name a person, at most, over the seconds that the person is in view", size=16)]
    for index, people in enumerate(GALLERIES):
        parts += _panel(_LEFT + index * _APART, people, known)
    parts.append(text(_LEFT + _APART + _WIDE / 2, _TOP + _HIGH + 40, "seconds in view", "middle", size=14))
    parts += _legend(_TOP + _HIGH + 160)
    return document(_TOP + _HIGH + 178, parts, "bound on naming one of several people over time in view, by profile")


def _panel(left: float, people: int, known: Mapping[str, Certificate]) -> list[str]:
    """One number of people: axes and a curve for each profile."""

    def place(seconds: float, chance: float) -> tuple[float, float]:
        return left + _WIDE * seconds / _LONGEST_S, _TOP + _HIGH * (1.0 - chance)

    parts = [text(left, _TOP - 16, f"one of {people:,} people", size=14)]
    for chance in (0.0, 0.5, 1.0):
        _, y = place(0, chance)
        parts += [line(left, y, left + _WIDE, y, _PALE), text(left - 7, y + 4, f"{chance:g}", "end", size=12)]
    for seconds in _TICKS_S:
        x, y = place(seconds, 0.0)
        parts += [line(x, y, x, y + 5, _INK), text(x, y + 20, str(seconds), "middle", size=12)]
    for name, certificate in known.items():
        colour, dash = _LOOKS[name]
        points = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in bounds(certificate, people))
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"{dashes}/>')
    return parts + _ends(left, people, known)


def _ends(left: float, people: int, known: Mapping[str, Certificate]) -> list[str]:
    """When each profile's bound passes the highest chance that the certificate names, written below a panel."""
    y = _TOP + _HIGH + 64
    parts = [text(left, y, f"passes {PASSED[-1]:g} after", size=12)]
    for index, (name, certificate) in enumerate(known.items(), 1):
        seconds = math.floor(10 * certificate.time_in_view_s(people, PASSED[-1])) / 10  # the safe side: earlier
        parts.append(text(left, y + 16 * index, f"{name}: {seconds:.1f} s", colour=_LOOKS[name][0], size=12))
    return parts


def _legend(y: float) -> list[str]:
    parts = []
    for index, (name, shift) in enumerate(PROFILES.items()):
        x, (colour, dash) = _LEFT + index * _APART * 0.75, _LOOKS[name]
        parts += [line(x, y - 4, x + 34, y - 4, colour, 3, dash)]
        parts.append(text(x + 42, y, f"{name}: S = {shift:g} per event", colour=colour, size=12))
    return parts


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser, "whose codes and cadence are certified (default: checkpoints/nano)")


COMMAND = Picture(
    "bound_over_time", __doc__, _options, lambda args: draw(FamilyConfig.load(args.checkpoint / "config.json"))
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
