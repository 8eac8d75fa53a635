"""The clip norm C: engines of every precision with hostile weights, fed with hostile frames."""

from __future__ import annotations

from collections.abc import Iterator

from calibration.audit import mechanism
from calibration.audit.attacks.base import Attack, Bench, Piece, Setting
from calibration.audit.findings import Control, Finding
from wire.artifact.manifest import EngineManifest

__all__ = ["HOSTILE_WEIGHTS"]


def _pieces(setting: Setting) -> list[Piece]:
    return [Piece("norm", precision) for precision, _ in setting.engines]


def _run(bench: Bench) -> Iterator[Finding]:
    folder = dict(bench.setting.engines)[bench.piece.target]
    manifest = EngineManifest.load(folder)
    rows = {how: (mu, x) for how, mu, x in mechanism.hostile_norms(folder, manifest, bench.plan.frames)}
    worst, bound = max(mu for mu, _ in rows.values()), float(manifest.clip_norm)
    before = min(1e9, max(x for _, x in rows.values()))
    yield Finding(
        attack="norm",
        name=f"|mu| of the {manifest.precision} engine, hostile weights and frames",
        metric="largest |mu|, lattice units",
        shift=manifest.certificate().s_event,
        releases=1,
        value=worst,
        interval=(worst, worst),
        chance=0.0,
        certificate=bound,
        limit=bound,
        beyond=worst > bound,
        control=Control(before / bound, 1.0, "the norm before the core over C: these weights do exceed it"),
        probability=False,
        detail={
            "weights": {how: round(mu, 3) for how, (mu, _) in rows.items()},
            "frames": bench.plan.frames + mechanism.MADE_WINDOWS,
        },
    )


HOSTILE_WEIGHTS = Attack(
    name="norm",
    title="The clip norm C",
    text="The engine with weights that were changed on purpose, fed with hostile frames: the code, looked at in this "
    "test alone, is never longer than C.",
    galleries=frozenset(),
    pieces=_pieces,
    run=_run,
    weight=1,
)
