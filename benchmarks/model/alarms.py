"""`python -m benchmarks.alarms [--data MANIFEST.csv]`: false alerts a day, risks found and delay, as curves.

    rendered life, a day of every camera  --noise--> events, stride 1 --member--> counting rule, event test
    clips of risks behind a minute of it  --the same------------------------------> found? how late?

Both rules read the same events. Rooms and risks are those of no training and no calibration. The event test
stands where the checkpoint's `alert_calibration.json` puts it for a budget; without that file, each half of the rooms
and of the risks is calibrated on the other half. With --data, real clips are strung together as well: the codes of
each while it plays, something new every few seconds, and no pause; they are halved by group, and so judged by clips of
other groups; a checkpoint with a left_out.json (`familial.train --folds`) is measured on the clips that it lists alone.
With --profile the noise is that of another profile, as an order sets it, and the table stays that of the checkpoint's.
A risk counts as found where its alert is raised within 20 releases of its onset (column onset_s of a
manifest; else the clip's start). Percentiles are of those found. What a day holds: `familial.evaluate.life.DAY`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one, former_name
from wire.errors import ConfigError
from wire.privacy.certificate import PROFILES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cloud_bridge.alerts.rules import AlertRule
    from familial.evaluate.life import Block, Said
    from familial.evaluate.life_readings import Risk
    from familial.evaluate.sequential import ScoreLaw
    from familial.model.config import FamilyConfig
    from familial.model.family import Family

__all__ = ["COMMAND", "alerts"]

_RULES = ((0.6, 2), (0.5, 1), (0.8, 2), (0.8, 3), (0.9, 3), (0.9, 4), (0.95, 4), (0.97, 5))  # raise_at, raise_for
_BUDGETS = (100.0, 24.0, 12.0, 10.0, 4.0, 1.0)  # false alerts a day, for each label; 12 by default, of two
_COMPARED = 24.0  # budget at which the two rules are compared
_WITHIN = 20  # releases after its onset in which a risk must raise its alert
_DAY_S = 86400.0


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv", help="real clips, too")
    parser.add_argument("--member", choices=("edge", "cloud"), default="cloud")
    parser.add_argument("--profile", choices=PROFILES, help="whose noise; default: the checkpoint's")
    parser.add_argument("--hours", type=float, default=24.0, help="camera-hours of normal life, of each source")
    parser.add_argument("--rooms", type=int, default=20, help="rendered rooms (default 20); 0: with --data, none")
    parser.add_argument("--risks", type=at_least_one, default=30, help="rendered clips of each risk (default 30)")
    count = parser.add_argument(
        "--noise-samples", type=at_least_one, default=4, metavar="N", help="of each risk (default 4)"
    )
    former_name(parser, "--draws", count)


@dataclass(frozen=True, slots=True)
class _Half:
    """Some of the readings, and the laws by which they are judged.

    Attributes:
        normal: what is said of each camera's hours, and the kind of life (E,) that each event shows.
        risks: with their readings.
        laws: label -> law, none of them fitted on these readings.
    """

    normal: Sequence[tuple[Said, npt.NDArray[np.str_]]]
    risks: Sequence[Risk]
    laws: dict[str, ScoreLaw]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one rule does: alerts as (kind of life) in normal life, delays in seconds (infinite: not found)."""

    rule: str
    label: str
    budget: float
    false: Sequence[str]
    delays: Sequence[float]


def _measure(args: argparse.Namespace) -> Report:
    import torch

    from familial.evaluate.clip_inference import sigma_of
    from familial.evaluate.life import DAY
    from familial.evaluate.life_clips import clip_blocks, left_out_of, releases_by_kind
    from familial.model import checkpoint

    torch.manual_seed(0)
    family = checkpoint.load(args.checkpoint)
    shares = {name: kind.share for name, kind in DAY.items()}
    sources: dict[str, tuple[list[Block], list[Block], dict[str, float]]] = {}
    if args.rooms < (0 if args.data else 1):
        raise ConfigError(f"--rooms {args.rooms}: give 1 or more; with --data, 0 leaves rendered life out")
    if args.profile and _table(args, str(sigma_of(args.checkpoint, family, None)[1])) is None:
        cure = f"run python -m calibration.alerts --checkpoint {args.checkpoint}"
        raise ConfigError(f"--profile: {args.checkpoint} has no table for its weights and member; {cure}")
    if args.rooms:
        sources["rendered"] = (*_rendered(family, args.rooms, args.risks), shares)
    if args.data:
        blocks, risks = clip_blocks(family, args.data, left_out_of(args.checkpoint))
        sources["real"] = (blocks, risks, releases_by_kind(blocks))
    rows = [["source", "rule", "risk", "false a day", "found", "delay p50", "p90"]]
    figures: dict[str, Any] = {"member": args.member, "profile": args.profile, "hours": args.hours}
    notes, ratio = list[str](), None
    for name, (blocks, risks, weights) in sources.items():
        halves, how = _halves(family, args, blocks, risks, weights)
        outcomes = [outcome for label in family.config.labels[1:] for outcome in _tried(halves, family.config, label)]
        outcomes += list(_lying(halves, family.config))
        hours = _hours(halves, family.config)
        rows += [[name, *_cells(outcome, sum(hours.values()))] for outcome in outcomes]
        figures[name] = {"hours": hours, "rules": [_figures(outcome, hours) for outcome in outcomes]}
        notes += [f"{name}: {len(blocks)} blocks of life, {len(risks)} risks; {how}", *_by_kind(name, outcomes, hours)]
        ratio = ratio or _ratio(outcomes, hours, family.config.labels[1])
    if "low" not in family.config.attributes:
        notes.append("lying still: not measured, the checkpoint has no attribute low")
    return Report(ratio, figures, rows, notes)


# --- what is seen


def _rendered(family: Family, rooms: int, count: int) -> tuple[list[Block], list[Block]]:
    from familial.data.splits import clip_seeds
    from familial.evaluate.life import ROOMS, blocks_of, risks_of
    from familial.evaluate.life_readings import looped

    seeds = clip_seeds("alarms", ROOMS)
    risks = [block for label in family.config.labels[1:] for block in risks_of(family, seeds, label, count)]
    stays = [looped(block, family.config.window.slot_s) for block in risks if block.kind == "fall"]
    kept = [block for block in stays if block is not None and "low" in family.config.attributes]
    return list(blocks_of(family, seeds, rooms)), risks + kept


def _halves(
    family: Family, args: argparse.Namespace, blocks: Sequence[Block], risks: Sequence[Block], weights: dict[str, float]
) -> tuple[list[_Half], str]:
    """Read everything; each half has the laws of the checkpoint's table, or those fitted on the other half."""
    from calibration.alerts import calibrate
    from familial.evaluate.clip_inference import sigma_of
    from familial.evaluate.life_readings import Readings, record

    sources = sorted({block.source for block in [*blocks, *risks]})
    half_of = {source: number % 2 for number, source in enumerate(sources)}
    own, sigma = (sigma_of(args.checkpoint, family, profile)[1] for profile in (None, args.profile))
    table = _table(args, str(own))
    read = list[Readings]()
    for half in (0, 1):
        life = [block for block in blocks if half_of[block.source] == half] or blocks
        some = [block for block in risks if half_of[block.source] == half] or risks
        hours, samples = args.hours / 2, args.noise_samples
        how = (hours, weights, args.member, samples, half, float(own))
        read.append(record(family, float(sigma), life, some, *how))
    if table is not None:
        laws = [table, table]
    else:
        laws = [dict(calibrate(read[1 - half], family, "", str(sigma), "")[0].laws) for half in (0, 1)]
    made = [
        _Half(list(zip(found.normal, found.kinds, strict=True)), found.risks, laws[half])
        for half, found in enumerate(read)
    ]
    return made, "thresholds by the checkpoint's table" if table else "each half calibrated on the other"


def _table(args: argparse.Namespace, sigma: str) -> dict[str, ScoreLaw] | None:
    """The laws of the checkpoint's table; None where it has none for these weights and this noise."""
    from familial.evaluate.sequential import AlertCalibration
    from familial.model.checkpoint import checkpoint_hash

    found = AlertCalibration.read(args.checkpoint)
    fits = found is not None and (found.checkpoint, found.sigma) == (checkpoint_hash(args.checkpoint), sigma)
    return dict(found.laws) if found is not None and fits and args.member == "cloud" else None


# --- what the rules do


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


def _tried(halves: Sequence[_Half], config: FamilyConfig, label: str) -> Iterator[_Outcome]:
    """Both rules at all their settings, on one label."""
    from cloud_bridge.alerts.rules import AlertRule

    for raise_at, raise_for in _RULES:
        rule = AlertRule(raise_at=raise_at, clear_at=min(0.4, raise_at / 2), raise_for=raise_for)
        yield _counted(halves, config, label, rule)
    for budget in _BUDGETS:
        yield _tested(halves, config, label, budget)


def _counted(halves: Sequence[_Half], config: FamilyConfig, label: str, rule: AlertRule) -> _Outcome:
    false, delays = list[str](), list[float]()
    for half in halves:
        for life, kinds in half.normal:
            false += [str(kinds[at]) for at, said in alerts(life.labels, config.labels, rule) if said == label]
        for risk in half.risks:
            if risk.label == label:
                at = [index for index, said in alerts(risk.said.labels, config.labels, rule) if said == label]
                delays.append(_delay(at, risk.onset, config, _WITHIN))
    return _Outcome(f"{rule.raise_at:g}, {rule.raise_for}", label, math.nan, false, delays)


def _tested(halves: Sequence[_Half], config: FamilyConfig, label: str, budget: float) -> _Outcome:
    false, delays = list[str](), list[float]()
    for half in halves:
        law = half.laws.get(label)
        point = law.at_most(budget) if law else None
        if point is None:
            return _Outcome(f"budget {budget:g} (not supported)", label, budget, [], [])
        for life, kinds in half.normal:
            false += [str(kinds[event]) for event in _weighed(half, life, label, config, point.threshold)]
        for risk in half.risks:
            if risk.label == label:
                events = _weighed(half, risk.said, label, config, point.threshold)
                delays.append(_delay(events, risk.onset, config, _WITHIN))
    return _Outcome(f"budget {budget:g}", label, budget, false, delays)


def _weighed(half: _Half, said: Said, label: str, config: FamilyConfig, threshold: float) -> list[int]:
    """Events at which the bridge's `EvidenceRule` would raise the alert of a label."""
    import numpy as np

    from calibration.alert_tables import contested, evidence_of, raised

    releases = config.event_releases
    found = {
        name: evidence_of(half.laws[name], said.scores[:, index], releases, said.noise)
        for index, name in enumerate(config.labels[1:])
        if name in half.laws
    }
    limit = half.laws[label].threshold_at(threshold, [said.noise] * releases)
    return raised(contested(found.pop(label), list(found.values())), np.array([limit]))[0]


def _lying(halves: Sequence[_Half], config: FamilyConfig) -> Iterator[_Outcome]:
    """Somebody who stays on the floor, at every budget; nothing where the family does not tell it."""
    from familial.evaluate.lying import LYING_STILL

    if any(LYING_STILL not in half.laws for half in halves):
        return
    for budget in _BUDGETS:
        found = [_lying_in(half, config, budget) for half in halves]
        if None in found:
            yield _Outcome(f"budget {budget:g} (not supported)", LYING_STILL, budget, [], [])
            continue
        false, delays = (sum((part[side] for part in found if part), []) for side in (0, 1))
        yield _Outcome(f"budget {budget:g}", LYING_STILL, budget, false, delays)


def _lying_in(half: _Half, config: FamilyConfig, budget: float) -> tuple[list[Any], list[Any]] | None:
    """False alerts, by kind of life, and delays; None where the budget is not supported."""
    from calibration.alert_tables import lying_raised
    from familial.evaluate.lying import ARMING_PER_DAY, LEAST_LIE_S, LOW, LYING_STILL, log_odds

    laws = half.laws["fall"], half.laws[LYING_STILL]
    arming, point = laws[0].at_most(ARMING_PER_DAY), laws[1].at_most(budget)
    if arming is None or point is None:
        return None
    fall, low = config.labels.index("fall") - 1, config.attributes.index(LOW)
    slots = round(LEAST_LIE_S / config.window.slot_s)

    def turned(said: Said) -> list[int]:
        scores = said.scores[:, fall], log_odds(said.shares, low, 1.0 - said.shares[:, low])
        steps = (config.event_releases, arming.threshold, slots)
        return lying_raised(laws, scores, *steps, said.noise)(point.threshold)

    false = [str(kinds[event]) for life, kinds in half.normal for event in turned(life)]
    lies = [risk for risk in half.risks if risk.label == LYING_STILL]
    return false, [_delay(turned(risk.said), risk.onset, config, math.inf) for risk in lies]


def _delay(events: Sequence[int], onset: float, config: FamilyConfig, within: float) -> float:
    """Seconds from the onset (in releases) to the end of the first event after it that raises the alert."""
    late = [index + config.event_releases - onset for index in events]
    after = [each for each in late if 0 <= each <= within]
    return after[0] * config.window.slot_s if after else math.inf


# --- what is told


def _hours(halves: Sequence[_Half], config: FamilyConfig) -> dict[str, float]:
    """Hours of each kind of life."""
    from collections import Counter

    counts: Counter[str] = Counter()
    for half in halves:
        for _, kinds in half.normal:
            counts.update(kinds.tolist())
    return {kind: count * config.window.slot_s / 3600.0 for kind, count in counts.items()}


def _percentiles(outcome: _Outcome) -> tuple[float, float, float]:
    """Share found, and delay p50 and p90 of those, NaN where there is none."""
    import numpy as np

    found = [delay for delay in outcome.delays if math.isfinite(delay)]
    p50, p90 = np.percentile(found, [50, 90]) if found else (math.nan, math.nan)
    return len(found) / max(1, len(outcome.delays)), float(p50), float(p90)


def _cells(outcome: _Outcome, hours: float) -> list[str]:
    if not outcome.delays:
        return [outcome.rule, outcome.label, "", "", "", ""]
    share, p50, p90 = _percentiles(outcome)
    rate = len(outcome.false) / hours * 24.0
    return [outcome.rule, outcome.label, f"{rate:.1f}", f"{share:.3f}", f"{p50:.1f} s", f"{p90:.1f} s"]


def _figures(outcome: _Outcome, hours: dict[str, float]) -> dict[str, Any]:
    share, p50, p90 = _percentiles(outcome)
    by_kind = {kind: round(sum(at == kind for at in outcome.false) / of * 24.0, 2) for kind, of in hours.items()}
    return {
        "rule": outcome.rule,
        "label": outcome.label,
        "false_per_day": len(outcome.false) / sum(hours.values()) * 24.0,
        "found": share,
        "of": len(outcome.delays),
        "delay_s": [None if math.isnan(value) else value for value in (p50, p90)],
        "by_kind": by_kind,
    }


def _by_kind(name: str, outcomes: Sequence[_Outcome], hours: dict[str, float]) -> Iterator[str]:
    """False alerts a day of each kind of life, of the bridge's default and of the budget that is compared."""
    for outcome in outcomes:
        if outcome.rule in ("0.6, 2", f"budget {_COMPARED:g}"):
            rates = _figures(outcome, hours)["by_kind"]
            told = ", ".join(f"{kind} {rate:.0f}" for kind, rate in rates.items())
            yield f"{name}, {outcome.label}, {outcome.rule}: a day of each kind alone has {told}"


def _ratio(outcomes: Sequence[_Outcome], hours: dict[str, float], label: str) -> float | None:
    """Share found by the event test over that by the best counting rule, at no more false alerts a day."""
    total = sum(hours.values()) / 24.0
    rows = [each for each in outcomes if each.label == label and len(each.false) / total <= _COMPARED and each.delays]
    counted = [_percentiles(each)[0] for each in rows if math.isnan(each.budget)]
    tested = [_percentiles(each)[0] for each in rows if not math.isnan(each.budget)]
    return max(tested) / max(counted) if tested and counted and max(counted) > 0 else None


COMMAND = Benchmark(
    "alarms",
    __doc__,
    f"the share that the best counting rule finds, both at {_COMPARED:g} false alerts a day at most",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
