"""The mechanism: codes at the two ends of what is allowed, distinguished through the real core and the real sampler."""

from __future__ import annotations

import math
from collections.abc import Iterator

from calibration.audit import mechanism
from calibration.audit.attacks.base import Attack, Bench, Piece, Setting
from calibration.audit.findings import Control, Finding

__all__ = ["TWO_CODES"]

_HALF_NOISE_TRIALS = 20_000


def _pieces(setting: Setting) -> list[Piece]:
    return [Piece("mechanism", "two codes", shift=shift) for shift in sorted(setting.plan.levels)]


def _run(bench: Bench) -> Iterator[Finding]:
    manifest, shift = bench.manifest, bench.piece.shift
    core, sigma = mechanism.Core(bench.setting.engine, manifest), bench.sigma(shift)
    claim, unit = bench.total_shift(shift, 1), math.sqrt(manifest.event_releases)
    trials = mechanism.trials_needed(claim)
    found = mechanism.two_codes(core, sigma, trials)
    halved = mechanism.two_codes(core, sigma, min(trials, _HALF_NOISE_TRIALS), gain=2)
    yield Finding(
        attack="mechanism",
        name="+C against -C, real core and sampler",
        metric=f"audited S per event, {mechanism.CONFIDENCE:.0%} interval",
        shift=shift,
        releases=1,
        value=found.value * unit,
        interval=(found.low * unit, found.high * unit),
        chance=0.0,
        certificate=claim * unit,
        limit=claim * unit,
        beyond=found.low > claim,
        control=Control(
            found.low / claim if halved.low > claim else 0.0,
            mechanism.TIGHT,
            "the lower bound over the claim, where half the noise is detected too",
        ),
        probability=False,
        detail={
            "trials": 2 * trials,
            "share_of_claim": round(found.low / claim, 4),
            "half_noise_share": round(halved.low / claim, 4),
        },
    )


TWO_CODES = Attack(
    name="mechanism",
    title="The mechanism",
    text="Codes at the two ends of what is allowed, through the real core and the real sampler. The test must be able "
    "to show at least 85 % of the claimed S, and must never show more than the claim.",
    galleries=frozenset(),
    pieces=_pieces,
    run=_run,
    weight=6,
)
