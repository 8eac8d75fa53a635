"""`python -m benchmarks.kinds`: how a checkpoint reads single kinds of rendered clips, those that no seed draws first.

    kind x seeds --rendered, with the person network's errors--> codes --+ noise--> events --> called a risk?

Of a normal kind every event should be called normal; of a risk, an event that ends within 8 s of its onset should be
called that risk. Usual kinds beside them say what is usual for this checkpoint. The ratio is the mean share that is
right of the kinds asked for, over that of the usual ones. Rendered people: a direction, not a promise.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.harness import add_checkpoint
from benchmarks.runner import Benchmark, Report
from wire.arguments import at_least_one
from wire.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from familial.data.clips import Footage
    from familial.model.family import Family

__all__ = ["COMMAND"]

_USUAL = ("walk", "sit", "bend", "side_by_side", "fall_forward", "fall_chair")
_SECONDS, _SIZE, _FPS = 24.0, (120, 160), 12.0  # as life is rendered, `familial.evaluate.life`
_WITHIN_S = 8.0  # of the onset
_NOISE_SAMPLES = 4


class _Called(NamedTuple):
    """What events of clips of one kind are called, as shares: right, and of the others the commonest label's name."""

    right: float
    mistake: str
    share: float


def _options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--kinds", metavar="A,B,...", help="of clips (default: wheelchairs and walking frames)")
    parser.add_argument("--clips", type=at_least_one, default=12, help="of each kind (default 12)")
    parser.add_argument("--noise", choices=("on", "off"), default="on")


def _measure(args: argparse.Namespace) -> Report:
    import numpy as np
    import torch

    from familial.model import checkpoint
    from familial.synth.actions.catalogue import AIDED, action_of

    torch.manual_seed(0)
    asked = tuple(args.kinds.split(",")) if args.kinds else AIDED
    try:
        labels = {kind: action_of(kind).label for kind in (*asked, *_USUAL)}
    except ValueError as error:
        raise DataError(f"--kinds: {error}") from error
    family = checkpoint.load(args.checkpoint)
    rows: list[tuple[str, ...]] = [("kind", "is", "read right", "commonest mistake", "share of it")]
    figures = dict[str, dict[str, float | str]]()
    for kind, label in labels.items():
        called = _of_kind(family, kind, label, args.clips, args.noise == "on")
        figures[kind] = called._asdict()
        rows.append((kind, label, f"{called.right:.3f}", called.mistake, f"{called.share:.3f}"))
        print(f"{kind}: {called.right:.3f}", file=sys.stderr, flush=True)
    own, usual = (float(np.mean([float(figures[kind]["right"]) for kind in kinds])) for kinds in (asked, _USUAL))
    note = f"{args.clips} clips of each kind, noise {args.noise}; right: asked for {own:.3f}, usual {usual:.3f}"
    found = {"kinds": figures, "clips": args.clips, "noise": args.noise}
    return Report(own / usual if usual else None, found, rows, [note])


def _of_kind(family: Family, kind: str, label: str, clips: int, noise: bool) -> _Called:
    """Render clips of a kind and read them."""
    import numpy as np

    from familial.data.splits import clip_seeds
    from familial.evaluate.footage import rendered_footage

    names = list[str]()
    for seed in clip_seeds("kinds", clips):
        footage, clip = rendered_footage(seed, kind, family.config, size=_SIZE, fps=_FPS, seconds=_SECONDS)
        names += _names(family, footage, label, clip.annotations[0].start_s, noise)
    if not names:
        raise DataError(
            f"{kind}: in none of {clips} clips a whole event ends within {_WITHIN_S:g} s; give more --clips"
        )
    found, counts = np.unique(names, return_counts=True)
    shares = dict(zip(found.tolist(), (counts / len(names)).tolist(), strict=True))
    mistake = max((name for name in shares if name != label), key=lambda name: shares[name], default="")
    return _Called(shares.get(label, 0.0), mistake, shares.get(mistake, 0.0))


def _names(family: Family, footage: Footage, label: str, onset_s: float, noise: bool) -> list[str]:
    """What every event of a normal clip is called; of a risk, its label where an event in time says it, or another."""
    from familial.evaluate.clip_inference import clip_codes, event_probabilities
    from familial.model.code_space import rounded_gaussian

    config, codes = family.config, clip_codes(family, footage)
    z = codes.expand(_NOISE_SAMPLES if noise else 1, *codes.shape)
    events = event_probabilities(family, z + rounded_gaussian(z, config.sigma) if noise else z, "cloud")
    if label == config.labels[0]:
        return [_name(family, each) for sample in events for each in sample]
    slots = [config.event_releases + index for index in range(events.shape[1])]
    ends = [config.window.slot_s * slot for slot in slots]
    timely = [index for index, end in enumerate(ends) if onset_s < end <= onset_s + _WITHIN_S]
    named = ([_name(family, sample[index]) for index in timely] for sample in events)
    return [label if label in each else max(config.labels, key=each.count) for each in named if each]


def _name(family: Family, probabilities: npt.NDArray[np.float64]) -> str:
    from familial.evaluate.clip_inference import decide

    config = family.config
    return config.labels[decide(probabilities, config.decision_threshold)[0]]


COMMAND = Benchmark("kinds", __doc__, "usual kinds", _options, _measure)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
