"""Averaging: the mean of up to 1,000 releases of somebody who sits still, or moves about."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from calibration.audit import classifiers
from calibration.audit.attacks.base import NAMING_CONTROL, Attack, Bench, Piece, Setting
from calibration.audit.attacks.naming import OWNERS, naming_finding
from calibration.audit.classifiers import Outcome
from calibration.audit.findings import Control, Finding

__all__ = ["AVERAGING"]

_GALLERIES = ("people", "places")


def _pieces(setting: Setting) -> list[Piece]:
    met = filter(setting.has, _GALLERIES)
    return [Piece("averaging", who, how) for who in met for how in ("still", "moving")]


def _run(bench: Bench) -> Iterator[Finding]:
    gallery, moving, plan = bench.setting.gallery(bench.piece.target), bench.piece.view == "moving", bench.plan
    leaky = bench.leaky_codes(gallery, gallery.owner[gallery.clip])
    who, how = OWNERS[bench.piece.target], "moving" if moving else "still"

    def attack(codes: npt.NDArray[np.int16] | None, count: int, shift: float) -> Outcome:
        observed = classifiers.observe_mean(gallery, count, moving, codes, plan.seed)
        return classifiers.name_owner(observed, float(bench.sigma(shift)), plan.classifiers)

    # so much noise that ten releases are too few to name anybody, and a thousand are enough
    value = attack(leaky, 1000, 3.0).value
    control = Control(value, NAMING_CONTROL, "1,000 releases at S = 3, the code is trained to tell")
    for shift in plan.levels:
        for count in plan.averaged:
            outcome = attack(None, count, shift)
            name = f"{who}, mean of {count:,} releases, {how}"
            yield naming_finding(bench, shift, outcome, len(gallery.names), control, name, count)


AVERAGING = Attack(
    name="averaging",
    title="Averaging many releases",
    text="The mean of up to 1,000 releases of someone who sits still, or moves about. S grows with the square root of "
    "their number, so the certificate soon excludes nothing.",
    galleries=frozenset(_GALLERIES),
    pieces=_pieces,
    run=_run,
    weight=4,
)
