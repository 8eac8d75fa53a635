"""`python -m benchmarks.frontier --data MANIFEST.csv`: accuracy of a family over the certified bits of an event.

    clips --tower, once--> clean codes --+ noise of each S--> both exits --> risk F1, AUC          beside them:
        ideal codes (the class prototype of the clip's label, in every release), read exactly: the ceiling of each S
        the same codes without noise: the family's own ceiling
    audit.json, where given: what place, identity and picture attackers reached at the same S
    the labels alone: how often a place is named by someone who knows the true label and nothing else

One set of weights reads every S: what is read is z times sigma_trained^2 / sigma^2, its evidence. A clip's decision
threshold comes from other folds, for each S anew. Without --data, rendered clips are read whose seeds training never
uses. `--json RUN.json` keeps a run; `--read RUN.json --svg FILE.svg` draws it later without measuring again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report, write_text
from wire.arguments import at_least_one, former_name
from wire.errors import DataError, VeilsightError
from wire.privacy.certificate import PROFILES, round_up
from wire.privacy.certificate import bits as certified_bits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from familial.data.clips import Clip
    from familial.model.family import Family

__all__ = ["COMMAND", "Clips", "Points", "called_risks", "encoded_clips", "label_alone", "picture"]

_SHIFTS = (1.0, 2.0, 3.0, 4.0, 6.0, math.inf)
_FOLDS = 3

Points = dict[float, dict[str, float]]
"""S per event -> name of a figure -> its value."""


@dataclass(frozen=True, slots=True)
class Clips:
    """What is read.

    Attributes:
        rows: of manifests, or made for rendered clips.
        truth: the label index of each.
        codes: the clean codes of each, float (S, K, d).
    """

    rows: list[Clip]
    truth: list[int]
    codes: list[torch.Tensor]


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv")
    parser.add_argument("--rendered", type=at_least_one, default=150, help="clips to render where there is no --data")
    count = parser.add_argument(
        "--noise-samples", type=at_least_one, default=10, metavar="N", help="noise samples at each S"
    )
    former_name(parser, "--draws", count)
    parser.add_argument("--audit", type=Path, metavar="audit.json", help="of calibration.audit: leakage at the same S")
    parser.add_argument(
        "--read", type=Path, metavar="RUN.json", help="an earlier run's --json: show it, measure nothing"
    )
    parser.add_argument("--svg", type=Path, metavar="FILE.svg", help="the picture: F1 and leakage over certified bits")


def _measure(args: argparse.Namespace) -> Report:
    found, figures, notes = _read_run(args.read) if args.read else _run(args)
    leaks = _leaks(args.audit) if args.audit else {}
    names = ("edge F1", "cloud F1", "edge AUC", "cloud AUC", "ideal F1", "ideal AUC")
    rows: list[tuple[str, ...]] = [("S per event", "bits", "profile", *names, *leaks)]
    profiles = {value: name for name, value in PROFILES.items()}
    for shift, values in found.items():
        bits = "no limit" if math.isinf(shift) else round_up(certified_bits(shift, figures["coordinates"]))
        cells = [f"{values[name]:.3f}" for name in names]
        leaked = [f"{leaks[name][shift]:.3f}" if shift in leaks[name] else "" for name in leaks]
        rows.append(("no noise" if math.isinf(shift) else f"{shift:g}", bits, profiles.get(shift, ""), *cells, *leaked))
    if args.svg:
        write_text(args.svg, picture(found, leaks, figures["coordinates"]))
    ratio = found[PROFILES[figures["profile"]]]["cloud F1"] / found[math.inf]["cloud F1"]
    return Report(ratio, {**figures, "leakage": leaks}, rows, notes)


def _run(args: argparse.Namespace) -> tuple[Points, dict[str, Any], list[str]]:
    """Measure: S per event -> what was reached, the figures of the document, and the notes."""
    from familial.model import checkpoint

    family = checkpoint.load(args.checkpoint)
    clips = encoded_clips(family, args.data, args.rendered)
    found = {shift: _at(family, clips, shift, args.noise_samples) for shift in _SHIFTS}
    count = args.noise_samples
    notes = [f"{len(clips.rows)} clips, {count} noise samples, thresholds from other folds", *_of_places(clips)]
    figures = {
        "clips": len(clips.rows),
        "noise_samples": count,
        "profile": family.config.profile,
        "coordinates": family.config.event_releases * family.config.n,
        "notes": notes,
        "points": [{"S_event": None if math.isinf(s) else s, **values} for s, values in found.items()],
    }
    return found, figures, notes


def _read_run(path: Path) -> tuple[Points, dict[str, Any], list[str]]:
    """What `_run` returned, from the document that it left. Raises DataError where it is none."""
    try:
        figures: dict[str, Any] = json.loads(path.read_text())["figures"]
        found = {
            math.inf if point["S_event"] is None else float(point["S_event"]): {
                name: float(value) for name, value in point.items() if name != "S_event"
            }
            for point in figures["points"]
        }
        return found, {**figures, "coordinates": int(figures["coordinates"])}, list(figures["notes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        cure = "python -m benchmarks.frontier --json RUN.json makes one"
        raise DataError(f"{path}: not a run of this benchmark ({error!r}); {cure}") from error


def _of_places(clips: Clips) -> list[str]:
    """A line on how well the true label alone names a place, where the clips have places."""
    named, places = label_alone(clips.rows, clips.truth)
    if places < 2:
        return []
    return [f"the true label alone names one of {places} places right with {named:.3f}, chance {1 / places:.3f}"]


def label_alone(rows: Sequence[Clip], truth: Sequence[int], least: int = 4) -> tuple[float, int]:
    """How often the best guess of the place is right, given the true label of one of its clips.

    The guesser also knows how often each place shows each label. Places are equally likely; a place is a group of at
    least `least` clips, as in the audit. Any system that publishes the label must allow this much.

    Returns:
        The chance, and the number of places.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for row, label in zip(rows, truth, strict=True):
        groups.setdefault((row.set, row.group), []).append(label)
    kept = [labels for labels in groups.values() if len(labels) >= least]
    best = [max(labels.count(label) / len(labels) for labels in kept) for label in set(truth)] if kept else []
    return (sum(best) / len(kept) if kept else 0.0), len(kept)


def encoded_clips(family: Family, manifests: Sequence[Path], rendered: int) -> Clips:
    """The clean codes of the manifests' clips; without manifests, of so many rendered clips that training never saw."""
    from familial.data.clips import UNSCORED, Clip, read_manifests
    from familial.data.sources import rendered_clips
    from familial.data.splits import clip_seeds
    from familial.evaluate.clip_inference import clip_codes
    from familial.evaluate.footage import family_footage

    config = family.config
    if manifests:
        rows = [clip for clip in read_manifests(manifests, config.labels) if clip.label != UNSCORED]
        truth = [config.labels.index(clip.label) for clip in rows]
        return Clips(rows, truth, [clip_codes(family, family_footage(clip.file, config)) for clip in rows])
    rows, truth, codes = [], [], []
    seeds = clip_seeds("frontier", rendered)
    for seed, clip in zip(seeds, rendered_clips(seeds, config.labels, config.window, processes=1), strict=True):
        rows.append(Clip(Path(str(seed)), str(seed), config.labels[clip.label], clip.set, str(seed), ""))
        truth.append(clip.label)
        codes.append(clip_codes(family, clip.footage))
    return Clips(rows, truth, codes)


def _at(family: Family, clips: Clips, shift: float, samples: int) -> dict[str, float]:
    """Risk F1 and AUC of both members and of an ideal code with its exact classifier, at S per event `shift`."""
    import numpy as np
    import torch

    from familial.evaluate.clip_inference import clip_probabilities, event_probabilities
    from familial.evaluate.metrics import area_under_curve
    from familial.model.code_space import prototypes
    from wire.protocol.event import level_weight

    config, generator = family.config, torch.Generator().manual_seed(0)
    sigma = math.sqrt(config.event_releases) * config.clip_norm / shift if math.isfinite(shift) else 0.0
    gain = level_weight(config.sigma, sigma) if sigma else 1.0
    ideal_prototypes = prototypes(len(config.labels), config.tokens, config.width, config.clip_norm - 1.0)
    found: dict[str, list[npt.NDArray[np.float64]]] = {"edge": [], "cloud": [], "ideal": []}
    for truth, code in zip(clips.truth, clips.codes, strict=True):
        count = samples if sigma else 1
        noise = torch.round(torch.randn(count, *code.shape, generator=generator) * sigma)
        for member in ("edge", "cloud"):
            read = event_probabilities(family, (code + noise) * gain, member)
            found[member].append(np.stack([clip_probabilities(rows) for rows in read]))
        z = ideal_prototypes[truth] + noise
        found["ideal"].append(_exact(z, ideal_prototypes, sigma, config.event_releases))
    truths = np.array(clips.truth)
    return {
        f"{name} {what}": value
        for name, rows in found.items()
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


def called_risks(clips: Clips, found: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.int64]:
    """Which clips are called a risk, 0 or 1 int64 (N, D), of label probabilities (D, L) of each clip.

    The decision threshold of each fold is the best of the other folds.
    """
    import numpy as np

    from familial.data.clips import grouped_folds
    from familial.evaluate.score_calibration import fit_decision_threshold

    folds = np.array(grouped_folds(clips.rows, _FOLDS))
    thresholds = []
    for fold in range(_FOLDS):
        others = np.flatnonzero(folds != fold).tolist()
        pairs = [(clips.truth[i], row, clips.rows[i].set) for i in others for row in found[i]]
        thresholds.append(fit_decision_threshold(*zip(*pairs, strict=True)))
    risk = 1.0 - np.stack(found)[:, :, 0]
    return np.asarray(risk >= np.array(thresholds)[folds][:, None], np.int64)


def _f1(clips: Clips, found: Sequence[npt.NDArray[np.float64]]) -> float:
    """Mean risk F1 over noise samples, of label probabilities (D, L) of each clip."""
    import numpy as np

    from familial.evaluate.metrics import risk_metrics

    called, risks = called_risks(clips, found), list(range(1, found[0].shape[1]))
    truth = [int(label > 0) for label in clips.truth]
    return float(np.mean([risk_metrics(truth, sample.tolist(), risks)["f1"] for sample in called.T]))


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


def picture(found: Points, leaks: Mapping[str, Mapping[float, float]], coordinates: int) -> str:
    """Risk F1 of both members and of ideal codes over the certified bits of an event, and leakage, as SVG text.

    Args:
        found: What was measured.
        leaks: Attack -> S per event -> value.
        coordinates: Integers of an event.
    """
    from calibration.audit.drawing import Axis, Curve, chart

    finite = {shift: certified_bits(shift, coordinates) for shift in found if math.isfinite(shift)}
    widest = max(finite.values())
    labels = {bits: round_up(bits) for bits in finite.values()}
    along = Axis("certified bits of an event, at most", 0.0, widest, tuple(labels), labels)
    up = Axis("risk F1; attacks in their own measure" if leaks else "risk F1", 0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0))
    colours = {"cloud F1": "#0a58ca", "edge F1": "#7a3fb5", "ideal F1": "#198754"}
    curves = [
        Curve(name, [(bits, found[shift][name]) for shift, bits in finite.items()], colour)
        for name, colour in colours.items()
    ]
    for name, values in leaks.items():
        points = [(certified_bits(shift, coordinates), value) for shift, value in sorted(values.items())]
        curves.append(Curve(name, [point for point in points if point[0] <= widest], "#b02a37"))
    marks = {finite[shift]: name for name, shift in PROFILES.items() if shift in finite}
    return chart(curves, along, up, marks=marks, levels={found[math.inf]["cloud F1"]: "cloud member without noise"})


COMMAND = Benchmark(
    "frontier",
    __doc__,
    "the same family without noise (risk F1 of the cloud member at its own profile)",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
