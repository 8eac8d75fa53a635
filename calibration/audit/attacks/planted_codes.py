"""The matched filter: one of many planted codes, named by an attacker who has the list."""

from __future__ import annotations

from collections.abc import Iterator

from calibration.audit import mechanism
from calibration.audit.attacks.base import CONTROL_SHIFT, Attack, Bench, Piece, Setting
from calibration.audit.bounds import naming_bound
from calibration.audit.findings import Control, Finding
from familial.evaluate.intervals import binomial_interval

__all__ = ["PLANTED_CODES"]

_CONTROL_TRIALS = 200


def _pieces(setting: Setting) -> list[Piece]:
    return [Piece("matched filter", "planted codes", shift=shift) for shift in sorted(setting.plan.levels)]


def _run(bench: Bench) -> Iterator[Finding]:
    manifest, shift, trials = bench.manifest, bench.piece.shift, bench.plan.trials
    sizes = bench.plan.galleries
    loud = dict(mechanism.match_filter(manifest, bench.sigma(CONTROL_SHIFT), sizes, _CONTROL_TRIALS))
    for among, hits in mechanism.match_filter(manifest, bench.sigma(shift), sizes, trials):
        bound = naming_bound(bench.total_shift(shift, manifest.event_releases), among)
        interval = binomial_interval(hits, trials)
        yield Finding(
            attack="matched filter",
            name=f"one of {among:,} planted codes",
            metric="named right",
            shift=shift,
            releases=manifest.event_releases,
            value=hits / trials,
            interval=interval,
            chance=1.0 / among,
            certificate=bound,
            limit=bound,
            beyond=interval[0] > bound,
            control=Control(loud[among] / _CONTROL_TRIALS, 0.99, "named right almost without noise"),
            detail={"trials": trials},
        )


PLANTED_CODES = Attack(
    name="matched filter",
    title="Planted codes",
    text="The best case for an attacker: everyone has a code of their own, as far apart as possible, which a hostile "
    "eye says to the real gate over its socket; the attacker has the list, and reads the signed messages.",
    galleries=frozenset(),
    pieces=_pieces,
    run=_run,
    weight=5,
)
