"""Attributes of people whom the attacker never met: build, posture, glasses."""

from __future__ import annotations

from collections.abc import Iterator

from calibration.audit import classifiers
from calibration.audit.attacks.base import (
    ATTRIBUTE_CONTROL,
    CONTROL_SHIFT,
    Attack,
    Bench,
    Piece,
    Setting,
    training_detail,
)
from calibration.audit.bounds import auc_bound
from calibration.audit.findings import ATTRIBUTE_LIMIT, Control, Finding

__all__ = ["ATTRIBUTES"]

_GALLERIES = {"bodies": "rendered body", "faces": "face"}


def _pieces(setting: Setting) -> list[Piece]:
    asked = [f"{who}/{trait}" for who in _GALLERIES if setting.has(who) for trait in setting.gallery(who).traits]
    return [Piece("attributes", trait, view) for trait in asked for view in ("release", "event")]


def _run(bench: Bench) -> Iterator[Finding]:
    who, _, trait = bench.piece.target.partition("/")
    gallery, effort = bench.setting.gallery(who), bench.plan.classifiers
    has = gallery.traits[trait]
    leaky = classifiers.observe(gallery, bench.releases, bench.leaky_codes(gallery, has[gallery.clip]))
    control = classifiers.classify_trait(leaky, has, float(bench.sigma(CONTROL_SHIFT)), effort)
    observed = classifiers.observe(gallery, bench.releases)
    reads = "a release" if bench.releases == 1 else "an event"
    for shift in bench.plan.levels:
        outcome = classifiers.classify_trait(observed, has, float(bench.sigma(shift)), effort)
        yield Finding(
            attack="attributes",
            name=f"{_GALLERIES[who]}: {trait}, from {reads}",
            metric="AUC",
            shift=shift,
            releases=bench.releases,
            value=outcome.value,
            interval=outcome.interval,
            chance=0.5,
            certificate=auc_bound(bench.total_shift(shift, bench.releases)),
            limit=ATTRIBUTE_LIMIT,
            beyond=outcome.value > ATTRIBUTE_LIMIT,
            control=Control(control.value, ATTRIBUTE_CONTROL, "AUC where the code is trained to tell"),
            detail=training_detail(effort, outcome, bench.releases),
        )


ATTRIBUTES = Attack(
    name="attributes",
    title="Attributes of people whom the attacker never met",
    text="Is this person taller than most, heavier, stooped, wearing glasses? 0.5 is chance; the limit is 0.60.",
    galleries=frozenset(_GALLERIES),
    pieces=_pieces,
    run=_run,
    weight=2,
)
