"""What the demo plays: its own rendered clip, a file, a stream or a camera, checked before anything is started."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.broker import ROOT
from edge_runtime.capture.address import backend_of, masked
from edge_runtime.capture.sources import open_frames
from wire.errors import CameraError

__all__ = ["CLIP", "Played", "check_source", "played", "rendered_clip"]

CLIP = ROOT / "build" / "demo" / "clip.mp4"
_LIVE_S = 60.0
_OPEN_S = 10.0


@dataclass(frozen=True, slots=True)
class Played:
    """What to play and how.

    Attributes:
        source: a path or URL, or a camera's index.
        speed: how many times faster than it was recorded.
        seconds: of the source; 0 for all of it.
        limit_s: how long that takes at most, wall clock.
        fall_onset_s: when the fall of the rendered clip begins; None for any other source.
    """

    source: str
    speed: float
    seconds: float
    limit_s: float
    fall_onset_s: float | None = None


def played(source: str | None, speed: float, seconds: float | None) -> Played:
    """Check the source as far as possible before anything starts; None is the rendered clip.

    Raises:
        CameraError: the source cannot be opened, or no frame of it can be read.
        DataError: the rendered clip cannot be written.
    """
    onset = None
    kind = "file" if source is None else backend_of(source)
    if source is None:
        path, onset = rendered_clip()
        source = str(path)
    if kind == "file":
        source = str(Path(source.removeprefix("file://")).absolute())
    duration = check_source(source)
    if seconds is None:
        seconds = 0.0 if kind == "file" else _LIVE_S
    speed = speed if kind in ("file", "synthetic") else 1.0
    return Played(source, speed, seconds, (seconds or duration or 600.0) / speed, onset)


def rendered_clip(path: Path = CLIP) -> tuple[Path, float]:
    """Return the renderer's demo clip as a video file, and the second at which its person begins to fall.

    It is rendered once and kept until the renderer's version changes.

    Raises:
        DataError: the clip cannot be written.
    """
    from familial.synth.version import RENDERER_VERSION

    stamp = path.with_suffix(".json")
    if path.is_file() and stamp.is_file():
        known = json.loads(stamp.read_text())
        if known.get("renderer") == RENDERER_VERSION:
            return path, float(known["fall_onset_s"])
    print("rendering the demo's clip", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onset = _write_clip(path)
    stamp.write_text(json.dumps({"renderer": RENDERER_VERSION, "fall_onset_s": onset}) + "\n")
    return path, onset


def _write_clip(path: Path) -> float:
    """Render the demo clip into `path`; the second at which its fall begins."""
    from familial.synth.clip import demo_clip  # here, so that a broker or a listener alone does not load OpenCV
    from familial.synth.disk import save_video

    clip = demo_clip()
    fps = (len(clip.times_s) - 1) / float(clip.times_s[-1] - clip.times_s[0])
    save_video(path, clip.frames, round(fps, 6))
    return float(next(each.start_s for each in clip.annotations if each.label == "fall"))


def check_source(source: str) -> float:
    """Open `source` and read one frame; its length in seconds, 0 where that is unknown. Raises CameraError."""
    frames = open_frames(source, _OPEN_S, 96, 96)  # kept: the source is closed with it
    first = next(frames, None)
    if first is None or first[1]() is None:
        raise CameraError(f"{masked(source)}: no frame can be read; it is empty or damaged")
    if backend_of(source) != "file":
        return 0.0
    import cv2

    capture = cv2.VideoCapture(source)
    fps, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    return float(count / fps) if fps > 0 and count > 0 else 0.0
