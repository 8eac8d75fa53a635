"""Calibrates alerts: normal life and risks, rendered -> what a budget of false alerts a day costs, as a table.

    rooms of normal life, clips of risks --codes, + noise, cloud member--> scores of hours
    scores --alert_tables--> alert_calibration.json beside the weights
    [alerts] false_per_day = 1 --the bridge, by that file--> threshold of each label; the delay is printed

    python -m calibration.alerts [--checkpoint DIR] [--hours 24] [--rooms 25]

The noise's law is known exactly, so noise is drawn for as many hours as are asked for; the scenes are those of
`familial.evaluate.life`, in rooms that no training and no benchmark sees. A table holds for one checkpoint and one
sigma. "lying still" needs a family with the attribute `low`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.alert_tables import Recorded, fit, fit_lying
from familial.evaluate.sequential import (
    ARMING_PER_DAY,
    LEAST_LIE_S,
    LOW,
    LYING_STILL,
    AlertCalibration,
    ScoreLaw,
    log_odds,
)
from wire.arguments import at_least_one
from wire.errors import DataError, VeilsightError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from familial.evaluate.life_readings import Readings
    from familial.model.family import Family

__all__ = ["calibrate", "main"]


def calibrate(
    readings: Readings, family: Family, checkpoint: str, sigma: str, made_of: str
) -> tuple[AlertCalibration, dict[str, str]]:
    """Fit the law and the table of every risk.

    Returns:
        The tables, and label -> why it has none.
    """
    config = family.config
    releases, slot_s = config.event_releases, config.window.slot_s
    laws, lacking = dict[str, ScoreLaw](), dict[str, str]()
    for label in config.labels[1:]:
        try:
            laws[label] = fit(_recorded(readings, label, label, config.labels), releases, slot_s)
        except DataError as error:
            lacking[label] = str(error)
    try:
        laws[LYING_STILL] = _lying(readings, family, laws)
    except DataError as error:
        lacking[LYING_STILL] = str(error)
    hours = sum(len(labels) for labels, _ in readings.normal) * slot_s / 3600.0
    return AlertCalibration(checkpoint, sigma, made_of, round(hours, 3), laws), lacking


def _lying(readings: Readings, family: Family, laws: Mapping[str, ScoreLaw]) -> ScoreLaw:
    """The law of somebody who lies still. Raises DataError where it cannot be told."""
    config, fall = family.config, laws.get("fall")
    if LOW not in config.attributes:
        raise DataError(f"the checkpoint has no attribute {LOW} (familial.train --attributes)")
    armed = fall.at_most(ARMING_PER_DAY) if fall else None
    if fall is None or armed is None:
        raise DataError(f"falls have no threshold at {ARMING_PER_DAY:g} false alerts a day, after which one may lie")
    falls = _recorded(readings, LYING_STILL, "fall", config.labels)
    low = _lows(readings, config.attributes.index(LOW))
    shape = (config.event_releases, config.window.slot_s)
    return fit_lying(fall, falls, low, *shape, armed.threshold, LEAST_LIE_S)


def _recorded(readings: Readings, kind: str, label: str, labels: Sequence[str]) -> Recorded:
    """Scores of `label` in normal life, and in the risks of one kind."""
    index = list(labels).index(label)
    normal = [log_odds(said, index, said[:, 0]) for said, _ in readings.normal]
    risks = [risk for risk in readings.risks if risk.label == kind]
    return Recorded(normal, [(log_odds(risk.labels, index, risk.labels[:, 0]), risk.onset) for risk in risks])


def _lows(readings: Readings, index: int) -> Recorded:
    normal = [log_odds(shares, index, 1.0 - shares[:, index]) for _, shares in readings.normal]
    risks = [risk for risk in readings.risks if risk.label == LYING_STILL]
    return Recorded(normal, [(log_odds(each.shares, index, 1.0 - each.shares[:, index]), each.onset) for each in risks])


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate and write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m calibration.alerts", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"), metavar="DIR")
    parser.add_argument("--hours", type=float, default=24.0, help="camera-hours of normal life (default 24)")
    parser.add_argument("--rooms", type=at_least_one, default=25, help="rooms they show (default 25)")
    parser.add_argument("--risks", type=at_least_one, default=50, help="clips of each risk (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="of order and noise (default 0)")
    try:
        return _run(parser.parse_args(argv))
    except VeilsightError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    from familial.data.splits import clip_seeds
    from familial.evaluate.clip_inference import sigma_of
    from familial.evaluate.life import DAY, ROOMS, blocks_of, risks_of
    from familial.evaluate.life_readings import looped, record
    from familial.model import checkpoint

    family = checkpoint.load(args.checkpoint)
    sigma = sigma_of(args.checkpoint, family, None)[1]
    began, seeds = time.monotonic(), clip_seeds("alerts", ROOMS)
    blocks = list(blocks_of(family, seeds, args.rooms))
    risks = [block for label in family.config.labels[1:] for block in risks_of(family, seeds, label, args.risks)]
    _say(f"{len(blocks)} minutes of life, {len(risks)} risks rendered", began)
    stays = [looped(block, family.config.window.slot_s) for block in risks if block.kind == "fall"]
    risks += [block for block in stays if block is not None and LOW in family.config.attributes]
    shares = {name: kind.share for name, kind in DAY.items()}
    readings = record(family, float(sigma), blocks, risks, args.hours, shares, seed=args.seed)
    _say(f"{args.hours:g} camera-hours read", began)
    made_of = f"{args.rooms} rendered rooms, {args.risks} clips of each risk, seed {args.seed}"
    made, lacking = calibrate(readings, family, checkpoint.checkpoint_hash(args.checkpoint), str(sigma), made_of)
    for label, law in made.laws.items():
        print("\n".join(_told(label, law)))
    for label, why in lacking.items():
        print(f"{label}: no table: {why}")
    print(f"wrote {made.save(args.checkpoint)}")
    return 0


def _told(label: str, law: ScoreLaw) -> Iterator[str]:
    yield f"{label}: rises by {law.rise:.2f}, spread {law.spread:.2f}; budgets from {law.least:.2g} a day"
    for budget in (100.0, 24.0, 10.0, 4.0, 1.0):
        point = law.at_most(budget)
        if point is None:
            yield f"  {budget:5g} a day: not supported"
        else:
            yield (
                f"  {budget:5g} a day: evidence {point.threshold:.2f}, found {point.found:.2f}, "
                f"delay p50 {point.delay_p50_s:.1f} s, p90 {point.delay_p90_s:.1f} s"
            )


def _say(what: str, began: float) -> None:
    print(f"{what} ({time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
