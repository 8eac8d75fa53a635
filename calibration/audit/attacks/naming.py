"""Naming people, faces and places: the attacker learns from some clips of each owner, and names the others."""

from __future__ import annotations

from collections.abc import Iterator

from calibration.audit import classifiers
from calibration.audit.attacks.base import (
    CONTROL_SHIFT,
    NAMING_CONTROL,
    VIEWS,
    Attack,
    Bench,
    Piece,
    Setting,
    training_detail,
)
from calibration.audit.bounds import naming_bound
from calibration.audit.classifiers import Observations, Outcome
from calibration.audit.findings import NAMING_LIMIT, Control, Finding
from calibration.audit.targets import WINDOWS

__all__ = ["NAMING", "OWNERS", "naming_finding"]

OWNERS = {"people": "rendered person", "faces": "face (Yale)", "places": "place"}
"""Gallery -> what its owners are called in rows."""
_STRANGERS = "strangers"  # a view of its own: owners whom the network was not trained on


def _pieces(setting: Setting) -> list[Piece]:
    made = [Piece("naming", who, view) for who in OWNERS if setting.has(who) for view in VIEWS]
    return made + ([Piece("naming", "places", _STRANGERS)] if setting.has("places") else [])


def _run(bench: Bench) -> Iterator[Finding]:
    gallery, view, effort = bench.setting.gallery(bench.piece.target), bench.piece.view, bench.plan.classifiers
    leaky = bench.leaky_codes(gallery, gallery.owner[gallery.clip])

    def attack(observed: Observations, shift: float) -> tuple[Outcome, int]:
        if view == _STRANGERS:
            return classifiers.name_strangers(observed, float(bench.sigma(shift)), effort)
        return classifiers.name_owner(observed, float(bench.sigma(shift)), effort), len(gallery.names)

    control = Control(
        attack(classifiers.observe(gallery, bench.releases, leaky), CONTROL_SHIFT)[0].value,
        NAMING_CONTROL,
        "named right where the code is trained to tell",
    )
    observed = classifiers.observe(gallery, bench.releases)
    reads = {
        "release": "a release",
        "event": "an event",
        _STRANGERS: "an event; met at enrolment only",
        "sequence": f"a sequence of {WINDOWS - bench.manifest.event_releases + 1} events",
    }[view]
    name = f"{OWNERS[bench.piece.target]}, from {reads}"
    for shift in bench.plan.levels:
        outcome, among = attack(observed, shift)
        yield naming_finding(bench, shift, outcome, among, control, name, bench.releases)


def naming_finding(
    bench: Bench, shift: float, outcome: Outcome, among: int, control: Control, name: str, releases: int
) -> Finding:
    """Return the row of an attack that names one of `among` owners from `releases` releases."""
    limit, averaged = min(1.0, NAMING_LIMIT / among), bench.piece.attack == "averaging"
    return Finding(
        attack=bench.piece.attack,
        name=name,
        metric=f"named right, 1 of {among}",
        shift=shift,
        releases=releases,
        value=outcome.value,
        interval=outcome.interval,
        chance=1.0 / among,
        certificate=naming_bound(bench.total_shift(shift, releases), among),
        limit=limit,
        beyond=outcome.value > limit,
        control=control,
        detail=training_detail(bench.plan.classifiers, outcome, 1 if averaged else releases),
    )


NAMING = Attack(
    name="naming",
    title="Naming people, faces and places",
    text="The attacker learns from some clips of each person or place, and names the others. The limit is twice "
    "chance.",
    galleries=frozenset(OWNERS),
    pieces=_pieces,
    run=_run,
    weight=3,
)
