"""`python -m benchmarks.frontier --data MANIFEST.csv`: how right a family is for how many certified bits.

    clips --tower, once--> clean codes --+ noise of each S--> both exits --> risk F1, AUC          beside them:
        ideal codes (the class prototype of the clip's label, in every release), read exactly: the ceiling of each S
        the same codes without noise: the family's own ceiling
    audit.json, where given: what place, identity and picture attackers reached at the same S
    the labels alone: how often a place is named by whoever knows what is right to say and nothing else

One set of weights reads every S: what is read is z times sigma_trained^2 / sigma^2, its evidence. A clip's limit comes
from other folds, at each S anew. Without --data, clips rendered from seeds that were never trained on are read.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import CHECKPOINT, fail, report
from wire.errors import VeilsightError
from wire.privacy.certificate import PROFILES, round_up

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from familial.data.clips import Clip
    from familial.model.family import Family

__all__ = ["Clips", "area_under_curve", "label_alone", "main"]

_SHIFTS = (1.0, 2.0, 3.0, 4.0, 6.0, math.inf)
_FOLDS = 3


@dataclass(frozen=True, slots=True)
class Clips:
    """What is read: rows of manifests or rendered stand-ins, label indices, and clean codes float (S, K, d) of each."""

    rows: list[Clip]
    truth: list[int]
    codes: list[torch.Tensor]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frontier", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, metavar="DIR")
    parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv")
    parser.add_argument("--rendered", type=int, default=150, help="clips to render where there is no --data")
    parser.add_argument("--draws", type=int, default=10, help="draws of noise at each S")
    parser.add_argument("--audit", type=Path, metavar="audit.json", help="of calibration.audit: leakage at the same S")
    parser.add_argument("--svg", type=Path, metavar="OUT", help="the picture: F1 and leakage over certified bits")
    args = parser.parse_args(argv)
    try:
        return _measure(args)
    except VeilsightError as error:
        return fail(error)


def _measure(args: argparse.Namespace) -> int:
    from familial.model import checkpoint

    family = checkpoint.load(args.checkpoint)
    clips = _encoded(family, args.data, args.rendered)
    found = {shift: _at(family, clips, shift, args.draws) for shift in _SHIFTS}
    leaks = _leaks(args.audit) if args.audit else {}
    names = ("edge F1", "cloud F1", "edge AUC", "cloud AUC", "ideal F1", "ideal AUC")
    rows: list[tuple[str, ...]] = [("S per event", "bits", "profile", *names, *leaks)]
    profiles = {value: name for name, value in PROFILES.items()}
    for shift, figures in found.items():
        bits = "no limit" if math.isinf(shift) else round_up(_bits(shift))
        cells = [f"{figures[name]:.3f}" for name in names]
        seen = [f"{leaks[name][shift]:.3f}" if shift in leaks[name] else "" for name in leaks]
        rows.append(("no noise" if math.isinf(shift) else f"{shift:g}", bits, profiles.get(shift, ""), *cells, *seen))
    if args.svg:
        args.svg.write_text(_picture(found, leaks))
    trained = PROFILES[family.config.profile]
    report(
        "frontier",
        ratio=found[trained]["cloud F1"] / found[math.inf]["cloud F1"],
        of=f"the same family without noise (risk F1 of the cloud member at S = {trained:g})",
        figures={
            "clips": len(clips.rows),
            "draws": args.draws,
            "leakage": leaks,
            "points": [{"S_event": None if math.isinf(s) else s, **figures} for s, figures in found.items()],
        },
        rows=rows,
        notes=[f"{len(clips.rows)} clips, {args.draws} draws of noise, limits from other folds", *_of_places(clips)],
    )
    return 0


def _of_places(clips: Clips) -> list[str]:
    """A line on what true labels tell of places, where the clips know any."""
    named, places = label_alone(clips.rows, clips.truth)
    if places < 2:
        return []
    return [f"the true label alone names one of {places} places right with {named:.3f}, chance {1 / places:.3f}"]


def label_alone(rows: Sequence[Clip], truth: Sequence[int], least: int = 4) -> tuple[float, int]:
    """How often the best guess of the place is right, given the true label of one of its clips and how often each place
    shows each label; places equally likely, a place being a group of at least `least` clips, as in the audit.

    Returns the chance and the number of places. Whatever tells the label must allow it.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for row, label in zip(rows, truth, strict=True):
        groups.setdefault((row.set, row.group), []).append(label)
    kept = [labels for labels in groups.values() if len(labels) >= least]
    best = [max(labels.count(label) / len(labels) for labels in kept) for label in set(truth)] if kept else []
    return (sum(best) / len(kept) if kept else 0.0), len(kept)


def _bits(shift: float) -> float:
    """Certified bits of an event, S^2 / (2 ln 2)."""
    return shift * shift / (2 * math.log(2))


def _encoded(family: Family, manifests: Sequence[Path], rendered: int) -> Clips:
    from familial.data.clips import UNSCORED, Clip, read_clip, read_manifests
    from familial.data.sources import rendered_clips
    from familial.data.splits import clip_seeds
    from familial.evaluate.clip_inference import clip_codes

    config = family.config
    if manifests:
        rows = [clip for clip in read_manifests(manifests, config.labels) if clip.label != UNSCORED]
        truth = [config.labels.index(clip.label) for clip in rows]
        return Clips(rows, truth, [clip_codes(family, read_clip(clip.file, config.window)) for clip in rows])
    rows, truth, codes = [], [], []
    seeds = clip_seeds("frontier", rendered)
    for seed, clip in zip(seeds, rendered_clips(seeds, config.labels, config.window, processes=1), strict=True):
        rows.append(Clip(Path(str(seed)), str(seed), config.labels[clip.label], clip.set, str(seed), ""))
        truth.append(clip.label)
        codes.append(clip_codes(family, clip.footage))
    return Clips(rows, truth, codes)


def _at(family: Family, clips: Clips, shift: float, draws: int) -> dict[str, float]:
    """Risk F1 and AUC of both members and of an ideal code with its exact reader, at S per event `shift`."""
    import numpy as np
    import torch

    from familial.evaluate.clip_inference import clip_probabilities, event_probabilities
    from familial.train.losses import prototypes

    config, generator = family.config, torch.Generator().manual_seed(0)
    sigma = math.sqrt(config.event_releases) * config.clip_norm / shift if math.isfinite(shift) else 0.0
    gain = config.sigma**2 / sigma**2 if sigma else 1.0
    ideal_prototypes = prototypes(len(config.labels), config.tokens, config.width, config.clip_norm - 1.0)
    worst: dict[str, list[npt.NDArray[np.float64]]] = {"edge": [], "cloud": [], "ideal": []}
    for truth, code in zip(clips.truth, clips.codes, strict=True):
        count = draws if sigma else 1
        noise = torch.round(torch.randn(count, *code.shape, generator=generator) * sigma)
        for member in ("edge", "cloud"):
            read = event_probabilities(family, (code + noise) * gain, member)
            worst[member].append(np.stack([clip_probabilities(rows) for rows in read]))
        z = ideal_prototypes[truth] + noise
        worst["ideal"].append(_exact(z, ideal_prototypes, sigma, config.event_releases))
    truths = np.array(clips.truth)
    return {
        f"{name} {what}": value
        for name, rows in worst.items()
        for what, value in (
            ("F1", _f1(clips, rows)),
            ("AUC", area_under_curve(np.stack([row[0] for row in rows])[:, 0], truths > 0)),
        )
    }


def _exact(z: torch.Tensor, label_prototypes: torch.Tensor, sigma: float, releases: int) -> npt.NDArray[np.float64]:
    """z float (D, S, K, d) of codes at one label's class prototype -> P(label) float64 (D, L) from the first event's
    releases."""
    import numpy as np

    seen = z[:, :releases].flatten(2).sum(dim=1).double()
    scores = seen @ label_prototypes.flatten(1).double().T / (sigma * sigma if sigma else 1.0)
    return np.asarray(scores.softmax(dim=1).numpy(), np.float64)


def _f1(clips: Clips, worst: Sequence[npt.NDArray[np.float64]]) -> float:
    """Mean risk F1 over draws; each fold's limit is the best of the other folds."""
    import numpy as np

    from familial.data.clips import grouped_folds
    from familial.evaluate.metrics import risk_metrics
    from familial.evaluate.score_calibration import fit_decision_threshold

    folds = grouped_folds(clips.rows, _FOLDS)
    limits = []
    for fold in range(_FOLDS):
        others = [index for index, where in enumerate(folds) if where != fold]
        pairs = [(clips.truth[i], row, clips.rows[i].set) for i in others for row in worst[i]]
        limits.append(fit_decision_threshold(*zip(*pairs, strict=True)))
    risks = list(range(1, worst[0].shape[1]))
    scores = []
    for draw in range(len(worst[0])):
        said = [int(1.0 - rows[draw][0] >= limits[fold]) for rows, fold in zip(worst, folds, strict=True)]
        scores.append(risk_metrics([int(label > 0) for label in clips.truth], said, risks)["f1"])
    return float(np.mean(scores))


def area_under_curve(normal: npt.NDArray[np.float64], risk: npt.NDArray[np.bool_]) -> float:
    """P(normal) float64 (N,) and truth bool (N,) -> chance that a random risk is ranked above a random normal."""
    import numpy as np

    order = np.argsort(np.argsort(-normal, kind="stable"), kind="stable") + 1.0
    for value in np.unique(normal):  # ties share their mean rank
        order[normal == value] = order[normal == value].mean()
    positives, count = int(risk.sum()), len(risk)
    if positives in (0, count):
        return math.nan
    return float((order[risk].sum() - positives * (positives + 1) / 2) / (positives * (count - positives)))


def _leaks(path: Path) -> dict[str, dict[float, float]]:
    """Attack -> S per event -> value, of the attacks on an event that name people and places or make pictures."""
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text())["attacks"]
    except (OSError, ValueError, KeyError) as error:
        cure = f"run: python -m calibration.audit --json {path}"
        raise VeilsightError(f"{path}: not an audit ({error!r}); {cure}") from error
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        name, comma, read = str(row["name"]).partition(", from an event")
        if row["attack"] in ("naming", "reconstruction") and comma and not read:
            found.setdefault(name, {})[float(row["S_event"])] = float(row["value"])
    return found


def _picture(found: dict[float, dict[str, float]], leaks: dict[str, dict[float, float]]) -> str:
    from calibration.audit.drawing import Axis, Curve, chart

    finite = [shift for shift in found if math.isfinite(shift)]
    widest = _bits(max(finite))
    along = Axis("certified bits of an event, at most", 0.0, widest, tuple(round(_bits(shift), 1) for shift in finite))
    up = Axis("risk F1; attacks in their own measure", 0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))
    colours = {"cloud F1": "#0a58ca", "edge F1": "#6ea8fe", "ideal F1": "#198754"}
    curves = [
        Curve(name, [(_bits(shift), found[shift][name]) for shift in finite], colour)
        for name, colour in colours.items()
    ]
    for name, values in leaks.items():
        points = [(_bits(shift), value) for shift, value in sorted(values.items()) if _bits(shift) <= widest]
        curves.append(Curve(name, points, "#b02a37"))
    marks = {_bits(shift): name for name, shift in PROFILES.items() if shift in found}
    return chart(curves, along, up, marks=marks, levels={found[math.inf]["cloud F1"]: "cloud member without noise"})


if __name__ == "__main__":
    sys.exit(main())
