"""`python -m benchmarks.long_memory --data MANIFEST.csv`: does the deeper exit gain by the last five minutes.

    clips of places with two normal clips or more: 300 events of the place's other normal clips, then the clip
        --codes + noise--> deeper exit: log odds, state of each event
    the exit as it is | a head taught without carriers | a head taught with 300 of them (`carriers`), given its own
        place's or another's | less a share of the exponential mean of the past        --> AUC, F1 of the same clips

Heads and shares are fitted on other places (three folds by place), and on rendered rooms. A gain of the carriers is
one over the head without them, since that has learned from the same clips. Real clips are strung, so a past is some
clips again and again, with fresh noise each time; nobody filmed five minutes. Without --data rendered rooms are judged.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one, former_name
from wire.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from benchmarks.model.carriers import Told, Watched
    from familial.data.clips import Clip
    from familial.model.family import Family

__all__ = ["COMMAND"]

_FOLDS, _RESAMPLES = 3, 1000
_NORMAL, _SECONDS = 4, 24.0  # clips of normal life of a rendered room, and of each
_SIZE, _FPS = (120, 160), 12.0
_SHARES, _FADES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0), (30.0, 100.0, math.inf)
_EXIT, _TAUGHT, _MEMORY = "deeper exit", "head without carriers", "head with carriers"
_OTHERS, _MEAN = "... of another place", "less the exponential mean"

Scored = dict[str, "list[npt.NDArray[np.float64]]"]
"""Reader -> label probabilities (D, L) of each judged clip; D: noise samples times trainings."""


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    add = parser.add_argument
    add("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv")
    add("--rooms", type=at_least_one, default=80, help="rendered rooms to train on (and to judge, without --data)")
    add("--memory", type=at_least_one, default=300, metavar="EVENTS", help="carriers (default: 300, five minutes)")
    add("--steps", type=at_least_one, default=400, help="of a head")
    add("--trainings", type=at_least_one, default=3, help="of each head, from other weights")
    count = add(
        "--noise-samples", type=at_least_one, default=4, metavar="N", help="of each clip, to learn and to judge"
    )
    former_name(parser, "--draws", count)


def _rooms(family: Family, count: int) -> tuple[list[Clip], list[int], list[Tensor]]:
    """Rendered rooms: four normal clips and a risk in each."""
    import numpy as np
    from torch import Tensor

    from familial.data.clips import Clip
    from familial.data.splits import clip_seeds
    from familial.evaluate.clip_inference import clip_codes
    from familial.evaluate.footage import rendered_footage
    from familial.synth.actions.catalogue import draw_kind

    config = family.config
    rows, truth, codes = list[Clip](), list[int](), list[Tensor]()
    for number, seed in enumerate(clip_seeds("long_memory", count)):
        rng = np.random.default_rng([seed, 2])
        for place in range(_NORMAL + 1):
            label = config.labels[0] if place < _NORMAL else config.labels[1 + number % (len(config.labels) - 1)]
            kind = draw_kind(rng, label)
            footage, _ = rendered_footage(seed, kind, config, size=_SIZE, fps=_FPS, seconds=_SECONDS)
            rows.append(Clip(Path(f"{seed}-{place}"), f"{seed}-{place}", label, "rendered", f"room {seed}", ""))
            truth.append(config.labels.index(label))
            codes.append(clip_codes(family, footage))
    return rows, truth, codes


def _judged(clips: Sequence[Watched], said: Sequence[Told], extra: int, args: argparse.Namespace) -> Scored:
    """What each reader says of the clips before `extra`; those after it are only learned from."""
    import numpy as np

    from benchmarks.model.carriers import trained_head
    from familial.data.clips import grouped_folds

    own = clips[:extra]
    folds = np.array(grouped_folds([clip.row for clip in own], _FOLDS))
    strangers = _strangers([clip.row.group for clip in own])
    scored: Scored = {name: [np.zeros(0)] * extra for name in (_EXIT, _MEAN, _TAUGHT, _MEMORY, _OTHERS)}
    for fold in range(_FOLDS):
        known = [n for n in range(len(clips)) if n >= extra or folds[n] != fold]
        lessons = [clips[n] for n in known], [said[n] for n in known]
        share, fades = _fitted([clips[n] for n in known if n < extra], [said[n] for n in known if n < extra])
        heads = {
            shown: [trained_head(*lessons, args.steps, shown, seed) for seed in range(args.trainings)]
            for shown in (False, True)
        }
        print(f"fold {fold + 1}: a share of {share:g} of the mean that fades over {fades:g}", flush=True)
        for n in np.flatnonzero(folds == fold).tolist():
            told, other = said[n], said[strangers[n]]
            wrong = replace(told, past=other.past, carriers=other.carriers)
            scored[_EXIT][n] = _of_clip(told.odds)
            scored[_MEAN][n] = _mean_scores(told, share, fades)
            for name, shown, by in ((_TAUGHT, False, told), (_MEMORY, True, told), (_OTHERS, True, wrong)):
                odds = [head(by.odds, by.states, by.past, by.carriers, shown).detach() for head in heads[shown]]
                scored[name][n] = np.concatenate([_of_clip(each) for each in odds])
    return scored


def _strangers(groups: Sequence[str]) -> list[int]:
    """For each clip, one of another place, drawn at random."""
    import numpy as np

    rng = np.random.default_rng(0)
    return [int(rng.choice([n for n, other in enumerate(groups) if other != group])) for group in groups]


def _of_clip(odds: Tensor) -> npt.NDArray[np.float64]:
    """Label probabilities (D, L) of a clip by the log odds (D, E, P) of its events."""
    import numpy as np
    import torch

    from familial.evaluate.clip_inference import clip_probabilities

    whole = torch.cat((torch.zeros(*odds.shape[:2], 1), odds), dim=2).double().softmax(dim=2)
    return np.asarray(clip_probabilities(whole.numpy()))


def _mean_scores(told: Told, share: float, fades: float) -> npt.NDArray[np.float64]:
    from benchmarks.model.carriers import discounted

    return _of_clip(discounted(told, share, fades))


def _fitted(clips: Sequence[Watched], said: Sequence[Told]) -> tuple[float, float]:
    """The share and the fade of the exponential mean that rank these clips best."""
    grid = [(share, fades) for share in _SHARES for fades in _FADES]

    def auc(pair: tuple[float, float]) -> float:
        return _auc(clips, [_mean_scores(told, *pair) for told in said])

    return max(grid, key=auc)


def _auc(clips: Sequence[Watched], scores: Sequence[npt.NDArray[np.float64]]) -> float:
    import numpy as np

    from familial.evaluate.metrics import area_under_curve

    risk = np.array([clip.truth > 0 for clip in clips])
    return float(np.mean([area_under_curve(column, risk) for column in np.stack(scores)[:, :, 0].T]))


def _inside(clips: Sequence[Watched], scores: Sequence[npt.NDArray[np.float64]]) -> float:
    """AUC within each set that shows both, their mean: what a set says of the label by itself is out of it."""
    import numpy as np

    found = []
    for name in dict.fromkeys(clip.row.set for clip in clips):
        mine = [n for n, clip in enumerate(clips) if clip.row.set == name]
        found.append(_auc([clips[n] for n in mine], [scores[n] for n in mine]))
    return float(np.nanmean(found))


def _f1(clips: Sequence[Watched], scores: Sequence[npt.NDArray[np.float64]]) -> float:
    """Mean over noise samples; thresholds are fitted on other folds."""
    import numpy as np

    from benchmarks.privacy.frontier import Clips, called_risks
    from familial.evaluate.metrics import risk_metrics

    judged = Clips([clip.row for clip in clips], [clip.truth for clip in clips], [])
    truth = [int(clip.truth > 0) for clip in clips]
    called = called_risks(judged, scores)
    return float(np.mean([risk_metrics(truth, sample.tolist(), [1])["f1"] for sample in called.T]))


def _gains(clips: Sequence[Watched], scored: Scored, over: str) -> dict[str, tuple[float, float, float]]:
    """Reader -> AUC less that of `over`, with the ends of its interval over places drawn anew."""
    import numpy as np

    from familial.evaluate.intervals import quantile_interval

    names = sorted({(clip.row.set, clip.row.group) for clip in clips})
    of_place = [[n for n, clip in enumerate(clips) if (clip.row.set, clip.row.group) == name] for name in names]
    rng, drawn = np.random.default_rng(0), list[list[int]]()
    while len(drawn) < _RESAMPLES:
        some = [n for place in rng.integers(0, len(names), len(names)) for n in of_place[place]]
        if len({clips[n].truth > 0 for n in some}) == 2:
            drawn.append(some)
    aucs = {
        name: np.array([_auc([clips[n] for n in some], [rows[n] for n in some]) for some in drawn])
        for name, rows in scored.items()
    }
    return {
        name: (_auc(clips, rows) - _auc(clips, scored[over]), *quantile_interval(aucs[name] - aucs[over]))
        for name, rows in scored.items()
        if name != over
    }


def _measure(args: argparse.Namespace) -> Report:
    import torch

    from benchmarks.model.carriers import told, watched
    from benchmarks.privacy.frontier import encoded_clips
    from familial.model import checkpoint

    torch.set_num_threads(1)
    family = checkpoint.load(args.checkpoint)
    rendered = watched(*_rooms(family, args.rooms), 1)
    real = list[Any]()
    if args.data:
        encoded = encoded_clips(family, args.data, 0)
        real = watched(encoded.rows, encoded.truth, encoded.codes, 0)
    clips, judged = [*real, *rendered], len(real) or len(rendered)
    places = {(clip.row.set, clip.row.group) for clip in clips[:judged]}
    if len(places) < _FOLDS or len({clip.truth > 0 for clip in clips[:judged]}) < 2:
        raise DataError("fewer than three places with two normal clips or more, or clips of one kind; give others")
    print(f"{judged} clips of {len(places)} places to judge, {len(clips) - judged} more to learn from", flush=True)
    said = [told(family, clip, args.memory, args.noise_samples, n) for n, clip in enumerate(clips)]
    scored = _judged(clips, said, judged, args)
    return _report(clips[:judged], scored, len(places), args)


def _report(clips: Sequence[Watched], scored: Scored, places: int, args: argparse.Namespace) -> Report:
    over_exit, over_head = _gains(clips, scored, _EXIT), _gains(clips, scored, _TAUGHT)
    rows = [["reader", "AUC", "AUC within sets", "F1", "AUC over the exit's", "over the head without"]]
    readers = dict[str, dict[str, object]]()
    for name, scores in scored.items():
        auc, inside, f1 = _auc(clips, scores), _inside(clips, scores), _f1(clips, scores)
        gains = [_shown(gain.get(name)) for gain in (over_exit, over_head)]
        rows.append([name, f"{auc:.3f}", f"{inside:.3f}", f"{f1:.3f}", *gains])
        readers[name] = {"auc": auc, "auc_within_sets": inside, "f1": f1}
    gain = over_head[_MEMORY]
    figures = {"clips": len(clips), "places": places, "memory": args.memory, "readers": readers}
    figures |= {"over_exit": over_exit, "over_head": over_head}
    verdict = "earns" if gain[1] > 0 else "does not earn"
    words = f"{args.memory} carriers over the same head without them, AUC: {_shown(gain)}"
    ratio = (1.0 - _auc(clips, scored[_MEMORY])) / max(1e-9, 1.0 - _auc(clips, scored[_EXIT]))
    return Report(ratio, figures, rows, [f"{words}: the longer memory {verdict} its place"])


def _shown(gain: tuple[float, float, float] | None) -> str:
    return "" if gain is None else f"{gain[0]:+.4f} ({gain[1]:+.4f} to {gain[2]:+.4f})"


COMMAND = Benchmark(
    "long_memory",
    __doc__,
    "the deeper exit as it is, without a memory (what is missing to an AUC of 1)",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
