"""The mechanism: codes at the two ends of what is allowed, and beyond, told apart through the device as it runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from calibration.audit import mechanism
from calibration.audit.attacks.base import Attack, Bench, Piece, Setting
from calibration.audit.findings import Control, Finding

__all__ = ["TWO_CODES"]

_CONTROL_TRIALS = 8_000
_BEYOND, _BEYOND_TRIALS = 3, 2_000


def _pieces(setting: Setting) -> list[Piece]:
    return [Piece("mechanism", "two codes", shift=shift) for shift in sorted(setting.plan.levels)]


def _run(bench: Bench) -> Iterator[Finding]:
    manifest, sigma = bench.manifest, bench.sigma(bench.piece.shift)
    claim = bench.total_shift(bench.piece.shift, 1)
    trials = mechanism.trials_needed(claim)
    found = mechanism.two_codes(manifest, sigma, trials)
    halved = mechanism.two_codes(manifest, sigma / 2, min(trials, _CONTROL_TRIALS))
    control = Control(
        found.low / claim if halved.low > claim else 0.0,
        mechanism.TIGHT,
        "the lower bound over the claim, where half the noise is detected too",
    )
    shares = {"share_of_claim": round(found.low / claim, 4), "half_noise_share": round(halved.low / claim, 4)}
    yield _finding(bench, "+C against -C, through the device", found, control, shares)
    length = _BEYOND * manifest.clip_norm
    wide = replace(manifest, clip_norm=length, levels={}, adaptive_level=None)
    beyond = mechanism.two_codes(manifest, sigma, _BEYOND_TRIALS, length=length)
    let_out = mechanism.two_codes(wide, sigma, _BEYOND_TRIALS, length=length)
    control = Control(let_out.low / claim, 1.0, "the lower bound over the claim, by a gate whose ball is too large")
    yield _finding(bench, f"codes of {_BEYOND} C, through the device", beyond, control, {})


def _finding(bench: Bench, name: str, found: mechanism.Bound, control: Control, more: Mapping[str, float]) -> Finding:
    claim, unit = bench.total_shift(bench.piece.shift, 1), math.sqrt(bench.manifest.event_releases)
    return Finding(
        attack="mechanism",
        name=name,
        metric=f"audited S per event, {mechanism.CONFIDENCE:.0%} interval",
        shift=bench.piece.shift,
        releases=1,
        value=found.value * unit,
        interval=(found.low * unit, found.high * unit),
        chance=0.0,
        certificate=claim * unit,
        limit=claim * unit,
        beyond=found.low > claim,
        control=control,
        probability=False,
        detail={"trials": 2 * found.trials, **more},
    )


TWO_CODES = Attack(
    name="mechanism",
    title="The mechanism",
    text="A hostile eye says codes at the two ends of what is allowed, and beyond, to the real gate over its socket; "
    "the attacker reads the signed messages. The test must be able to show at least 85 % of the claimed S, and must "
    "never show more than the claim.",
    galleries=frozenset(),
    pieces=_pieces,
    run=_run,
    weight=6,
)
