"""Side channels of a hostile eye: what leaves by time, by presence and by words, and not by z."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from calibration.audit import channels
from calibration.audit.attacks.base import Attack, Bench, Piece, Setting
from calibration.audit.channels import Heard, Play
from calibration.audit.findings import ATTRIBUTE_LIMIT, Control, Finding
from familial.evaluate.intervals import binomial_interval

__all__ = ["SIDE_CHANNELS"]

_EYES = {
    "sleeps": "sleeps beyond the deadline by the scene",
    "hesitates": "answers late by the scene, in time",
    "loads": "loads the processor by the scene",
    "dies": "dies by the scene",
    "speaks": "prints and hides pixels by the scene",
}
_TIMED = ("sleeps", "hesitates", "loads", "dies")
_TOLD, _ABSENT = 0.7, 0.1  # what the controls must reach: half of the secrets are told by waiting, half by silence
_Told = tuple[float, tuple[float, float]]  # value and interval


def _pieces(setting: Setting) -> list[Piece]:
    return [Piece("side channels", "hostile eyes")]


def _run(bench: Bench) -> Iterator[Finding]:
    plays = [Play(eye, bench.plan.seed + index) for index, eye in enumerate(_EYES)]
    plays.append(Play("tells", bench.plan.seed + len(_EYES), leaky=True))
    with tempfile.TemporaryDirectory(prefix="veilsight-audit-") as folder:
        *heard, leak = channels.play(bench.setting.engine, Path(folder), plays, bench.plan.slots)
    by_eye = dict(zip(_EYES, heard, strict=True))
    late = Control(channels.told_by_time(leak)[0], _TOLD, "AUC where the gate waits by the scene")
    absent = Control(_share(leak.different, leak)[0], _ABSENT, "share where the gate is silent by the scene")
    logged = Control(float(bool(leak.spoken)), 1.0, "1 where the gate logs what the eye said")
    for eye in _TIMED:
        told = channels.told_by_time(by_eye[eye])
        yield _finding(bench, f"release times, an eye that {_EYES[eye]}", "AUC, the scene", told, late, by_eye[eye])
    for eye, each in by_eye.items():
        name = f"messages, sizes, Last Will, an eye that {_EYES[eye]}"
        yield _finding(bench, name, "share of slots with a difference", _share(each.different, each), absent, each)
    told = _share(by_eye["speaks"].spoken, by_eye["speaks"])
    name = f"logs, files, messages, an eye that {_EYES['speaks']}"
    yield _finding(bench, name, "places with its pixels, by slots", told, logged, by_eye["speaks"])


def _share(found: Sequence[str], heard: Heard) -> _Told:
    """Return how many of the slots tell something, and its interval."""
    slots = len(heard.lateness)
    hits = min(len(found), slots)
    return hits / slots, binomial_interval(hits, slots)


def _finding(bench: Bench, name: str, metric: str, told: _Told, control: Control, heard: Heard) -> Finding:
    """Return a row. Nothing is promised of times, which are measured; of the rest, that there is nothing."""
    timed = metric.startswith("AUC")
    limit = ATTRIBUTE_LIMIT if timed else 0.0
    return Finding(
        attack="side channels",
        name=name,
        metric=metric,
        shift=bench.manifest.certificate().s_event,
        releases=len(heard.lateness),
        value=told[0],
        interval=told[1],
        chance=0.5 if timed else 0.0,
        certificate=1.0 if timed else 0.0,
        limit=limit,
        beyond=told[0] > limit,
        control=control,
        detail={} if timed else {"found": sorted({*heard.different, *heard.spoken})[:8]},
    )


SIDE_CHANNELS = Attack(
    name="side channels",
    title="Side channels of a hostile eye",
    text="Whole devices run with eyes that sleep, load the processor, die, or print what they see, by the scene. A "
    "hostile broker keeps every packet with its time. But for z, nothing may tell the scene: no message, size, Last "
    "Will, log or file. The times are measured, not proved: the limit is an AUC of 0.60.",
    galleries=frozenset(),
    pieces=_pieces,
    run=_run,
    weight=8,
)
