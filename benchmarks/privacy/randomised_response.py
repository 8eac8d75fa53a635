"""`python -m benchmarks.randomised_response --data MANIFEST.csv`: why 64 integers leave, and not the label alone.

    clips --tower, once--> clean codes --+ noise of each S--> z --> cloud member --> risk F1
                                        +-> edge member, no noise --> label of 8 releases --randomised response--> F1
                                        +-> the same, but held to the same S for a moment, which two labels touch

Both sides spend the same S^2 on a clip: a response for r releases has S_release sqrt(r). The response is the best that
any mechanism can do with a label (`calibration.measures.best_response`). The edge member's threshold for a label, and
the threshold of a clip on either side, come from other folds. Without --data, rendered clips are read whose seeds
training never uses.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import add_checkpoint
from benchmarks.privacy.frontier import Clips, called_risks, encoded_clips
from benchmarks.runner import Benchmark, Report
from calibration.measures import best_response, response_bits
from wire.arguments import at_least_one, former_name
from wire.privacy.certificate import PROFILES, bits, round_up

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from familial.model.family import Family
    from wire.artifact.manifest import WindowSpec

__all__ = ["COMMAND", "moments_touched", "pieces_of", "posterior", "responses"]

_SHIFTS = (1.0, 2.0, 3.0, 4.0, 6.0)
_FOLDS = 3
_SIDES = ("z, cloud member", "label, per event", "label, per moment")


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--data", nargs="+", type=Path, default=[], metavar="MANIFEST.csv")
    parser.add_argument("--rendered", type=at_least_one, default=150, help="clips to render where there is no --data")
    count = parser.add_argument(
        "--noise-samples", type=at_least_one, default=10, metavar="N", help="noise samples at each S"
    )
    former_name(parser, "--draws", count)


def _measure(args: argparse.Namespace) -> Report:
    from familial.model import checkpoint

    family = checkpoint.load(args.checkpoint)
    clips = encoded_clips(family, args.data, args.rendered)
    labels = _edge_labels(family, clips)
    touched = moments_touched(family.config.event_releases, family.config.window)
    points = [_at(family, clips, labels, touched, shift, args.noise_samples) for shift in _SHIFTS]
    clean = {
        "z, cloud member": _f1(clips, _cloud(family, clips, 0.0, 1)),
        "label": _told(clips, labels, len(family.config.labels)),
    }
    rows: list[tuple[str, ...]] = [("S per event", "profile", "bits of z", "bits of a label", *_SIDES)]
    profiles = {value: name for name, value in PROFILES.items()}
    for shift, point in zip(_SHIFTS, points, strict=True):
        cells = [_cell(point[side]) for side in _SIDES]
        told = f"{point['label bits']:.2f}"
        certified = round_up(bits(shift, family.config.event_releases * family.config.n))
        rows.append((f"{shift:g}", profiles.get(shift, ""), certified, told, *cells))
    rows.append(("no noise", "", "no limit", "", *(_cell(clean[key]) for key in ("z, cloud member", "label", "label"))))
    own = points[_SHIFTS.index(PROFILES[family.config.profile])]
    count = args.noise_samples
    notes = [
        f"{len(clips.rows)} clips, {count} noise samples; risk F1, 95 % interval over groups of clips and samples, AUC",
        f"calling every clip a risk has F1 {_always(clips):.3f}",
        f"a moment touches {touched} labels of {family.config.event_releases} releases each",
    ]
    figures: dict[str, Any] = {
        "clips": len(clips.rows),
        "noise_samples": count,
        "labels_touched": touched,
        "f1_always_risk": _always(clips),
        "points": [{"S_event": shift, **point} for shift, point in zip(_SHIFTS, points, strict=True)],
        "no_noise": clean,
    }
    return Report(own["label, per moment"]["f1"] / own["z, cloud member"]["f1"], figures, rows, notes)


def moments_touched(releases: int, window: WindowSpec) -> int:
    """How many labels of `releases` slots each something very short can touch, receptive field included."""
    reach = window.receptive_field_s + (releases - 1) * window.slot_s
    return math.ceil(reach / (releases * window.slot_s) - 1e-9)


def _always(clips: Clips) -> float:
    """Risk F1 of calling every clip a risk: what a threshold can always fall back on."""
    risks = sum(label > 0 for label in clips.truth)
    return 2.0 * risks / (len(clips.truth) + risks)


def _cell(found: dict[str, Any]) -> str:
    return f"{found['f1']:.3f} ({found['ci'][0]:.2f} to {found['ci'][1]:.2f}), {found['auc']:.3f}"


# --- the two sides ----------------------------------------------------------------------------------------------------


def _at(
    family: Family, clips: Clips, labels: Sequence[Sequence[int]], touched: int, shift: float, samples: int
) -> dict[str, Any]:
    """F1 of each side at S per event `shift`."""
    import numpy as np

    config = family.config
    release, rng, count = shift / math.sqrt(config.event_releases), np.random.default_rng(0), len(config.labels)
    found: dict[str, Any] = {"z, cloud member": _f1(clips, _cloud(family, clips, release, samples))}
    for side, share in (("label, per event", 1.0), ("label, per moment", float(touched))):
        rows = []
        for said, code in zip(labels, clips.codes, strict=True):
            sizes = (piece.stop - piece.start for piece in pieces_of(len(code), config.event_releases))
            right = [best_response(release * math.sqrt(size / share), count) for size in sizes]
            rows.append(responses(said, right, count, samples, rng))
        found[side] = _f1(clips, rows)
    found["label right"] = best_response(shift, count)
    found["label bits"] = response_bits(found["label right"], count)
    return found


def _cloud(family: Family, clips: Clips, release: float, samples: int) -> list[npt.NDArray[np.float64]]:
    """Label probabilities (D, L) of each clip, by the cloud member from z at S of a release; 0: without noise."""
    import torch

    from familial.evaluate.clip_inference import clip_probabilities, event_probabilities
    from wire.protocol.event import level_weight

    config, generator = family.config, torch.Generator().manual_seed(0)
    sigma = config.clip_norm / release if release else 0.0
    gain = level_weight(config.sigma, sigma) if sigma else 1.0
    found = []
    for code in clips.codes:
        noise = torch.round(torch.randn(samples, *code.shape, generator=generator) * sigma)
        found.append(clip_probabilities(event_probabilities(family, (code + noise) * gain, "cloud")))
    return found


def pieces_of(slots: int, releases: int) -> list[slice]:
    """The pieces that a clip of so many slots is cut into: as few as there can be of at most `releases`, alike long."""
    count = math.ceil(slots / releases)
    ends = [round(slots * index / count) for index in range(count + 1)]
    return [slice(first, last) for first, last in zip(ends, ends[1:], strict=False)]


def _edge_labels(family: Family, clips: Clips) -> list[list[int]]:
    """The edge member's label of each piece of each clip, from clean codes; its threshold is of the other folds."""
    import numpy as np

    from familial.data.clips import grouped_folds
    from familial.evaluate.clip_inference import decide, event_probabilities

    releases, pieces = family.config.event_releases, []
    for code in clips.codes:
        parts = [code[None, piece] for piece in pieces_of(len(code), releases)]
        pieces.append(np.stack([event_probabilities(family, part, "edge")[0, 0] for part in parts]))  # (P, L)
    folds = grouped_folds(clips.rows, _FOLDS)
    threshold = [_threshold_without(clips, pieces, folds, fold) for fold in range(_FOLDS)]
    return [[decide(row, threshold[fold])[0] for row in rows] for rows, fold in zip(pieces, folds, strict=True)]


def _threshold_without(
    clips: Clips, pieces: Sequence[npt.NDArray[np.float64]], folds: Sequence[int], fold: int
) -> float:
    """The decision threshold of a piece's label that is best on the pieces of the other folds."""
    from familial.evaluate.score_calibration import fit_decision_threshold

    others = [index for index, where in enumerate(folds) if where != fold]
    triples = [(clips.truth[index], row, clips.rows[index].set) for index in others for row in pieces[index]]
    return fit_decision_threshold(*zip(*triples, strict=True))


def responses(
    said: Sequence[int], right: Sequence[float], labels: int, samples: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Draw what a clip's pieces answer, and read it: label probabilities float (D, L) of the clip.

    Args:
        said: the true answer of each piece.
        right: how often each piece's response is that answer.
        labels: how many there are.
        samples: D, draws.
        rng: of the draws.
    """
    import numpy as np

    from familial.evaluate.clip_inference import clip_probabilities

    others = rng.integers(1, labels, (samples, len(said)))
    lies = rng.random((samples, len(said))) >= np.asarray(right)
    heard = (np.asarray(said) + lies * others) % labels  # (D, P)
    read = np.stack([posterior(heard[:, i], right[i], labels) for i in range(len(said))], axis=1)  # (D, P, L)
    return clip_probabilities(read)


def posterior(heard: npt.NDArray[np.int64], right: float, labels: int) -> npt.NDArray[np.float64]:
    """Label probabilities float (D, L) given what was heard (D,), where all labels were equally likely before."""
    import numpy as np

    told = np.full((len(heard), labels), (1.0 - right) / (labels - 1))
    told[np.arange(len(heard)), heard] = right
    return told


def _told(clips: Clips, labels: Sequence[Sequence[int]], count: int) -> dict[str, Any]:
    """F1 of labels that are told as they are."""
    import numpy as np

    rng = np.random.default_rng(0)
    return _f1(clips, [responses(said, [1.0 - 1e-6] * len(said), count, 1, rng) for said in labels])


def _f1(clips: Clips, found: Sequence[npt.NDArray[np.float64]]) -> dict[str, Any]:
    """Risk F1 and AUC over draws, {"f1", "ci", "auc"}, of label probabilities (D, L) of each clip."""
    import numpy as np

    from familial.evaluate.intervals import accuracy_and_f1_intervals
    from familial.evaluate.metrics import area_under_curve, risk_metrics

    called, truth = called_risks(clips, found), [int(label > 0) for label in clips.truth]
    risks = list(range(1, found[0].shape[1]))
    mean = float(np.mean([risk_metrics(truth, draw.tolist(), risks)["f1"] for draw in called.T]))
    groups = [f"{row.set}/{row.group}" for row in clips.rows]
    normal, real = np.stack(found)[:, :, 0], np.array(truth) > 0  # (N, D), (N,)
    auc = float(np.mean([area_under_curve(draw, real) for draw in normal.T]))
    return {"f1": mean, "ci": accuracy_and_f1_intervals(truth, called, groups)["f1"], "auc": auc}


COMMAND = Benchmark(
    "randomised_response",
    __doc__,
    "the cloud member on z at the same S per moment (risk F1, at the checkpoint's profile)",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
