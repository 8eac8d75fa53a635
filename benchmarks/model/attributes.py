"""`python -m benchmarks.attributes`: accuracy of the attributes beyond fall and fight, on unseen rendered clips.

    rendered clips, truth known --noise--> events, cloud member --> shares of attributes, compared with the truth
    ... averaged over a clip's events: what half a minute says instead of one event

Only events in which nothing happens are read. For each attribute: how well its share ranks the events in which it holds
for most of the time above those in which it never holds. For people: how often the count (0, 1, 2 or more) is right;
the baseline is always saying the commonest count. A linear classifier of the clean code, fitted on half of the clips,
shows what the code carries of tags that are no attribute (smoking, loitering).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one
from wire.errors import VeilsightError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from familial.data.events import LabelledClip
    from familial.model.family import Family

__all__ = ["COMMAND"]

_NO_ATTRIBUTE = ("smoking", "loitering")
_NOISE_SAMPLES = 4


@dataclass(frozen=True, slots=True)
class _Clip:
    """One clip's quiet events (E of them).

    Attributes:
        predicted: float (D, E, A), the shares of attributes under each of D noise samples.
        true: float (E, A), the true shares.
        code: float (E, n), the mean clean code.
        tags: bool (E, 2), the tags that are no attribute.
    """

    predicted: npt.NDArray[np.float64]
    true: npt.NDArray[np.float32]
    code: npt.NDArray[np.float32]
    tags: npt.NDArray[np.bool_]


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--rendered", type=at_least_one, default=240, help="clips to render")
    parser.add_argument("--noise", choices=("on", "off"), default="on")


def _measure(args: argparse.Namespace) -> Report:
    import numpy as np
    import torch

    from familial.data.sources import rendered_clips
    from familial.data.splits import clip_seeds
    from familial.model import checkpoint

    family = checkpoint.load(args.checkpoint)
    config = family.config
    if not config.attributes:
        raise VeilsightError(f"{args.checkpoint}: a family without attributes; familial.train --attributes adds them")
    torch.manual_seed(0)
    seeds = clip_seeds("attributes", args.rendered)
    rendered = rendered_clips(seeds, config.labels, config.window, processes=1)
    clips = [read for clip in rendered if (read := _clip(family, clip, args.noise == "on")) is not None]
    true = np.concatenate([clip.true for clip in clips])
    predicted = np.concatenate([clip.predicted for clip in clips], axis=1)
    of_clips = np.stack([clip.true.mean(axis=0) for clip in clips])
    by_clips = np.stack([clip.predicted.mean(axis=1) for clip in clips], axis=1)
    rows: list[tuple[str, ...]] = [("attribute", "events", "AUC, one event", "clips", "AUC, mean of a clip's events")]
    figures: dict[str, dict[str, float]] = {}
    for index, name in enumerate(config.attributes):
        event, together = _area(true[:, index], predicted[..., index]), _area(of_clips[:, index], by_clips[..., index])
        counts = int((true[:, index] >= 0.5).sum()), int((of_clips[:, index] >= 0.5).sum())
        figures[name] = {"event_auc": event, "clip_auc": together, "events": counts[0], "clips": counts[1]}
        rows.append((name, str(counts[0]), f"{event:.3f}", str(counts[1]), f"{together:.3f}"))
    for index, name in enumerate(_NO_ATTRIBUTE):
        figures[name] = {"linear_auc": _probe(clips, index)}
        rows.append((f"{name} (no attribute; linear, clean codes)", "", f"{figures[name]['linear_auc']:.3f}", "", ""))
    right, baseline = _counts(config.attributes, true, predicted)
    right_clips, baseline_clips = _counts(config.attributes, of_clips, by_clips)
    count = {"event": right, "event_baseline": baseline, "clip": right_clips, "clip_baseline": baseline_clips}
    notes = [
        f"people counted right: one event {right:.3f} (commonest count {baseline:.3f}), a clip's events together "
        f"{right_clips:.3f} ({baseline_clips:.3f})",
        f"{len(clips)} clips, {len(true)} quiet events, noise {args.noise}",
    ]
    found = {"attributes": figures, "count": count, "noise": args.noise, "clips": len(clips)}
    return Report(right / baseline, found, rows, notes)


def _clip(family: Family, clip: LabelledClip, noise: bool) -> _Clip | None:
    """Read the quiet events of one clip; None where it has none."""
    import numpy as np
    import torch

    from familial.data.events import event_label
    from familial.evaluate.clip_inference import clip_codes, events_of
    from familial.model.code_space import rounded_gaussian
    from familial.synth.tags import TAGS
    from familial.train.attributes import slot_shares

    config = family.config
    codes, slot_s = clip_codes(family, clip.footage), config.window.slot_s
    clean, present = events_of(codes[None], config.event_releases)
    true, tags, kept = [], [], []
    for event, there in enumerate(present):
        slots = np.arange(event, event + int(there.sum()))
        shares = slot_shares(clip, slots, slot_s, len(config.attributes))
        if (
            event_label(clip, 0.0, (slot_s * (slots + 1)).tolist(), config.window.receptive_field_s) == 0
            and shares.sum()
        ):
            shown = (clip.footage.times > slots[0] * slot_s) & (clip.footage.times <= (slots[-1] + 1) * slot_s)
            assert clip.truth is not None
            tags.append([bool(clip.truth.tags[shown, TAGS.index(name)].mean() > 0.5) for name in _NO_ATTRIBUTE])
            true.append(shares)
            kept.append(event)
    if not kept:
        return None
    predicted = []
    with torch.inference_mode():
        for _ in range(_NOISE_SAMPLES):
            z = codes + rounded_gaussian(codes, config.sigma) if noise else codes
            events = events_of(z[None], config.event_releases)[0][0, kept]
            logits = family.cloud_and_attribute_logits(events, present[kept])[1]
            predicted.append(logits.double().softmax(dim=1).numpy())
    return _Clip(np.stack(predicted), np.stack(true), clean[0, kept].mean(dim=1).flatten(1).numpy(), np.array(tags))


def _area(true: npt.NDArray[np.float32], predicted: npt.NDArray[np.float64]) -> float:
    """Mean AUC over noise samples (D, E) of events in which it mostly holds, against those in which it never does."""
    import numpy as np

    from familial.evaluate.metrics import area_under_curve

    clear = (true >= 0.5) | (true == 0.0)
    return float(np.mean([area_under_curve(1.0 - sample[clear], true[clear] >= 0.5) for sample in predicted]))


def _counts(
    attributes: Sequence[str], true: npt.NDArray[np.float32], predicted: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """How often 0, 1, or 2 and more people are counted right, and how often the commonest count would be."""
    import numpy as np

    groups = [
        [attributes.index("empty")],
        [i for i, a in enumerate(attributes) if a in ("one", "low", "running")],
        [attributes.index("several")],
    ]
    real = np.stack([true[:, group].sum(axis=1) for group in groups], axis=1)
    counted = np.stack([predicted[..., group].sum(axis=2) for group in groups], axis=2).argmax(axis=2)
    clear = real.max(axis=1) > 0.5
    label = real.argmax(axis=1)
    baseline = np.bincount(label[clear]).max() / clear.sum()
    return float((counted[:, clear] == label[clear]).mean()), float(baseline)


def _probe(clips: Sequence[_Clip], index: int) -> float:
    """How well a ridge regression on clean codes, fitted on every other clip, ranks the rest's events by a tag."""
    import numpy as np

    from familial.evaluate.metrics import area_under_curve

    def side(half: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        own = clips[half::2]
        codes = np.concatenate([clip.code for clip in own]).astype(np.float64)
        return np.c_[codes, np.ones(len(codes))], np.concatenate([clip.tags[:, index] for clip in own])

    (x, y), (x_test, y_test) = side(0), side(1)
    weights = np.linalg.solve(x.T @ x + 100.0 * np.eye(x.shape[1]), x.T @ (y - y.mean()))
    return area_under_curve(-(x_test @ weights), y_test)


COMMAND = Benchmark(
    "attributes",
    __doc__,
    "always saying the commonest count (people seen: 0, 1, 2 or more; accuracy over accuracy, one event)",
    _options,
    _measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
