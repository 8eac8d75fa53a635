"""Calibrates alerts: normal life and risks, rendered -> what a budget of false alerts a day costs, as a table.

    rooms of normal life, clips of risks --codes, + noise, cloud member--> scores of hours
    scores --alert_tables--> alert_calibration.json beside the weights
    [alerts] false_per_day = 1 --the bridge, by that file--> threshold of each label; the delay is printed

    python -m calibration.alerts [--checkpoint DIR] [--hours 24] [--rooms 70]
    python -m calibration.alerts --checkpoint DIR --data MANIFEST.csv --folds DIR

The noise's law is known exactly, so noise is drawn for as many hours as are asked for; the scenes are those of
`familial.evaluate.life`, in rooms that no training and no benchmark sees. With --data they are clips of your own: each
is read by the family of --folds that left it out (`familial.train --folds`), strung to days of something new every few
seconds. A table holds for one checkpoint and one sigma. "lying still" needs a family with the attribute `low`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.alert_tables import Recorded, fit, fit_lying, law_of
from familial.evaluate.lying import ARMING_PER_DAY, LEAST_LIE_S, LOW, LYING_STILL, log_odds
from familial.evaluate.sequential import AlertCalibration, ScoreLaw
from wire.arguments import at_least_one
from wire.errors import ConfigError, DataError, VeilsightError
from wire.privacy.certificate import round_up

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from familial.evaluate.life import Said
    from familial.evaluate.life_readings import Readings
    from familial.model.family import Family

__all__ = ["calibrate", "main"]

_ALIKE = ("labels", "attributes", "tokens", "width", "clip_norm", "rank", "window", "event_releases")
"""Of a config: what a fold must share with the checkpoint whose table it makes."""


def calibrate(
    readings: Readings, family: Family, checkpoint: str, sigma: str, made_of: str
) -> tuple[AlertCalibration, dict[str, str]]:
    """Fit the law and the table of every risk.

    Args:
        readings: of hours of life and of risks.
        family: whose they are.
        checkpoint: hash of its weights.
        sigma: of the noise in them, in lattice units, as text.
        made_of: of what they are, in words.

    Returns:
        The tables, and label -> why it has none.
    """
    from familial.model.code_space import risk_directions

    config = family.config
    releases, slot_s = config.event_releases, config.window.slot_s
    laws, lacking = dict[str, ScoreLaw](), dict[str, str]()
    rows = risk_directions(len(config.labels), config.tokens, config.width).double() / float(Fraction(sigma))
    directions = dict(zip(config.labels[1:], rows.tolist(), strict=True))
    for label in config.labels[1:]:
        try:
            laws[label] = law_of(_recorded(readings, label, label, config.labels), releases, directions[label])
        except DataError as error:
            lacking[label] = str(error)
    found = dict(laws)
    for label, law in found.items():
        rivals = [(found[other], _recorded(readings, label, other, config.labels)) for other in found if other != label]
        laws[label] = fit(law, _recorded(readings, label, label, config.labels), releases, slot_s, rivals)
    try:
        laws[LYING_STILL] = _lying(readings, family, laws)
    except DataError as error:
        lacking[LYING_STILL] = str(error)
    hours = sum(len(said.labels) for said in readings.normal) * slot_s / 3600.0
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
    """Scores of `label` in normal life, and in the risks of one kind: of every release."""
    risk = list(labels).index(label) - 1
    found = [each for each in readings.risks if each.label == kind]
    return Recorded(
        [said.scores[:, risk] for said in readings.normal], [(r.said.scores[:, risk], r.onset) for r in found]
    )


def _lows(readings: Readings, index: int) -> Recorded:
    """Scores of "low", of every event."""
    risks = [risk for risk in readings.risks if risk.label == LYING_STILL]
    return Recorded([_low(said, index) for said in readings.normal], [(_low(r.said, index), r.onset) for r in risks])


def _low(said: Said, index: int) -> npt.NDArray[np.float64]:
    return log_odds(said.shares, index, 1.0 - said.shares[:, index])


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate and write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m calibration.alerts", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"), metavar="DIR")
    parser.add_argument("--hours", type=float, default=24.0, help="camera-hours of normal life (default 24)")
    parser.add_argument("--rooms", type=at_least_one, default=70, help="rooms they show (default 70)")
    parser.add_argument("--risks", type=at_least_one, default=50, help="clips of each risk (default 50)")
    parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv", help="clips of your own")
    parser.add_argument("--folds", type=Path, metavar="DIR", help="families that left parts of --data out")
    parser.add_argument("--seed", type=int, default=0, help="of order and noise (default 0)")
    try:
        return _run(parser.parse_args(argv))
    except VeilsightError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    from familial.evaluate.clip_inference import sigma_of
    from familial.model import checkpoint

    if bool(args.data) != bool(args.folds):
        raise ConfigError("--data and --folds go together: a family that was trained on a clip flatters itself there")
    family = checkpoint.load(args.checkpoint)
    sigma = sigma_of(args.checkpoint, family, None)[1]
    began = time.monotonic()
    readings, made_of = (_of_clips if args.data else _rendered)(args, family, float(sigma), began)
    _say(f"{args.hours:g} camera-hours read", began)
    made, lacking = calibrate(readings, family, checkpoint.checkpoint_hash(args.checkpoint), str(sigma), made_of)
    for label, law in made.laws.items():
        print("\n".join(_told(label, law)))
    for label, why in lacking.items():
        print(f"{label}: no table: {why}")
    print(f"wrote {made.save(args.checkpoint)}")
    return 0


def _rendered(args: argparse.Namespace, family: Family, sigma: float, began: float) -> tuple[Readings, str]:
    """Rendered life and risks, and what they are in words."""
    from familial.data.splits import clip_seeds
    from familial.evaluate.life import DAY, ROOMS, blocks_of, risks_of
    from familial.evaluate.life_readings import looped, record

    seeds = clip_seeds("alerts", ROOMS)
    blocks = list(blocks_of(family, seeds, args.rooms))
    risks = [block for label in family.config.labels[1:] for block in risks_of(family, seeds, label, args.risks)]
    _say(f"{len(blocks)} minutes of life, {len(risks)} risks rendered", began)
    stays = [looped(block, family.config.window.slot_s) for block in risks if block.kind == "fall"]
    risks += [block for block in stays if block is not None and LOW in family.config.attributes]
    shares = {name: kind.share for name, kind in DAY.items()}
    readings = record(family, sigma, blocks, risks, args.hours, shares, seed=args.seed)
    return readings, f"{args.rooms} rendered rooms, {args.risks} clips of each risk, seed {args.seed}"


def _of_clips(args: argparse.Namespace, family: Family, sigma: float, began: float) -> tuple[Readings, str]:
    """Clips as the families read them that left them out, and what they are in words."""
    from familial.evaluate.clip_scores import load_folds
    from familial.evaluate.life_clips import clip_blocks, releases_by_kind
    from familial.evaluate.life_readings import Readings, joined, record

    folds, parts, count = load_folds(args.folds), list[Readings](), 0
    for number, (fold, names) in enumerate(folds):
        for name in _ALIKE:
            if getattr(fold.config, name) != getattr(family.config, name):
                raise ConfigError(
                    f"--folds: {name} of fold {number} is {getattr(fold.config, name)}, of the checkpoint "
                    f"{getattr(family.config, name)}; give the folds of the same recipe"
                )
        blocks, risks = clip_blocks(fold, args.data, names)
        hours, shares = args.hours / len(folds), releases_by_kind(blocks)
        parts.append(record(fold, sigma, blocks, risks, hours, shares, seed=args.seed + number))
        count += len(blocks) + sum(block.kind in fold.config.labels for block in risks)
        _say(f"fold {number}: {len(blocks)} clips of no risk, {len(risks)} of a risk", began)
    return joined(parts), f"{count} clips, each read by the one of {len(folds)} families that left it out"


def _told(label: str, law: ScoreLaw) -> Iterator[str]:
    yield f"{label}: rises by {law.rise:.2f}, spread {law.spread:.2f}; budgets from {round_up(law.least, 2)} a day"
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
