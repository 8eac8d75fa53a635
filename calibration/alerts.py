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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from calibration.alert_tables import Recorded, fit, fit_lying
from familial.evaluate.sequential import (
    ARMING_PER_DAY,
    LEAST_LIE_S,
    LOW,
    LYING_STILL,
    AlertCalibration,
    ScoreLaw,
    score,
)
from wire.arguments import at_least_one
from wire.errors import DataError, VeilsightError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from familial.evaluate.life import Block
    from familial.model.family import Family

__all__ = ["Readings", "Risk", "calibrate", "log_odds", "looped", "main", "record"]

_BEFORE = 60  # releases of normal life before a risk
_LIES_S = 180.0  # how long somebody stays on the floor
_STEADY = 4  # releases of lying that can be looped

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Risk:
    """What the member says of a risk behind a minute of normal life.

    Attributes:
        label: its label; LYING_STILL for a fall after which somebody stays down.
        onset: in releases, from the first.
        labels: float (E, L).
        shares: float (E, A).
    """

    label: str
    onset: float
    labels: Floats
    shares: Floats


@dataclass(frozen=True, slots=True)
class Readings:
    """What the member says of hours of life and of risks.

    Attributes:
        normal: probabilities (E, L) and attributes (E, A), one pair a camera.
        kinds: the kind of life that the last release of each event shows, one array (E,) a camera.
        risks: behind a minute of life each.
    """

    normal: Sequence[tuple[Floats, Floats]]
    kinds: Sequence[npt.NDArray[np.str_]]
    risks: Sequence[Risk]


def record(
    family: Family,
    sigma: float,
    blocks: Sequence[Block],
    risks: Sequence[Block],
    hours: float,
    shares: Mapping[str, float],
    member: str = "cloud",
    samples: int = 4,
    seed: int = 0,
) -> Readings:
    """String life together, add noise and read it all.

    Args:
        family: whose member reads.
        sigma: of the noise, in lattice units.
        blocks: of normal life.
        risks: of risks.
        hours: of normal life, all cameras together.
        shares: kind of life -> share of a day.
        member: "edge" or "cloud".
        samples: noise samples of each risk.
        seed: of order and noise.

    Raises:
        DataError: there is no normal life, or no risk.
    """
    import torch

    from familial.evaluate.life import read, strung

    if not blocks or not risks:
        raise DataError("normal life and risks are needed; one of them is missing")
    rng, noise = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    releases, slot_s = family.config.event_releases, family.config.window.slot_s
    streams = strung(blocks, round(hours * 3600.0 / slot_s), rng, shares)
    normal = [read(family, stream.codes, sigma, member, noise) for stream in streams if len(stream.codes) >= releases]
    kinds = [stream.kinds[releases - 1 :] for stream in streams if len(stream.codes) >= releases]
    found = list[Risk]()
    for risk in risks:
        for _ in range(samples):
            before = blocks[int(rng.integers(len(blocks)))].codes[-_BEFORE:]
            said = read(family, torch.cat((before, risk.codes)), sigma, member, noise)
            found.append(Risk(risk.kind, len(before) + risk.onset, *said))
    return Readings(normal, kinds, found)


def looped(fall: Block, slot_s: float) -> Block | None:
    """A fall after which somebody stays on the floor for minutes: its last releases, again and again."""
    import torch

    from familial.evaluate.life import Block

    first, last = fall.lying
    if last - first < _STEADY:
        return None
    again: Tensor = fall.codes[first:last].repeat(int(_LIES_S / slot_s) // (last - first) + 1, 1, 1)
    return Block(LYING_STILL, torch.cat((fall.codes[:last], again)), fall.source, fall.onset)


def log_odds(probabilities: Floats, index: int, other: Floats) -> Floats:
    """Scores (E,) of column `index` of (E, L) against `other` (E,)."""
    pairs = zip(probabilities[:, index].tolist(), other.tolist(), strict=True)
    return np.array([score(one, two) for one, two in pairs])


def calibrate(readings: Readings, family: Family, checkpoint: str, sigma: str, made_of: str) -> AlertCalibration:
    """Fit the law and the table of every risk.

    Raises:
        DataError: a risk has no clips, or does not raise its score.
    """
    config = family.config
    releases, slot_s = config.event_releases, config.window.slot_s
    scored = {label: _recorded(readings, label, label, config.labels) for label in config.labels[1:]}
    laws = {label: fit(found, releases, slot_s) for label, found in scored.items()}
    if LOW in config.attributes and "fall" in laws:
        falls = _recorded(readings, LYING_STILL, "fall", config.labels)
        low = _lows(readings, config.attributes.index(LOW))
        armed = laws["fall"].at_most(ARMING_PER_DAY)
        if armed is not None and falls.risks:
            laws[LYING_STILL] = fit_lying(laws["fall"], falls, low, releases, slot_s, armed.threshold, LEAST_LIE_S)
    hours = sum(len(labels) for labels, _ in readings.normal) * slot_s / 3600.0
    return AlertCalibration(checkpoint, sigma, made_of, round(hours, 3), laws)


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
    import torch

    from familial.evaluate.clip_inference import sigma_of
    from familial.evaluate.life import DAY, blocks_of, risks_of
    from familial.model import checkpoint

    torch.set_num_threads(1)
    family = checkpoint.load(args.checkpoint)
    sigma = sigma_of(args.checkpoint, family, None)[1]
    began = time.monotonic()
    blocks = list(blocks_of(family, "alerts", args.rooms))
    risks = [block for label in family.config.labels[1:] for block in risks_of(family, "alerts", label, args.risks)]
    _say(f"{len(blocks)} minutes of life, {len(risks)} risks rendered", began)
    stays = [looped(block, family.config.window.slot_s) for block in risks if block.kind == "fall"]
    risks += [block for block in stays if block is not None and LOW in family.config.attributes]
    shares = {name: kind.share for name, kind in DAY.items()}
    readings = record(family, float(sigma), blocks, risks, args.hours, shares, seed=args.seed)
    _say(f"{args.hours:g} camera-hours read", began)
    made_of = f"{args.rooms} rendered rooms, {args.risks} clips of each risk, seed {args.seed}"
    made = calibrate(readings, family, checkpoint.checkpoint_hash(args.checkpoint), str(sigma), made_of)
    for label, law in made.laws.items():
        print("\n".join(_told(label, law)))
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
