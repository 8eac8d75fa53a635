"""`python -m benchmarks.alarms --data MANIFEST.csv`: false alarms an hour, and how late an alert comes.

    normal clips, strung together --noise--> events, stride 1 --member--> AlertBook (the bridge's) --> alerts an hour
    ... each fall put behind a minute of them                                          --> alert raised? how late?

A clip gives the releases during which it plays, and a fall also those in whose reach it still is; at a joint two clips
meet as in a cut film, and an event reads releases of both. Delays are those of the clips whose onset a manifest says
(column onset_s), counted from it; where it says none, those of all, from the clip's start; percentiles are of the found
ones, of which `timed` says how many. Several settings of the hysteresis are tried on the same verdicts: the bridge's
default, a single verdict (0.5, 1), and calmer ones.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import CHECKPOINT, fail, report
from wire.errors import DataError, VeilsightError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from cloud_bridge.alerts.rules import AlertRule
    from familial.data.clips import Clip
    from familial.model.config import FamilyConfig
    from familial.model.family import Family

__all__ = ["alerts", "main"]

_RULES = ((0.6, 2), (0.5, 1), (0.8, 2), (0.8, 3), (0.9, 3), (0.9, 4), (0.95, 4), (0.97, 5))  # raise_at, raise_for
_BEFORE = 60  # slots of normal life before a risk


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alarms", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, metavar="DIR")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="MANIFEST.csv")
    parser.add_argument("--member", choices=("edge", "cloud"), default="cloud")
    parser.add_argument("--hours", type=float, default=2.0, help="camera-hours of normal life")
    parser.add_argument("--label", default="fall", help="the risk whose alert is timed")
    args = parser.parse_args(argv)
    try:
        return _measure(args)
    except VeilsightError as error:
        return fail(error)


def _measure(args: argparse.Namespace) -> int:
    import numpy as np
    import torch

    from cloud_bridge.alerts.rules import AlertRule
    from familial.data.clips import read_manifests
    from familial.model import checkpoint

    family = checkpoint.load(args.checkpoint)
    config, rng = family.config, np.random.default_rng(0)
    torch.manual_seed(0)
    clips = read_manifests(args.data, config.labels)
    normal = [_played(family, clip, whole=False)[0] for clip in clips if clip.label == config.labels[0]]
    events = [clip for clip in clips if clip.label == args.label]
    risky = [_played(family, clip, whole=True) for clip in events]
    if not normal or not risky:
        raise DataError(f"--data: clips of {config.labels[0]} and of {args.label} are needed; one of them is missing")
    hours = _read(family, _strung(normal, round(args.hours * 3600 / config.window.slot_s), rng), args.member)
    streams = []
    for codes, onset in risky:
        before = _strung(normal, _BEFORE, rng)
        verdicts = _read(family, torch.cat((before, codes)), args.member)
        streams.append((verdicts, _BEFORE + onset / config.window.slot_s))
    known = [clip.onset_s is not None for clip in events]
    timed = known if any(known) else [True] * len(events)
    rows = [("raise_at", "raise_for", "false alerts an hour", f"{args.label} alerts", "timed", "delay p50", "p90")]
    points = []
    for raise_at, raise_for in _RULES:
        rule = AlertRule(raise_at=raise_at, raise_for=raise_for)
        false = len(alerts(hours, config.labels, rule)) / args.hours
        delays = np.array([_delay(verdicts, config, rule, at, args.label) for verdicts, at in streams])
        found = np.isfinite(delays)
        told = delays[found & timed]
        p50, p90 = np.percentile(told, [50, 90]) if len(told) else (math.nan, math.nan)
        points.append(
            {
                "raise_at": raise_at,
                "raise_for": raise_for,
                "false_per_hour": false,
                "found": float(found.mean()),
                "timed": len(told),
                "delay_s": [float(p50), float(p90)],
            }
        )
        share = f"{found.sum()} of {len(found)}"
        of_timed = f"{len(told)} of {sum(timed)}"
        rows.append((f"{raise_at:g}", str(raise_for), f"{false:.1f}", share, of_timed, f"{p50:.1f} s", f"{p90:.1f} s"))
    quiet = [point["false_per_hour"] for point in points]
    report(
        "alarms",
        ratio=min(quiet) / 2.0,
        of="2 false alerts per camera-hour",
        figures={"member": args.member, "hours": args.hours, "label": args.label, "rules": points},
        rows=rows,
        notes=[
            f"{args.member} member, {len(normal)} normal clips strung together, {len(risky)} of {args.label}",
            "timed: from the onset, where a manifest says it" if any(known) else "timed: from the clips' start",
        ],
    )
    return 0


def _played(family: Family, clip: Clip, whole: bool) -> tuple[torch.Tensor, float]:
    """Clean codes float (S, K, d) of the releases during which the clip plays, or all that still see it, and its onset
    in seconds."""
    from familial.data.clips import read_clip
    from familial.evaluate.clip_inference import clip_codes

    footage = read_clip(clip.file, family.config.window)
    playing = max(1, math.ceil(footage.duration / family.config.window.slot_s))
    codes = clip_codes(family, footage)
    return codes if whole else codes[:playing], clip.onset_s or 0.0


def _strung(codes: Sequence[torch.Tensor], slots: int, rng: np.random.Generator) -> torch.Tensor:
    """Clips in random order, repeated until there are `slots` releases."""
    import torch

    chosen, count = list[torch.Tensor](), 0
    while count < slots:
        for index in rng.permutation(len(codes)):
            chosen.append(codes[index])
            count += len(codes[index])
    return torch.cat(chosen)[:slots]


def _read(family: Family, codes: torch.Tensor, member: str) -> npt.NDArray[np.float64]:
    """Codes float (S, K, d) of a stream -> probabilities float64 (S - R + 1, L) of its events, noise on."""
    from familial.evaluate.clip_inference import event_probabilities
    from familial.train.losses import rounded_gaussian

    z = codes + rounded_gaussian(codes, family.config.sigma)
    verdicts: npt.NDArray[np.float64] = event_probabilities(family, z[None], member)[0]
    return verdicts


def alerts(verdicts: npt.NDArray[np.float64], labels: Sequence[str], rule: AlertRule) -> list[tuple[int, str]]:
    """Probabilities (E, L) of consecutive events -> (event, label) of every alert that the bridge would raise."""
    from cloud_bridge.alerts.lifecycle import AlertBook

    book = AlertBook(rule, [])
    return [
        (index, change.label)
        for index, row in enumerate(verdicts)
        for change in book.update(dict(zip(labels, row.tolist(), strict=True)))
        if change.raised
    ]


def _delay(verdicts: npt.NDArray[np.float64], config: FamilyConfig, rule: AlertRule, onset: float, label: str) -> float:
    """Seconds from the onset (in slots) to the end of the first event after it that raises the label's alert."""
    raised = [index for index, said in alerts(verdicts, config.labels, rule) if said == label]
    late = [end - onset for end in (index + config.event_releases for index in raised) if end >= onset]
    return late[0] * config.window.slot_s if late else math.inf


if __name__ == "__main__":
    sys.exit(main())
