"""`python -m benchmarks.picture --out FILE.svg`: the whole loop in one picture, from one run of the demo's clip.

    rendered clip --engine, noise--> the 64 integers of each slot --8 slots--> cloud member --> verdicts --> alert
    drawn: a frame at the verdict that raises the alert | the integers that left the box for that slot | the verdict

Everything that is drawn was computed here by the shipped engine and checkpoint. The noise has the engine's sigma and a
fixed seed, so that the picture is the same each time; a device draws its noise from the kernel's generator.
"""

from __future__ import annotations

import argparse
import base64
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.harness import add_checkpoint, add_engine, engine_folder
from benchmarks.runner import Picture
from calibration.audit.drawing import document, line, text
from familial.synth.rendered_clip import RenderedClip
from wire.artifact.manifest import EngineManifest
from wire.errors import DataError

__all__ = ["COMMAND", "Moment", "draw", "moment"]

_SEED = 5  # a typical run: the alert comes 5 s after the onset; under four noise samples of ten none comes
_INK, _PALE, _RED, _BLUE = "#1d2327", "#d5d9dd", "#b02a37", "#0a58ca"
_TOP, _HIGH = 62, 232  # of the three panels
_FRAME, _GRID, _CARD = (20, 272), (346, 256), (654, 226)  # left edge and width of each


@dataclass(frozen=True, slots=True)
class Moment:
    """What is drawn.

    Attributes:
        frame: the clip's frame at the end of the slot, uint8 (H, W, 3) BGR.
        end_s: when the slot ends.
        z: the integers that left for the slot, int16 (n,).
        probabilities: label -> probability, of the event that ends with the slot.
        sentence: of that verdict.
        alert: the label whose alert it raises, empty for none.
    """

    frame: npt.NDArray[np.uint8]
    end_s: float
    z: npt.NDArray[np.int16]
    probabilities: dict[str, float]
    sentence: str
    alert: str


def moment(engine: Path, checkpoint: Path, seed: int = _SEED) -> Moment:
    """Run the demo's clip through the engine and the cloud member up to the verdict that raises an alert.

    Raises DataError where none does: its last verdict would be a picture of a missed fall.
    """
    from cloud_bridge.alerts.lifecycle import AlertBook
    from cloud_bridge.config import BridgeConfig
    from cloud_bridge.inference.member import FamilyMember
    from cloud_bridge.ingest.events import Event
    from cloud_bridge.models import budget_of
    from familial.evaluate import sequential
    from familial.synth.clip import demo_clip
    from wire.protocol.event import EventWindow

    clip, manifest = demo_clip(), EngineManifest.load(engine)
    config = BridgeConfig((), alerts_by_default=True)
    member, budget = FamilyMember.load(checkpoint, manifest), budget_of(config, str(checkpoint), manifest)
    book = AlertBook(config.alerts, [], budget=budget)
    event = EventWindow(manifest.event_releases, manifest.tokens, manifest.width)
    for slot, z in enumerate(_releases(engine, checkpoint, clip, seed)):
        event.push(slot, z)
        if not event.whole:
            continue
        read = Event("camera", 0, event.first_slot, slot, event.z.copy(), event.present.copy())
        (verdict,) = member.read([read])
        at = sequential.Moment(0, slot, (1 << len(event.z)) - 1, event.z[::-1].reshape(len(event.z), -1))
        raised = [change.label for change in book.update(verdict.probabilities, at=at) if change.raised]
        if raised:
            end_s = (slot + 1) * manifest.window.slot_s
            frame = clip.frames[np.flatnonzero(clip.times_s <= end_s)[-1]]
            return Moment(frame, end_s, z, verdict.probabilities, member.describe([read])[0], raised[0])
    raise DataError(f"no alert is raised on the demo's clip under the noise of seed {seed}; give another --seed")


def _releases(engine: Path, checkpoint: Path, clip: RenderedClip, seed: int) -> list[npt.NDArray[np.int16]]:
    """What leaves the box for every slot of a clip, int16 (n,) each."""
    from edge_runtime.eye.engine.onnx import OnnxEngine
    from edge_runtime.gate.core import release
    from familial.data.feeds import encode_feeds
    from familial.evaluate.footage import picture_footage
    from familial.model.config import FamilyConfig

    runner = OnnxEngine(engine)
    manifest, rng = runner.manifest, np.random.default_rng(seed)
    footage = picture_footage(clip.frames, 1.0 / clip.times_s[1], FamilyConfig.load(checkpoint / "config.json"))
    slot_s, found = manifest.window.slot_s, []
    ends = [slot_s * (slot + 1) for slot in range(int(clip.times_s[-1] / slot_s))]
    for feed in encode_feeds(footage, ends, manifest.window, manifest.person_frame is not None):
        noise = np.rint(rng.normal(0.0, float(manifest.sigma), manifest.n)).astype(np.int32)
        found.append(release(runner.encode(**feed), noise, manifest.clip_norm))
    runner.close()
    return found


def draw(shown: Moment) -> str:
    """The picture as SVG text: frame, integers, verdict, from left to right."""
    parts = [
        *_heading(_FRAME, "1  What the camera sees", "frames never leave the edge box"),
        *_heading(_GRID, f"2  What leaves: {len(shown.z)} integers", "code + noise, once a second"),
        *_heading(_CARD, "3  What the cloud says", "from eight such messages"),
        *_frame(shown.frame),
        *_grid(shown.z),
        *_card(shown),
    ]
    for (left, wide), (right, _) in ((_FRAME, _GRID), (_GRID, _CARD)):
        parts += _arrow(left + wide + 10, right - 10, _TOP + _HIGH / 2)
    note = f"A rendered clip, {shown.end_s:g} s after its start: computed by the shipped engine and checkpoint."
    parts.append(text(_FRAME[0], _TOP + _HIGH + 28, note, size=13))
    return document(_TOP + _HIGH + 42, parts, "a frame, the noised integers that leave, and the verdict on them")


def _heading(panel: tuple[int, int], title: str, below: str) -> list[str]:
    return [text(panel[0], 26, title, size=17), text(panel[0], 48, below, colour="#4b5560", size=13)]


def _frame(pixels: npt.NDArray[np.uint8]) -> list[str]:
    """The frame as an embedded picture, in its own proportions, with a border."""
    import cv2

    left, wide = _FRAME
    high = wide * pixels.shape[0] / pixels.shape[1]
    data = base64.b64encode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()).decode()
    top = _TOP + (_HIGH - high) / 2
    place = f'x="{left}" y="{top:.1f}" width="{wide}" height="{high:.1f}"'
    return [
        f'<image {place} href="data:image/jpeg;base64,{data}"/>',
        f'<rect {place} fill="none" stroke="{_INK}" stroke-width="1.5"/>',
    ]


def _grid(z: npt.NDArray[np.int16]) -> list[str]:
    """The integers in a square of cells: blue below zero, red above, darker with size."""
    left, wide = _GRID
    side = int(np.ceil(np.sqrt(len(z))))
    across, down = wide / side, _HIGH / side
    largest = max(1, int(np.abs(z).max()))
    parts = []
    for index, value in enumerate(z.tolist()):
        x, y = left + across * (index % side), _TOP + down * (index // side)
        colour, share = (_RED if value > 0 else _BLUE), 0.55 * abs(value) / largest
        place = f'x="{x:.1f}" y="{y:.1f}" width="{across:.1f}" height="{down:.1f}"'
        parts.append(f'<rect {place} fill="{colour}" fill-opacity="{share:.2f}" stroke="{_PALE}"/>')
        parts.append(text(x + across / 2, y + down / 2 + 4, str(value), "middle", size=11))
    return parts


def _card(shown: Moment) -> list[str]:
    """Bars of the labels' probabilities, the sentence, and the alert."""
    left, wide = _CARD
    parts = []
    for index, (label, p) in enumerate(shown.probabilities.items()):
        y = _TOP + 20 + 30 * index
        colour = _RED if label == shown.alert else "#6c757d"
        parts.append(text(left, y, label, size=15))
        bar = f'x="{left + 62}" y="{y - 12}" width="{max(1.0, 110 * p):.1f}" height="15"'
        parts.append(f'<rect {bar} fill="{colour}"/>')
        parts.append(text(left + wide, y, f"{p:.2f}", "end", size=15))
    y = _TOP + 20 + 30 * len(shown.probabilities) + 6
    for index, words in enumerate(textwrap.wrap(f"“{shown.sentence}”", 32)):
        parts.append(text(left, y + 20 * index, words, size=14))
    box = f'x="{left}" y="{_TOP + _HIGH - 62}" width="{wide}" height="46"'
    parts.append(f'<rect {box} rx="6" fill="#fff5f5" stroke="{_RED}" stroke-width="2.5"/>')
    parts.append(text(left + wide / 2, _TOP + _HIGH - 32, f"ALERT: {shown.alert}", "middle", _RED, 20))
    return parts


def _arrow(begin: float, end: float, y: float) -> Sequence[str]:
    head = f"{end:.1f},{y:.1f} {end - 9:.1f},{y - 6:.1f} {end - 9:.1f},{y + 6:.1f}"
    return [line(begin, y, end - 8, y, _INK, 2.5), f'<polygon points="{head}" fill="{_INK}"/>']


def _options(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    add_checkpoint(parser, "the checkpoint that the engine was built from (default: checkpoints/nano)")
    parser.add_argument("--seed", type=int, default=_SEED, help="of the noise")


COMMAND = Picture(
    "picture", __doc__, _options, lambda args: draw(moment(engine_folder(args), args.checkpoint, args.seed))
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
