"""`python -m benchmarks.alarms --data MANIFEST.csv`: false alarms an hour, and the delay of alerts.

    normal clips, strung together --noise--> events, stride 1 --member--> AlertBook (the bridge's) --> alerts an hour
    ... each fall put behind a minute of them                                          --> alert raised? how late?

A normal clip gives the releases during which it plays, a fall also those in whose receptive field it still is. Where
two clips meet, as at a cut in a film, an event reads releases of both. Delays are those of the clips whose onset a
manifest says (column onset_s), counted from it; where no manifest says one, those of all, from the clip's start.
Percentiles are of the falls that were found, of which `timed` gives the count. Several settings of the hysteresis are
tried on the same verdicts: the bridge's default, a single verdict (0.5, 1), and calmer ones.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from cloud_bridge.alerts.rules import AlertRule
    from familial.data.clips import Clip
    from familial.model.config import FamilyConfig
    from familial.model.family import Family

__all__ = ["COMMAND", "alerts"]

_RULES = ((0.6, 2), (0.5, 1), (0.8, 2), (0.8, 3), (0.9, 3), (0.9, 4), (0.95, 4), (0.97, 5))  # raise_at, raise_for
_BEFORE = 60  # slots of normal life before a risk


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="MANIFEST.csv")
    parser.add_argument("--member", choices=("edge", "cloud"), default="cloud")
    parser.add_argument("--hours", type=float, default=2.0, help="camera-hours of normal life")
    parser.add_argument("--label", default="fall", help="the risk whose alert is timed")


@dataclass(frozen=True, slots=True)
class _Streams:
    """Verdicts float64 (E, L) of consecutive events.

    Attributes:
        normal: of hours of normal life.
        risks: of each risk behind a minute of normal life, with its onset in slots.
        timed: for each risk, whether its delay counts.
        notes: what the streams are made of, and from where delays are counted.
    """

    normal: npt.NDArray[np.float64]
    risks: Sequence[tuple[npt.NDArray[np.float64], float]]
    timed: Sequence[bool]
    notes: Sequence[str]


def _measure(args: argparse.Namespace) -> Report:
    import torch

    from cloud_bridge.alerts.rules import AlertRule
    from familial.model import checkpoint

    torch.manual_seed(0)
    family = checkpoint.load(args.checkpoint)
    streams = _streams(family, args)
    rows = [["raise_at", "raise_for", "false alerts an hour", f"{args.label} alerts", "timed", "delay p50", "p90"]]
    points = []
    for raise_at, raise_for in _RULES:
        point, cells = _try_rule(
            AlertRule(raise_at=raise_at, raise_for=raise_for), streams, family.config, args.hours, args.label
        )
        points.append({"raise_at": raise_at, "raise_for": raise_for, **point})
        rows.append([f"{raise_at:g}", str(raise_for), *cells])
    figures = {"member": args.member, "hours": args.hours, "label": args.label, "rules": points}
    quiet = min(point["false_per_hour"] for point in points)
    return Report(quiet / 2.0, figures, rows, streams.notes)


def _streams(family: Family, args: argparse.Namespace) -> _Streams:
    """Encode and read the clips of the manifests. Raises DataError where there are none of a kind that is needed."""
    import numpy as np
    import torch

    from familial.data.clips import read_manifests

    config, rng = family.config, np.random.default_rng(0)
    clips = read_manifests(args.data, config.labels)
    normal = [_played(family, clip, whole=False)[0] for clip in clips if clip.label == config.labels[0]]
    events = [clip for clip in clips if clip.label == args.label]
    if not normal or not events:
        raise DataError(f"--data: clips of {config.labels[0]} and of {args.label} are needed; one of them is missing")
    risky = [_played(family, clip, whole=True) for clip in events]
    hours = _read(family, _strung(normal, round(args.hours * 3600 / config.window.slot_s), rng), args.member)
    risks = []
    for codes, onset in risky:
        before = _strung(normal, _BEFORE, rng)
        verdicts = _read(family, torch.cat((before, codes)), args.member)
        risks.append((verdicts, _BEFORE + onset / config.window.slot_s))
    known = [clip.onset_s is not None for clip in events]
    notes = [
        f"{args.member} member, {len(normal)} normal clips strung together, {len(risky)} of {args.label}",
        "timed: from the onset, where a manifest says it" if any(known) else "timed: from the clips' start",
    ]
    return _Streams(hours, risks, known if any(known) else [True] * len(events), notes)


def _try_rule(
    rule: AlertRule, streams: _Streams, config: FamilyConfig, hours: float, label: str
) -> tuple[dict[str, Any], list[str]]:
    """One setting of the hysteresis: its figures, and its cells of the table."""
    import numpy as np

    false = len(alerts(streams.normal, config.labels, rule)) / hours
    delays = np.array([_delay(verdicts, config, rule, at, label) for verdicts, at in streams.risks])
    found = np.isfinite(delays)
    timed = delays[found & streams.timed]
    p50, p90 = np.percentile(timed, [50, 90]) if len(timed) else (math.nan, math.nan)
    figures = {
        "false_per_hour": false,
        "found": float(found.mean()),
        "timed": len(timed),
        "delay_s": [float(p50), float(p90)],
    }
    of_timed = f"{len(timed)} of {sum(streams.timed)}"
    share = f"{found.sum()} of {len(found)}"
    return figures, [f"{false:.1f}", share, of_timed, f"{p50:.1f} s", f"{p90:.1f} s"]


def _played(family: Family, clip: Clip, whole: bool) -> tuple[torch.Tensor, float]:
    """Clean codes float (S, K, d) of the releases during which the clip plays, or all that still see it, and its onset
    in seconds."""
    from familial.evaluate.clip_inference import clip_codes
    from familial.evaluate.footage import family_footage

    footage = family_footage(clip.file, family.config)
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
    from familial.model.code_space import rounded_gaussian

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


COMMAND = Benchmark("alarms", __doc__, "2 false alerts per camera-hour", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
