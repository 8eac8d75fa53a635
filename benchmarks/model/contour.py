"""`python -m benchmarks.contour`: outlines, posture, how many and which way against truth, beside a guess; who it is.

    held-out rendered clips --codes + noise--> the contour --> overlap of outlines, posture, count, moving, way
                                     the prior alone: the commonest answer, and the best constant outline
    the audit's people (--gallery, left by calibration.audit in build/audit) --> who is it, from z and from contours

Intervals are over clips. `way` is asked of those who move; what the contour does not say is measured all the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one, former_name
from wire.errors import CheckpointError, DataError
from wire.privacy.certificate import round_up

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from familial.contour.decoder import ContourDecoder, Contours
    from familial.contour.samples import Samples
    from familial.model.config import FamilyConfig

    Floats = npt.NDArray[np.floating]

__all__ = ["COMMAND"]

_NAMES = {
    "first": "outline, IoU",
    "lying": "... of who lies",
    "second": "... of the other one",
    "posture": "posture, of 4",
    "count": "how many, of 3",
    "moving": "moving or not",
    "way": "which way",
}
_TURNS = 3


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--rendered", type=at_least_one, default=200, help="clips to draw")
    former_name(
        parser, "--draws", parser.add_argument("--noise-samples", type=at_least_one, default=10, help="of each clip")
    )
    parser.add_argument(
        "--gallery", type=Path, metavar="FILE", help="build/audit/galleries/people-*.npz of this checkpoint's audit"
    )


def _measure(args: argparse.Namespace) -> Report:
    import torch

    from familial.contour.decoder import ContourDecoder
    from familial.contour.samples import gather
    from familial.data.splits import clip_seeds
    from familial.evaluate.clip_inference import sigma_of
    from familial.model import checkpoint

    family = checkpoint.load(args.checkpoint)
    decoder = ContourDecoder.load(args.checkpoint, checkpoint.checkpoint_hash(args.checkpoint))
    if decoder is None:
        cure = f"python -m familial.contour.train --checkpoint {args.checkpoint}"
        raise CheckpointError(f"{args.checkpoint} has no contour; {cure}")
    sigma = float(sigma_of(args.checkpoint, family, None)[1])
    torch.manual_seed(0)
    samples = gather(family, clip_seeds("contour_judged", args.rendered), processes=1)
    found = {
        "on": _judged(decoder, samples, sigma, args.noise_samples),
        "off": _judged(decoder, samples, 0.0, 1),
    }
    rows: list[tuple[str, ...]] = [("what", "noise on, S = 3", "noise off", "prior alone", "better by, noise on")]
    for name, title in _NAMES.items():
        on, off = found["on"][name], found["off"][name]
        said = title if name in (*decoder.knows, "first", "lying", "second") else f"({title})"
        better = f"{on['better']:+.3f} ({on['low']:+.3f} to {on['high']:+.3f})"
        rows.append((said, f"{on['ours']:.3f}", f"{off['ours']:.3f}", f"{on['prior']:.3f}", better))
    figures: dict[str, Any] = {"noise": found, "knows": list(decoder.knows), "events": len(samples.codes)}
    figures["us"] = _cost(decoder, samples, sigma)
    notes = [
        f"{args.rendered} clips, {len(samples.codes)} events, {args.noise_samples} noise samples; (not said)",
        f"a figure takes {figures['us']['one']:.0f} us alone, {figures['us']['of_64']:.1f} us of 64 at once, one core",
    ]
    if args.gallery is not None:
        figures["who"] = _who(args.gallery, decoder, family.config, sigma)
        notes += _told(figures["who"])
    posture = found["on"]["posture"]
    return Report(posture["ours"] / posture["prior"], figures, rows, notes)


def _judged(decoder: ContourDecoder, samples: Samples, sigma: float, draws: int) -> dict[str, dict[str, float]]:
    """Name -> ours, the prior's, and by how much ours is better with its interval over clips."""
    import numpy as np

    from familial.contour.samples import noised
    from familial.evaluate.intervals import macro_accuracy_interval

    every, present = decoder.saying_all(), samples.present.numpy()
    drawn = [_scores(every.read(noised(samples.codes, sigma).numpy(), present, sigma), samples) for _ in range(draws)]
    prior, made = _scores(decoder.guess(len(samples.codes)), samples), dict[str, dict[str, float]]()
    for name, blind in prior.items():
        ours = np.mean([each[name] for each in drawn], axis=0)
        known = ~np.isnan(blind)
        if not known.any():
            continue
        better, clips = (ours - blind)[known], samples.clip[known]
        mean, (low, high) = macro_accuracy_interval(better, np.zeros(len(better), np.int64), clips, 0)
        made[name] = {
            "ours": float(ours[known].mean()),
            "prior": float(blind[known].mean()),
            "better": mean,
            "low": low,
            "high": high,
        }
    return made


def _scores(drawn: Contours, samples: Samples) -> dict[str, Floats]:
    """Name -> float (N,): overlap of outlines, or 1 where the likeliest answer is right; NaN where nothing is known."""
    import numpy as np

    from familial.contour.outline import overlap
    from wire.protocol.contour import POSTURES

    shown = samples.shown
    made: dict[str, Floats] = {}
    for name in ("first", "second"):
        made[name] = overlap(getattr(drawn, name), getattr(shown, name))
    made["lying"] = np.where(shown.posture == POSTURES.index("lying"), made["first"], np.nan)
    for name in ("posture", "count", "moving", "way"):
        chances, true = getattr(drawn, name), getattr(shown, name)
        said = chances.argmax(axis=1) if chances.ndim > 1 else (chances > 0.5).astype(np.int64)
        made[name] = np.where(true < 0, np.nan, said == true)
    return {name: made[name] for name in _NAMES}


def _cost(decoder: ContourDecoder, samples: Samples, sigma: float) -> dict[str, float]:
    """Microseconds of a figure, alone and of 64 at once."""
    made, z, present = dict[str, float](), samples.codes[:64].numpy(), samples.present[:64].numpy()
    for name, count in (("one", 1), ("of_64", 64)):
        began, rounds = time.perf_counter(), 200
        for _ in range(rounds):
            decoder.read(z[:count], present[:count], sigma)
        made[name] = 1e6 * (time.perf_counter() - began) / rounds / count
    return made


def _who(file: Path, decoder: ContourDecoder, config: FamilyConfig, sigma: float) -> dict[str, Any]:
    """What the audit's attack names right, from z and from contours."""
    import torch

    from benchmarks.privacy.contour_attack import attack
    from calibration.audit.bounds import naming_bound
    from calibration.audit.classifiers import Effort
    from calibration.audit.targets import Gallery

    try:
        gallery = Gallery.load(file)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"--gallery {file}: no gallery of the audit ({error}); run calibration.audit") from error
    count, releases = len(gallery.names), config.event_releases
    torch.manual_seed(0)
    found = attack(gallery, decoder, releases, sigma, Effort(windows=32_000, tests=16_384, turns=_TURNS))
    shift = config.clip_norm * releases**0.5 / sigma
    made: dict[str, Any] = {
        name: {"named": each.value, "interval": list(each.interval)} for name, each in found.items()
    }
    return {**made, "people": count, "chance": 1.0 / count, "certificate": naming_bound(shift, count)}


def _told(who: Mapping[str, Any]) -> list[str]:
    def said(name: str) -> str:
        low, high = who[name]["interval"]
        return f"{who[name]['named']:.3f} ({low:.3f} to {high:.3f})"

    return [
        f"who it is, 1 of {who['people']}: from z {said('z')}, from contours {said('contour')}; "
        f"chance {who['chance']:.3f}, at most {round_up(who['certificate'])} by the certificate",
        f"the control, contours with one planted ray: {said('planted')}",
    ]


COMMAND = Benchmark(
    name="contour",
    text=__doc__ or "",
    peer="the commonest posture, which no code is needed for, in accuracy",
    options=_options,
    measure=_measure,
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
