"""`python -m benchmarks.scenes`: what a second camera of a scene is worth, for falls hidden from one of the two.

    rendered scenes, half with a fall --two cameras, codes + noise of its own on each--> log odds of a fall
    one camera alone | the surer of both | the surer one plus w times what the other adds | the same with a veto
        --two verdicts in a row--> AUC over scenes, falls found at a share of false alarms; intervals over scenes

w is learned by logistic regression on the scores of other scenes, four fifths of them at a time. "Adds" is log odds
above those of a view that cannot tell, and never below 0; with a veto it may be negative. A fall is hidden from a
camera that shows less than a third of the body from the loss of balance until 1.5 s after the impact.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one, former_name
from wire.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from familial.model.family import Family

    Floats = npt.NDArray[np.float64]

__all__ = ["COMMAND", "Read", "in_a_row", "learned_weight", "read_together"]

_HIDDEN = 1 / 3
_FOLDS, _RESAMPLES, _IN_A_ROW = 5, 1000, 2
_FALSE = (0.05, 0.1)
_WEIGHTS = tuple(step / 20 for step in range(21))
_FALL = "fall"


@dataclass(frozen=True, slots=True)
class Read:
    """One scene, read from both views under D noise samples.

    Attributes:
        fall: Whether there is one.
        seen: How much of the body each view shows of it, 0 to 1.
        odds: Log odds of a fall (2, D, E), of each view and event.
    """

    fall: bool
    seen: tuple[float, float]
    odds: Floats

    @property
    def hidden(self) -> bool:
        """Whether one view hides the fall."""
        return self.fall and min(self.seen) < _HIDDEN


def read_together(odds: Floats, weight: float, prior: float, veto: bool = False) -> Floats:
    """Log odds (...) of the surer view, plus what the other adds. odds: (2, ...)."""
    import numpy as np

    added = odds.min(axis=0) - prior
    return np.asarray(odds.max(axis=0) + weight * (added if veto else np.maximum(added, 0.0)))


def in_a_row(odds: Floats) -> Floats:
    """The highest threshold that two events in a row reach, (D,) of (D, E): as `raise_for = 2` counts."""
    import numpy as np

    rows = [odds[:, start : odds.shape[1] - _IN_A_ROW + 1 + start] for start in range(_IN_A_ROW)]
    return np.asarray(np.minimum.reduce(rows).max(axis=1))


def learned_weight(reads: Sequence[Read], prior: float, veto: bool = False) -> float:
    """Learn what the other view counts: of `_WEIGHTS`, the one whose scores tell scenes with a fall best.

    Scores of scenes are what a threshold is held against; logistic regression on them says how well they tell.
    """
    import numpy as np

    truth = np.concatenate([np.full(each.odds.shape[1], each.fall, float) for each in reads])

    def loss(weight: float) -> float:
        scores = np.concatenate([in_a_row(read_together(each.odds, weight, prior, veto)) for each in reads])
        x = np.column_stack([scores, np.ones(len(scores))])
        z = x @ _regression(x, truth)
        return float(np.mean(np.logaddexp(0.0, z) - truth * z))

    return min(_WEIGHTS, key=loss)


def _regression(x: Floats, y: Floats) -> Floats:
    """Coefficients of logistic regression, by Newton's steps with a trace of ridge. x: (N, F); y: 0 or 1."""
    import numpy as np

    found = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ found, -30.0, 30.0)))
        gradient = x.T @ (y - p) - 1e-6 * found
        step = np.linalg.solve(x.T @ (x * (p * (1.0 - p))[:, None]) + 1e-6 * np.eye(len(found)), gradient)
        found = found + step
        if np.abs(step).max() < 1e-9:
            break
    return np.asarray(found)


# --- reading


def _read(family: Family, seed: int, kind: str, fall: bool, samples: int) -> Read:
    import numpy as np
    import torch

    from benchmarks.model.scene_views import FPS, render_views, seen_share
    from familial.evaluate.clip_inference import RAREST, clip_codes, event_probabilities
    from familial.evaluate.footage import picture_footage
    from familial.model.code_space import rounded_gaussian

    clips, config = render_views(seed, kind), family.config
    torch.manual_seed(seed)
    odds: list[Floats] = []
    for clip in clips:
        z = clip_codes(family, picture_footage(clip.frames, FPS, config))[None].repeat(samples, 1, 1, 1)
        p = event_probabilities(family, z + rounded_gaussian(z, config.sigma), "cloud")[
            :, :, config.labels.index(_FALL)
        ]
        p = np.clip(p, RAREST, 1.0 - RAREST)
        odds.append(np.log(p / (1.0 - p)))
    return Read(fall, (seen_share(clips[0]), seen_share(clips[1])), np.stack(odds))


def _scenes(family: Family, count: int, samples: int) -> list[Read]:
    import numpy as np

    from familial.data.splits import clip_seeds
    from familial.synth.actions.catalogue import draw_kind

    found = list[Read]()
    for number, seed in enumerate(clip_seeds("scenes", count)):
        label = (_FALL, "normal")[number % 2]
        kind = draw_kind(np.random.default_rng([seed, 1]), label)
        found.append(_read(family, seed, kind, label == _FALL, samples))
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{count}", end="" if number + 1 < count else "\n", file=sys.stderr, flush=True)
    if sum(each.hidden for each in found) < 2 or all(each.fall for each in found):
        raise DataError("fewer than two falls are hidden from one camera; give more --scenes")
    return found


# --- scores


def _scores(reads: Sequence[Read], prior: float) -> tuple[dict[str, Floats], dict[str, float]]:
    """(way of reading -> scores (N, D), weights learned on all scenes). Weights of scores are of other scenes."""
    import numpy as np

    def all_of(score: Callable[[Read, int], Floats]) -> Floats:
        return np.stack([score(each, number) for number, each in enumerate(reads)])

    folds = [[each for n, each in enumerate(reads) if n % _FOLDS != fold] for fold in range(_FOLDS)]
    weights = {veto: [learned_weight(fold, prior, veto) for fold in folds] for veto in (False, True)}

    def together(veto: bool) -> Callable[[Read, int], Floats]:
        return lambda each, n: in_a_row(read_together(each.odds, weights[veto][n % _FOLDS], prior, veto))

    found = {
        "camera A": all_of(lambda each, n: in_a_row(each.odds[0])),
        "camera B": all_of(lambda each, n: in_a_row(each.odds[1])),
        "surer of both": all_of(lambda each, n: np.maximum(in_a_row(each.odds[0]), in_a_row(each.odds[1]))),
        "together": all_of(together(False)),
        "together, veto": all_of(together(True)),
        "sum of both": all_of(lambda each, n: in_a_row(each.odds.sum(axis=0))),
    }
    return found, {"w": learned_weight(reads, prior), "w, veto": learned_weight(reads, prior, True)}


def _figures(scores: Floats, fall: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_]) -> dict[str, float]:
    """AUC of the counted falls against scenes without one, and the falls found where so many of these give an alarm."""
    import numpy as np

    from familial.evaluate.metrics import area_under_curve

    chosen = counted | ~fall
    found = {"AUC": float(np.mean([area_under_curve(-column[chosen], fall[chosen]) for column in scores.T]))}
    for share in _FALSE:
        at = float(np.quantile(scores[~fall], 1.0 - share))
        found[f"found at {share:g}"] = float((scores[counted] > at).mean())
    return found


def _with_intervals(
    scores: Mapping[str, Floats], fall: npt.NDArray[np.bool_], counted: npt.NDArray[np.bool_]
) -> dict[str, dict[str, list[float]]]:
    """Way -> figure -> value, low, high; and the difference from "surer of both", over the same scenes drawn anew."""
    import numpy as np

    from familial.evaluate.intervals import quantile_interval

    rng, drawn = np.random.default_rng(0), list[dict[str, dict[str, float]]]()
    while len(drawn) < _RESAMPLES:
        n = rng.integers(0, len(fall), len(fall))
        if counted[n].any() and not fall[n].all():
            drawn.append({name: _figures(rows[n], fall[n], counted[n]) for name, rows in scores.items()})
    found: dict[str, dict[str, list[float]]] = {}
    for name, rows in scores.items():
        own, base = _figures(rows, fall, counted), _figures(scores["surer of both"], fall, counted)
        found[name] = {what: [own[what], *quantile_interval([each[name][what] for each in drawn])] for what in own}
        less = {what: [each[name][what] - each["surer of both"][what] for each in drawn] for what in own}
        found[name] |= {f"{what} gain": [own[what] - base[what], *quantile_interval(less[what])] for what in own}
    return found


def _at_the_rule(reads: Sequence[Read], weight: float, prior: float, at: float) -> dict[str, list[float]]:
    """Way -> falls found, hidden falls found, false alarms of scenes without one, at the bridge's own threshold."""
    import numpy as np

    ways: dict[str, Callable[[Read], Floats]] = {
        "surer of both": lambda each: np.maximum(in_a_row(each.odds[0]), in_a_row(each.odds[1])),
        "together": lambda each: in_a_row(read_together(each.odds, weight, prior)),
        "together, veto": lambda each: in_a_row(read_together(each.odds, weight, prior, True)),
    }
    kinds: list[Callable[[Read], bool]] = [lambda e: e.fall, lambda e: e.hidden, lambda e: not e.fall]
    return {
        name: [float(np.mean([way(each) >= at for each in reads if kind(each)])) for kind in kinds]
        for name, way in ways.items()
    }


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--scenes", type=at_least_one, default=240, help="to render, half with a fall (default 240)")
    count = parser.add_argument("--noise-samples", type=at_least_one, default=5, metavar="N", help="of each view")
    former_name(parser, "--draws", count)


def _measure(args: argparse.Namespace) -> Report:
    import torch

    from cloud_bridge.alerts.scenes import prior_log_odds
    from familial.model import checkpoint

    torch.set_num_threads(1)
    family = checkpoint.load(args.checkpoint)
    return _report(_scenes(family, args.scenes, args.noise_samples), prior_log_odds(len(family.config.labels)))


def _report(reads: Sequence[Read], prior: float) -> Report:
    import math

    import numpy as np

    from cloud_bridge.alerts.rules import AlertRule

    scores, weights = _scores(reads, prior)
    fall, hidden = (np.array([getattr(each, name) for each in reads]) for name in ("fall", "hidden"))
    parts = {"all falls": fall, "hidden from one": hidden}
    found = {part: _with_intervals(scores, fall, counted) for part, counted in parts.items()}
    raise_at = AlertRule().raise_at
    rule = _at_the_rule(reads, weights["w"], prior, math.log(raise_at / (1.0 - raise_at)))
    what = ["AUC", *(f"found at {share:g}" for share in _FALSE)]
    rows = [["read", *(f"{each}, {part}" for part in parts for each in what)]]
    for name in scores:
        cells = [found[part][name][each] for part in parts for each in what]
        rows.append([name, *(f"{value:.3f} ({low:.3f} to {high:.3f})" for value, low, high in cells)])
    notes = [f"{len(reads)} scenes, {fall.sum()} falls, {hidden.sum()} hidden from one camera; w {weights['w']:.2f}"]
    notes += [note for part, ways in found.items() for note in _gains(part, ways)]
    notes += [
        f"at raise_at {raise_at:g}, {name}: {a:.3f} of falls, {b:.3f} of hidden ones, {c:.3f} false"
        for name, (a, b, c) in rule.items()
    ]
    figures = {"scenes": len(reads), "falls": int(fall.sum()), "hidden": int(hidden.sum()), "weights": weights}
    gain = found["hidden from one"]["together"]["AUC"][0] / found["hidden from one"]["surer of both"]["AUC"][0]
    return Report(gain, {**figures, "parts": found, "rule": rule}, rows, notes)


def _gains(part: str, ways: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    return [
        f"{part}, {name} less the surer of both: "
        + ", ".join(f"{w} {v:+.3f} ({lo:+.3f} to {hi:+.3f})" for w, (v, lo, hi) in each.items() if w.endswith("gain"))
        for name, each in ways.items()
        if name not in ("surer of both", "camera A", "camera B")
    ]


COMMAND = Benchmark("scenes", __doc__, "the surer of both cameras, in AUC of hidden falls", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
