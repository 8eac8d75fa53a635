"""`python -m benchmarks.routing --data MANIFEST.csv`: which exit answers an event, what that costs, and what it gives.

    clips --codes + noise--> edge exit --confidence <= threshold--> cloud exit: AUC and F1 of clips, share asked,
                                                                     seconds of the cloud's blocks
    thresholds by conformal risk control on half of the places --> how often the exits differ, unasked, on the others
    events of eight cameras --made links, with outages--> verdicts at once, reconciled later, never

The edge's exit has read every event before anything is asked, so verdicts go on without the link. Seconds are of one
thread's CPU time for the blocks behind the exit alone, the cheapest cloud there is. A clip's risk is read of its
events, some of one exit and some of the other. Without --data, rendered clips whose seeds training never uses.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import add_checkpoint
from benchmarks.model.routing_policy import LINKS, risk_controlled, simulate
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one, former_name
from wire.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from benchmarks.privacy.frontier import Clips
    from familial.model.family import Family

__all__ = ["COMMAND", "Read"]

_THRESHOLDS = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
_LEVELS = (0.01, 0.02, 0.05)
_SPLITS, _RESAMPLES = 200, 1000
_CAMERAS, _ROOM, _PATIENCE_S = 8, 64, 600
_SOON_S = 2.0
_COST = 256  # events in the forwards that are timed


@dataclass(frozen=True, slots=True)
class Read:
    """One clip, read by both exits under D noise samples.

    Attributes:
        risk: whether it shows one.
        group: its place.
        edge: label probabilities float (D, E, L).
        cloud: the same of the cloud's exit.
    """

    risk: bool
    group: str
    edge: npt.NDArray[np.float64]
    cloud: npt.NDArray[np.float64]

    @property
    def confidence(self) -> npt.NDArray[np.float64]:
        """float (D, E), of the edge's exit."""
        import numpy as np

        return np.asarray(self.edge.max(axis=2), np.float64)

    @property
    def differs(self) -> npt.NDArray[np.bool_]:
        """bool (D, E): whether the likeliest labels of the exits differ."""
        import numpy as np

        return np.asarray(self.edge.argmax(axis=2) != self.cloud.argmax(axis=2))

    def scores(self, threshold: float) -> npt.NDArray[np.float64]:
        """The clip's probability of risk float (D,), where the cloud is asked at or below `threshold`."""
        import numpy as np

        from familial.evaluate.clip_inference import clip_probabilities

        asked = (self.confidence <= threshold)[:, :, None]
        return np.asarray(1.0 - clip_probabilities(np.where(asked, self.cloud, self.edge))[:, 0])


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv")
    parser.add_argument("--rendered", type=at_least_one, default=150, help="clips to render where there is no --data")
    count = parser.add_argument("--noise-samples", type=at_least_one, default=5, metavar="N", help="of each clip")
    former_name(parser, "--draws", count)


def _read(family: Family, clips: Clips, samples: int) -> list[Read]:
    import torch

    from familial.evaluate.clip_inference import event_probabilities
    from familial.model.code_space import rounded_gaussian

    torch.manual_seed(0)
    found = list[Read]()
    for row, label, code in zip(clips.rows, clips.truth, clips.codes, strict=True):
        z = code[None].repeat(samples, 1, 1, 1)
        z = z + rounded_gaussian(z, family.config.sigma)
        edge, cloud = (event_probabilities(family, z, member) for member in ("edge", "cloud"))
        found.append(Read(label > 0, row.group or row.name, edge, cloud))
    if len({each.group for each in found}) < 4 or len({each.risk for each in found}) < 2:
        raise DataError("fewer than four places, or clips of one kind alone; give more clips")
    return found


def _bytes(family: Family) -> int:
    """What the remote member sends of an event."""
    import numpy as np

    from cloud_bridge.inference.prompts import PromptMaker
    from cloud_bridge.ingest.events import Event

    config = family.config
    z = np.zeros((config.event_releases, config.tokens, config.width), np.int32)
    event = Event("site/camera", 1, 0, config.event_releases - 1, z, np.ones(config.event_releases, bool))
    return len(PromptMaker(family).questions([event])[0][1])


def _seconds(family: Family) -> float:
    """CPU seconds of the blocks behind the exit, of one event in a batch of 64."""
    import torch

    config = family.config
    z = torch.randn(64, config.event_releases, config.tokens, config.width) * config.sigma
    present, rounds = torch.ones(64, config.event_releases, dtype=torch.bool), _COST // 64
    with torch.inference_mode():
        state = family.exit_state(z, present)
        family.continue_from(state, present)
        began = time.process_time()
        for _ in range(rounds):
            family.continue_from(state, present)
    return (time.process_time() - began) / _COST


# --- thresholds


def _auc(read: Sequence[Read], threshold: float) -> float:
    """Mean over noise samples of the area under the curve of clips."""
    import numpy as np

    from familial.evaluate.metrics import area_under_curve

    scores, risk = np.stack([each.scores(threshold) for each in read]), np.array([each.risk for each in read])
    return float(np.mean([area_under_curve(1.0 - column, risk) for column in scores.T]))


def _f1(read: Sequence[Read], threshold: float, called_at: float) -> float:
    import numpy as np

    from familial.evaluate.metrics import risk_metrics

    scores, truth = np.stack([each.scores(threshold) for each in read]), [int(each.risk) for each in read]
    called = (scores >= called_at).astype(int)
    return float(np.mean([risk_metrics(truth, column.tolist(), [1])["f1"] for column in called.T]))


def _shares(read: Sequence[Read], threshold: float) -> tuple[float, float]:
    """Shares of events that are asked, and that the edge answers although the cloud differs; clips count alike."""
    import numpy as np

    asked = np.mean([(each.confidence <= threshold).mean() for each in read])
    lost = np.mean([((each.confidence > threshold) & each.differs).mean() for each in read])
    return float(asked), float(lost)


def _difference(read: Sequence[Read]) -> tuple[float, tuple[float, float]]:
    """AUC of the cloud's exit less the edge's, mean over noise samples, and its interval over places drawn anew."""
    import numpy as np

    from familial.evaluate.intervals import quantile_interval
    from familial.evaluate.metrics import area_under_curve

    risk, groups = np.array([each.risk for each in read]), [each.group for each in read]
    exits = [np.stack([1.0 - each.scores(at) for each in read], axis=1) for at in (0.0, 1.0)]  # (D, clips)
    names, rng = sorted(set(groups)), np.random.default_rng(0)
    members = [np.flatnonzero([group == name for group in groups]) for name in names]
    found = list[float]()
    while len(found) < _RESAMPLES:
        drawn = np.concatenate([members[n] for n in rng.integers(0, len(names), len(names))])
        if 0 < risk[drawn].sum() < len(drawn):
            edge, cloud = (np.mean([area_under_curve(row[drawn], risk[drawn]) for row in rows]) for rows in exits)
            found.append(float(cloud - edge))
    return _auc(read, 1.0) - _auc(read, 0.0), quantile_interval(np.array(found))


def _controlled(read: Sequence[Read], level: float) -> tuple[float, float, float]:
    """Mean threshold, share asked and loss on the held-out half, over splits of places into halves.

    A unit is a place: its clips show the same people, so clips are not exchangeable.
    """
    import numpy as np

    by_place: dict[str, list[Read]] = {}
    for each in read:
        by_place.setdefault(each.group, []).append(each)
    units = [
        tuple(np.concatenate([getattr(each, name)[0] for each in place]) for name in ("confidence", "differs"))
        for place in by_place.values()
    ]
    rng, found = np.random.default_rng(0), list[tuple[float, float, float]]()
    for _ in range(_SPLITS):
        order = rng.permutation(len(units))
        known, others = ([units[n] for n in half] for half in np.array_split(order, 2))
        threshold = risk_controlled([confidence for confidence, _ in known], [differs for _, differs in known], level)
        asked = np.mean([(confidence <= threshold).mean() for confidence, _ in others])
        lost = np.mean([((confidence > threshold) & differs).mean() for confidence, differs in others])
        found.append((threshold, float(asked), float(lost)))
    threshold, share, loss = np.mean(found, axis=0)
    return float(threshold), float(share), float(loss)


# --- links


def _linked(read: Sequence[Read], threshold: float, size: int) -> dict[str, dict[str, float]]:
    """Link -> shares of the asked events: soon, later, never; and how many events' labels were changed by that."""
    import numpy as np

    order = np.random.default_rng(0).permutation(len(read))
    streams = [np.concatenate([read[n].confidence[0] for n in order[camera::_CAMERAS]]) for camera in range(_CAMERAS)]
    differ = [np.concatenate([read[n].differs[0] for n in order[camera::_CAMERAS]]) for camera in range(_CAMERAS)]
    at_s = np.concatenate([np.arange(len(stream)) for stream in streams])
    by_time = np.argsort(at_s, kind="stable")
    confidence, differs = np.concatenate(streams)[by_time], np.concatenate(differ)[by_time]
    found: dict[str, dict[str, float]] = {}
    for name, link in LINKS.items():
        routed = simulate(at_s[by_time], confidence, threshold, link, size, _ROOM, _PATIENCE_S, 1)
        answered, count = routed.answered_s[routed.asked], max(1, int(routed.asked.sum()))
        came = np.isfinite(routed.answered_s)
        found[name] = {
            "asked": float(routed.asked.mean()),
            "soon": float((answered <= _SOON_S).sum() / count),
            "later": float(((answered > _SOON_S) & np.isfinite(answered)).sum() / count),
            "never": float(np.isinf(answered).sum() / count),
            "changed": float((came & differs).mean()),
            "differ": float(differs.mean()),
        }
    return found


def _measure(args: argparse.Namespace) -> Report:
    import torch

    from benchmarks.privacy.frontier import encoded_clips
    from familial.model import checkpoint

    torch.set_num_threads(1)
    family = checkpoint.load(args.checkpoint)
    read = _read(family, encoded_clips(family, args.data, args.rendered), args.noise_samples)
    cost, called_at = _seconds(family), family.config.decision_threshold
    size = _bytes(family)
    rows, points = [["asked up to", "asked", "AUC", "F1", "differ, unasked", "cloud s a camera-hour"]], []
    for threshold in _THRESHOLDS:
        asked, lost = _shares(read, threshold)
        auc, f1, spent = _auc(read, threshold), _f1(read, threshold, called_at), 3600.0 * asked * cost
        points.append({"threshold": threshold, "asked": asked, "auc": auc, "f1": f1, "lost": lost, "cloud_s": spent})
        rows.append([f"{threshold:g}", f"{asked:.3f}", f"{auc:.3f}", f"{f1:.3f}", f"{lost:.3f}", f"{spent:.2f}"])
    controlled = {level: _controlled(read, level) for level in _LEVELS}
    links = _linked(read, controlled[_LEVELS[1]][0], size)
    gain, interval = _difference(read)
    figures = {"clips": len(read), "points": points, "links": links, "gain": gain, "gain_interval": interval}
    figures |= {"controlled": {f"{level:g}": list(values) for level, values in controlled.items()}, "bytes": size}
    notes = [*_control_notes(controlled), *_link_notes(links), _verdict(gain, interval)]
    return Report(controlled[_LEVELS[1]][1], figures, rows, notes)


def _control_notes(controlled: Mapping[float, tuple[float, float, float]]) -> list[str]:
    return [
        f"risk control at {level:g}: threshold {threshold:.3f}, {asked:.3f} asked, {lost:.4f} differ unasked on the "
        f"other places (mean of {_SPLITS} splits)"
        for level, (threshold, asked, lost) in controlled.items()
    ]


def _link_notes(links: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [
        f"{name}: the edge's verdict at once; of the asked ({shares['asked']:.3f}) the cloud's in {_SOON_S:g} s for "
        f"{shares['soon']:.3f}, later for {shares['later']:.3f}, never for {shares['never']:.3f}; labels changed "
        f"{shares['changed']:.4f}, of {shares['differ']:.4f} that differ"
        for name, shares in links.items()
    ]


def _verdict(gain: float, interval: tuple[float, float]) -> str:
    words = f"AUC of the cloud's exit less the edge's: {gain:+.4f} (95 % {interval[0]:+.4f} to {interval[1]:+.4f})"
    return f"{words}: the deeper exit {'earns its place' if interval[0] > 0 else 'does not earn its place'}"


COMMAND = Benchmark("routing", __doc__, "asking the cloud always, in seconds of its blocks", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
