"""The audit's list of work: which attack runs on what, and at which S.

    Plan + galleries --tasks()--> independent pieces of work --run()--> findings (+ pictures of rendered people)

Each piece runs in a process of its own, needs nothing but the setting, and gives the same rows for the same seed; but
rows of the device vary, since its noise comes from the operating system, and the times of side channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from calibration.audit.attacks.base import Bench, Piece, Plan, Setting
from calibration.audit.attacks.registry import ATTACKS, attack_of
from calibration.audit.classifiers import Effort
from calibration.audit.findings import Finding

__all__ = ["ATTACKS_VERSION", "FULL", "QUICK", "run", "tasks"]

ATTACKS_VERSION = 4
"""Part of the key under which finished pieces are kept. Raise it when a piece would give other rows for the same
engine, plan and galleries: a change of an attack, of a bound, an interval or a limit, of the core's reference in
familial/model/desensitizer.py, of the sampler or of a certificate's arithmetic."""

FULL = Plan("full")
"""The whole audit."""
QUICK = Plan(
    "quick",
    levels=(1.0, 3.0),
    people=10,
    clips=6,
    bodies=100,
    classifiers=Effort(100_352, tests=8_192, turns=3),
    decoders=Effort(windows=100_096, tests=8_192),
    galleries=(10, 1_000),
    trials=1_000,
    frames=60,
    averaged=(1, 100),
    slots=300,
)
"""The short audit: five minutes of two cores, and the person network's, which looks at 22 seconds of each clip (two to
three seconds of two cores). Places have all their clips: with few, a row near its limit is a coin toss, and with few
bodies the control of the pictures fails."""


def tasks(setting: Setting, only: Sequence[str] = ()) -> list[Piece]:
    """Return the pieces that the setting has galleries and engines for, the longest first.

    Args:
        setting: engine, galleries and plan.
        only: names of the attacks to make; all where empty.

    Raises:
        ConfigError: a name is unknown, or an attack yields no pieces though its galleries are there.
    """
    wanted = [attack_of(name) for name in dict.fromkeys(only or ATTACKS)]
    heaviest_first = sorted(wanted, key=lambda attack: -attack.weight)
    return [piece for attack in heaviest_first for piece in attack.work(setting)]


def run(setting: Setting, piece: Piece) -> tuple[list[Finding], dict[str, Any]]:
    """Do one piece; return its findings, and pictures to show (of rendered people only)."""
    torch.set_num_threads(1)
    attack, bench = attack_of(piece.attack), Bench(setting, piece)
    return list(attack.run(bench)), bench.pictures
