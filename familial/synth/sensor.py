"""The camera's sensor and electronics: from the painted picture to the frame that a camera would give.

draw_sensor(rng, times, night) -> Sensor -> Electronics: blur, ghosting, noise, text, compression
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.random import Generator
from numpy.typing import NDArray

from familial.synth.skeleton import Floats

__all__ = ["CLEAR", "Electronics", "Sensor", "draw_sensor"]


@dataclass(frozen=True, slots=True)
class Sensor:
    """What happens between the light and the frame. T is the number of frames.

    Attributes:
        exposures: Moments that are averaged into one frame.
        shutter_s: Seconds between the first and the last of them.
        blur: Blur kernel in pixels; 0 is none.
        noise: Standard deviation in grey levels.
        jpeg_quality: JPEG quality; 0 is none.
        ghosting: How much of the last frame stays.
        vignette: How much darker the corners are.
        gains: (T,) brightness over time.
        shadow: How dark shadows on the floor are.
        low_contrast: Whether people wear the colours of the room.
        side_bars: Black bars left and right, as a share of the width.
        clock_s: The clock written into the picture: seconds of the day at the start; -1 is none.
        tone_curve: (256,) tone curve.
        resolution: The sensor's own pixels against the picture's.
        codec_threshold: Blocks that changed by fewer grey levels are not sent again; 0 sends all.
        keyframe_interval: Frames between whole pictures (key frames) of that codec.
        held_frames: (T,) the frame that is shown instead: a lower frame rate, or lost frames.
        shake: (T, 2, 3) where an unsteady camera puts the picture.
        overlay_text: A line written into the picture.
        top_bars: Black bars above and below, as a share of the height.
        joined_late: The stream is entered between whole pictures: grey until something moves.
    """

    exposures: int
    shutter_s: float
    blur: int
    noise: float
    jpeg_quality: int
    ghosting: float
    vignette: float
    gains: Floats
    shadow: float
    low_contrast: bool
    side_bars: float
    clock_s: int
    tone_curve: NDArray[np.uint8] | None = None
    resolution: float = 1.0
    codec_threshold: float = 0.0
    keyframe_interval: int = 40
    held_frames: NDArray[np.int64] | None = None
    shake: Floats | None = None
    overlay_text: str = ""
    top_bars: float = 0.0
    joined_late: bool = False

    def moments(self, times_s: Floats) -> Floats:
        """The moments (T * exposures,) that the frames at `times_s` (T,) average, in seconds."""
        back = np.arange(self.exposures - 1, -1, -1) * self.shutter_s / max(1, self.exposures)
        return np.asarray((times_s[:, None] - back).reshape(-1))

    def move(self, t: int, size: tuple[int, int]) -> Floats:
        """Where `shake` puts frame `t` of `size` (H, W): a matrix (2, 3) as OpenCV's warpAffine takes it."""
        assert self.shake is not None
        move = self.shake[t].copy()
        middle = np.array([size[1] / 2, size[0] / 2])
        move[:, 2] = move[:, 2] * size[1] / 160 + middle - move[:, :2] @ middle
        return np.asarray(move)


CLEAR = Sensor(2, 0.03, 0, 1.0, 0, 0.0, 0.05, np.ones(0), 0.35, False, 0.0, -1)
"""A good camera; `gains` is to be set."""


def draw_sensor(rng: Generator, times: Floats, night: bool) -> Sensor:
    """A sensor for frames at `times` (T,) in seconds; noisier at `night`."""
    gains = np.ones(len(times))
    style = rng.choice(["steady", "flicker", "drift", "switch", "lamp"], p=[0.56, 0.16, 0.16, 0.08, 0.04])
    if style == "flicker":
        gains += rng.uniform(0.01, 0.05) * np.sin(2 * np.pi * rng.uniform(0.5, 5) * times)
        gains += rng.normal(0, 0.01, len(times))
    elif style == "drift":
        gains += rng.uniform(0.05, 0.25) * np.sin(2 * np.pi * rng.uniform(0.02, 0.12) * times + rng.uniform(0, 6))
    elif style == "switch":
        dim = rng.uniform(0.35, 0.7)
        before = times < rng.uniform(1.0, times[-1] - 1.0)
        gains = np.where(before == (rng.random() < 0.5), 1.0, dim)
    elif style == "lamp":  # one that fails: it goes off and on, for moments or for long
        dim, changes = rng.uniform(0.4, 0.85), np.cumsum(rng.exponential(rng.uniform(0.08, 0.6), 500))
        gains = np.where(np.searchsorted(changes, times) % 2 == 0, 1.0, dim)
    return Sensor(
        exposures=2 if rng.random() < 0.22 else 1,
        shutter_s=float(rng.uniform(0.02, 0.05)),
        blur=int(rng.choice([0, 3, 5], p=[0.74, 0.24, 0.02])),
        noise=float(rng.uniform(0.5, 4.0) * (2.2 if night else 1.0)),
        jpeg_quality=int(rng.integers(18, 85)) if rng.random() < 0.6 else 0,
        ghosting=float(rng.uniform(0.1, 0.4)) if rng.random() < 0.2 else 0.0,
        vignette=float(rng.uniform(0, 0.35)),
        gains=gains,
        shadow=0.0 if night else float(rng.uniform(0.0, 0.5)),
        low_contrast=bool(rng.random() < 0.05),
        side_bars=float(rng.uniform(0.02, 0.1)) if rng.random() < 0.1 else 0.0,
        clock_s=int(rng.integers(86400)) if rng.random() < 0.25 else -1,
        tone_curve=_draw_curve(rng) if rng.random() < 0.55 else None,
        resolution=float(rng.uniform(0.55, 0.9)) if rng.random() < 0.25 else 1.0,
        codec_threshold=float(rng.uniform(2.0, 9.0)) if rng.random() < 0.5 else 0.0,
        keyframe_interval=int(rng.integers(12, 80)),
        held_frames=_draw_held(rng, times) if rng.random() < 0.2 else None,
        shake=_draw_shake(rng, times) if rng.random() < 0.14 else None,
        overlay_text=str(rng.choice(["CAM 03", "CH 01", "Camera 2", "LIVE", "REC", "IPC-7"]))
        if rng.random() < 0.15
        else "",
        top_bars=float(rng.uniform(0.03, 0.14)) if rng.random() < 0.12 else 0.0,
        joined_late=bool(rng.random() < 0.04),
    )


def _draw_curve(rng: Generator) -> NDArray[np.uint8]:
    """A tone curve: contrast, crushed blacks, blown highlights."""
    x = np.linspace(0, 1, 256) ** rng.uniform(0.6, 1.15)
    x = 0.5 + (x - 0.42) * rng.uniform(0.85, 1.9)
    return np.asarray(np.clip(255 * x, 0, 255), dtype=np.uint8)


def _draw_held(rng: Generator, times: Floats) -> NDArray[np.int64]:
    """The frame (T,) that is shown, of a camera that sends fewer frames, or loses some now and then."""
    index = np.arange(len(times))
    if rng.random() < 0.6:
        rate = rng.uniform(3.5, 9.0)
        return np.searchsorted(times, np.floor(times * rate + 1e-6) / rate - 1e-6).astype(np.int64)
    for _ in range(int(rng.integers(1, 5))):
        first, count = int(rng.integers(len(times))), int(rng.integers(2, 14))
        index[first : first + count] = index[first]
    return index


def _draw_shake(rng: Generator, times: Floats) -> Floats:
    """Where the picture goes (T, 2, 3), for 160 pixels of width: a hand, a pole in the wind, a slow pan or zoom."""
    n, style = len(times), rng.choice(["hand", "pole", "pan"], p=[0.45, 0.3, 0.25])
    x, y, turn, zoom = np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, 1.03)
    if style == "hand":
        knots = np.arange(0, times[-1] + 1.0, 0.25)
        size = rng.uniform(0.3, 2.2)
        x, y, turn = (np.interp(times, knots, rng.normal(0, s, len(knots))) for s in (size, size, 0.25 * size))
        zoom += 0.02
    elif style == "pole":
        rate = rng.uniform(0.6, 3.0)
        x = rng.uniform(0.2, 1.0) * np.sin(2 * np.pi * rate * times + rng.uniform(0, 6))
        y = rng.uniform(0.1, 0.6) * np.sin(2 * np.pi * 1.3 * rate * times)
    else:
        u = np.clip((times - rng.uniform(0, times[-1] * 0.7)) / rng.uniform(1.0, 6.0), 0, 1)
        x, y, zoom = rng.uniform(-7, 7) * (u - 0.5), rng.uniform(-4, 4) * (u - 0.5), 1.1 + rng.uniform(0, 0.25) * u
    turn = np.radians(turn)
    moves = np.zeros((n, 2, 3))
    moves[:, 0, 0] = moves[:, 1, 1] = zoom * np.cos(turn)
    moves[:, 0, 1], moves[:, 1, 0] = -zoom * np.sin(turn), zoom * np.sin(turn)
    moves[:, 0, 2], moves[:, 1, 2] = x, y
    return moves


def _adapted_curve(room: NDArray[np.uint8], curve: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    """The tone curve, raised and stretched where the empty room would come out black, white or without contrast.

    Every camera does so much by itself, and nothing can be learnt from people who cannot be seen.
    """
    grey = cv2.cvtColor(room, cv2.COLOR_BGR2GRAY)
    seen = grey if curve is None else cv2.LUT(grey, curve)
    mean, spread = float(seen.mean()), float(seen.std())
    goal, stretch = float(np.clip(mean, 50, 190)), max(1.0, 22 / max(6.0, spread))
    if stretch == 1.0 and goal == mean:
        return curve
    levels = np.arange(256.0) if curve is None else curve.astype(np.float64)
    lift = min(4.0, goal / max(1.0, mean)) if goal > mean else goal / mean
    return np.asarray(np.clip(goal + stretch * lift * (levels - mean), 0, 255), dtype=np.uint8)


class Electronics:
    """Turns painted pictures into frames: brightness, blur, ghosting, noise, text, compression."""

    def __init__(
        self, sensor: Sensor, size: tuple[int, int], night: bool, rng: Generator, room: NDArray[np.uint8]
    ) -> None:
        self._tone = _adapted_curve(room, sensor.tone_curve)
        self._sensor, self._size, self._rng = sensor, size, rng
        h, w = size
        grain = rng.standard_normal((h + 16, w + 16, 1 if night else 3)).astype(np.float32)
        grain = cv2.blur(grain, (2, 2)) * 2.0 if rng.random() < 0.4 else grain
        grain = grain.reshape(h + 16, w + 16, -1) * sensor.noise
        self._grain = np.ascontiguousarray(np.broadcast_to(grain, (h + 16, w + 16, 3))).astype(np.int16)
        self._last: NDArray[np.uint8] | None = None
        self._sent: NDArray[np.uint8] | None = None
        self._before: NDArray[np.uint8] | None = None
        self._count = 0

    def frame(self, picture: MatLike, gain: float, time_s: float) -> NDArray[np.uint8]:
        """A frame (H, W, 3) of what was painted, at brightness `gain`."""
        sensor, (h, w) = self._sensor, self._size
        out: MatLike = cv2.convertScaleAbs(picture, alpha=gain) if gain != 1.0 else picture
        if sensor.resolution < 1.0:
            small = cv2.resize(out, None, fx=sensor.resolution, fy=sensor.resolution, interpolation=cv2.INTER_AREA)
            out = cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR)
        if self._tone is not None:
            out = cv2.LUT(out, self._tone)
        if sensor.blur:
            out = cv2.GaussianBlur(out, (sensor.blur, sensor.blur), 0)
        if sensor.ghosting:
            last = out if self._last is None else self._last
            out = cv2.addWeighted(out, 1 - sensor.ghosting, last, sensor.ghosting, 0) if last is not out else out
            self._last = out.astype(np.uint8)
        y, x = self._rng.integers(0, 16, 2)
        out = cv2.add(out, self._grain[y : y + h, x : x + w], dtype=cv2.CV_8U)
        self._write_over(out, time_s)
        if sensor.jpeg_quality:
            _, packed = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, sensor.jpeg_quality])
            out = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
        if sensor.codec_threshold or sensor.joined_late:
            out = self._coded(np.asarray(out, dtype=np.uint8))
        return np.asarray(out, dtype=np.uint8)

    def _write_over(self, out: MatLike, time_s: float) -> None:
        """Put the clock, the title and black bars on the picture, in place."""
        sensor, (h, w) = self._sensor, self._size
        if sensor.clock_s >= 0:
            clock = sensor.clock_s + int(time_s)
            text = f"{clock // 3600 % 24:02d}:{clock // 60 % 60:02d}:{clock % 60:02d}"
            corner = (w // 20, h // 12 if sensor.clock_s % 2 else h - h // 20)
            cv2.putText(out, text, corner, cv2.FONT_HERSHEY_SIMPLEX, h / 380, (230, 235, 235), 1, cv2.LINE_AA)
        if sensor.overlay_text:
            corner = (w - w // 3, h - h // 16) if sensor.keyframe_interval % 2 else (w // 24, h // 9)
            cv2.putText(
                out, sensor.overlay_text, corner, cv2.FONT_HERSHEY_SIMPLEX, h / 300, (240, 240, 240), 1, cv2.LINE_AA
            )
        if sensor.side_bars:
            edge = round(sensor.side_bars * w)
            out[:, :edge] = out[:, w - edge :] = 0
        if sensor.top_bars:
            edge = round(sensor.top_bars * h)
            out[:edge] = out[h - edge :] = 0

    def _coded(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What arrives through a codec that sends only the blocks that changed, and now and then a whole picture.

        Where the stream is entered between whole pictures, blocks stay grey until they change.
        """
        sensor, (h, w), made = self._sensor, self._size, picture
        if self._before is None and sensor.joined_late:
            picture = np.full_like(picture, 128)
        elif (
            self._before is not None
            and self._sent is not None
            and (sensor.joined_late or self._count % sensor.keyframe_interval)
        ):
            change = cv2.cvtColor(
                cv2.absdiff(picture, self._before if sensor.joined_late else self._sent), cv2.COLOR_BGR2GRAY
            )
            blocks = cv2.resize(change, (max(1, w // 8), max(1, h // 8)), interpolation=cv2.INTER_AREA)
            still = np.asarray(blocks < max(sensor.codec_threshold, 3.0), dtype=np.uint8)
            picture = picture.copy()
            cv2.copyTo(self._sent, cv2.resize(still, (w, h), interpolation=cv2.INTER_NEAREST), picture)
        self._sent, self._before, self._count = picture, made, self._count + 1
        return picture
