"""Looks for pixels and codes in what leaves, in whatever way they are written.

leaks(data, Secrets(shapes_of(watermark(rng, spec)), codes)) --> the names of what was found
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_runtime.capture.pictures import fit
from edge_runtime.eye.engine.onnx import OnnxEngine
from wire.artifact.manifest import WindowSpec
from wire.people.decode import decode, place
from wire.people.packed import Packed, nobody, pack
from wire.people.tracks import form_tracks

__all__ = [
    "Floats",
    "Secrets",
    "clean_codes",
    "frames_of",
    "leaks",
    "read_clip",
    "shapes_of",
    "watermark",
    "write_clip",
]

Floats = npt.NDArray[np.float64]

# --- the detector -----------------------------------------------------------------------------------------------------

FOUND = 0.75  # |r| of a leak is near 1; by chance, over 10^9 places of 64 values, it stays below 0.7
CLOSE = 0.1  # squared distance from a clean code, over the code's own square
KINDS = ("u1", "i1", "<u2", ">u2", "<i2", ">i2", "<i4", ">i4", "<f2", "<f4", ">f4", "<f8")
SMALL = 64 * 1024  # raw deflate has no header: it is tried at every offset of what is no longer than this
DEPTH = 2  # an encoding inside an encoding


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must not be found.

    Attributes:
        shapes: Name -> float (any, m), rows that are looked for up to scale and offset.
        codes: Float (any, n), looked for as they are.
        people: Float (any, m), the people of a frame, looked for as they are.
    """

    shapes: dict[str, Floats]
    codes: Floats
    people: Floats = field(default_factory=lambda: np.zeros((0, 1)))


def unwrapped(data: bytes, depth: int = DEPTH) -> Iterator[bytes]:
    """`data`, and what it holds in base64, hex, zlib, gzip or bare deflate, each again to `depth`."""
    yield data
    if depth == 0:
        return
    seen = set()
    for inner in _decoded(data):
        if len(inner) >= 48 and inner not in seen:
            seen.add(inner)
            yield from unwrapped(inner, depth - 1)


def _decoded(data: bytes) -> Iterator[bytes]:
    for run in re.findall(rb"[A-Za-z0-9+/_\-\s]{64,}={0,2}", data):
        text = re.sub(rb"\s", b"", run).translate(bytes.maketrans(b"-_", b"+/"))
        for start in range(4):
            part = text[start:].rstrip(b"=")
            part = part[: len(part) - (len(part) % 4 == 1)]
            yield base64.b64decode(part + b"=" * (-len(part) % 4))
    for run in re.findall(rb"(?:[0-9a-fA-F][:\s]?){96,}", data):
        digits = re.sub(rb"[:\s]", b"", run)
        for start in range(2):
            yield binascii.unhexlify(digits[start : len(digits) - (len(digits) - start) % 2])
    for start in range(len(data)):
        head = data[start : start + 2]
        if head == b"\x1f\x8b" or (head[:1] == b"\x78" and len(head) == 2 and int.from_bytes(head, "big") % 31 == 0):
            yield _inflate(data[start:], 47)
        if len(data) <= SMALL:
            yield _inflate(data[start:], -15)


def _inflate(data: bytes, form: int) -> bytes:
    """What decompresses without an error; for bare deflate (`form` < 0) only a complete stream."""
    stream = zlib.decompressobj(form)
    try:
        out = stream.decompress(data, 1 << 20)
    except zlib.error:
        return b""
    return out if stream.eof or form > 0 else b""


def numbers(data: bytes) -> Iterator[Floats]:
    """`data` read as every kind of number at every offset, and the numbers printed in it."""
    for kind in KINDS:
        size = np.dtype(kind).itemsize
        for offset in range(size):
            count = (len(data) - offset) // size
            if count >= 48:
                with np.errstate(invalid="ignore", over="ignore"):
                    values = np.frombuffer(data, kind, count, offset).astype(np.float64)
                yield np.where(np.abs(values) < 1e6, values, 0.0)  # also what is not a number
    printed = re.findall(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", data)
    if len(printed) >= 48:
        values = np.array([float(text) for text in printed])
        yield np.where(np.abs(values) < 1e6, values, 0.0)


def windows_of(values: Floats, length: int) -> Iterator[Floats]:
    """All runs of `length` consecutive values, float (at most 8192, length) at a time."""
    for start in range(0, len(values) - length + 1, 8192):
        yield np.lib.stride_tricks.sliding_window_view(values[start : start + 8191 + length], length)


def likeness(values: Floats, shapes: Floats) -> float:
    """The largest |correlation| of a row of `shapes` (k, m) with any m consecutive values."""
    templates = shapes - shapes.mean(axis=1, keepdims=True)
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    best = 0.0
    for runs in windows_of(values, shapes.shape[1]):
        centred = runs - runs.mean(axis=1, keepdims=True)
        size = np.linalg.norm(centred, axis=1, keepdims=True)
        cosine = np.abs(centred @ templates.T) / np.maximum(size, 1e-6)
        best = max(best, float(cosine.max()))
    return best


def closeness(values: Floats, codes: Floats) -> float:
    """The smallest squared distance of a row of `codes` (k, n) from any n consecutive values, over the row's square."""
    own = (codes**2).sum(axis=1)
    best = np.inf
    for runs in windows_of(values, codes.shape[1]):
        distance = (runs**2).sum(axis=1)[:, None] - 2.0 * (runs @ codes.T) + own
        best = min(best, float((distance / own).min()))
    return best


def leaks(data: bytes, secrets: Secrets) -> list[str]:
    """The names of the secrets found in `data`."""
    found = set()
    for inner in unwrapped(data):
        for values in numbers(inner):
            for name, shapes in secrets.shapes.items():
                if likeness(values, shapes) > FOUND:
                    found.add(name)
            if closeness(values, secrets.codes) < CLOSE:
                found.add("clean code")
            if len(secrets.people) and closeness(values, secrets.people) < CLOSE:
                found.add("people")
    return sorted(found)


# --- what is looked for -----------------------------------------------------------------------------------------------


def watermark(rng: np.random.Generator, spec: WindowSpec) -> Floats:
    """A random pattern, float (height, width) within +-100.

    It is fine, so that no row looks like another, and partly coarse, so that a thumbnail still shows it.
    """
    coarse = np.kron(rng.choice([-25.0, 25.0], (spec.height // 8, spec.width // 8)), np.ones((8, 8)))
    return coarse + rng.uniform(-75.0, 75.0, (spec.height, spec.width))


def frames_of(
    pattern: Floats, count: int, rng: np.random.Generator, grey: npt.ArrayLike = 128.0
) -> npt.NDArray[np.uint8]:
    """The pattern in `count` strengths and signs, so that it always moves; uint8 (count, height, width).

    grey: Of the picture, or of each of them; a dark one shows the pattern less.
    """
    mean = np.broadcast_to(np.asarray(grey, np.float64), (count,))
    gains = rng.uniform(0.3, 1.0, count) * rng.choice([-1.0, 1.0], count) * np.minimum(1.0, mean / 90.0)
    return np.asarray(np.clip(mean[:, None, None] + gains[:, None, None] * pattern, 0, 255), np.uint8)


def shapes_of(pattern: Floats) -> dict[str, Floats]:
    """Rows, columns and two thumbnails: a leak of the frame, whole, cropped, turned or shrunk, holds one of them."""
    height, width = pattern.shape
    shapes = {"row": pattern[::12], "column": pattern[:, ::12].T}
    for size in (8, height // 8):
        blocks = pattern.reshape(height // size, size, width // size, size)
        shapes[f"thumbnail {height // size}"] = blocks.mean(axis=(1, 3)).reshape(1, -1)
    return shapes


def write_clip(path: Path, frames: npt.NDArray[np.uint8], fps: float) -> None:
    """A lossless clip of grey frames (count, height, width)."""
    height, width = frames.shape[1:]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), fps, (width, height))
    assert writer.isOpened(), "this OpenCV writes no FFV1"
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    writer.release()


def read_clip(path: Path) -> npt.NDArray[np.uint8]:
    """The grey frames of a clip of the model's size."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2GRAY))
    return np.stack(frames).astype(np.uint8)


def clean_codes(engine: Path, frames: npt.NDArray[np.uint8], fps: float, slots: int) -> tuple[Floats, Floats]:
    """The code of each slot's window, float (slots, n), and the people of each frame, float (count, 6 * VALUES)."""
    opened = OnnxEngine(engine)
    spec = opened.manifest.window
    people = np.stack([seen(opened, frame) for frame in frames]) if opened.manifest.person_frame else None
    black, codes = np.zeros((1, *frames.shape[1:]), np.uint8), []
    for slot in range(slots):
        index = spec.pick(np.arange(len(frames)) / fps, (slot + 1) * spec.slot_s)
        window = np.concatenate([frames, black])[index][None]
        tracks = None if people is None else form_tracks(np.concatenate([people, nobody(1)])[index][None])
        codes.append(opened.encode(window, None if tracks is None else tracks.astype(np.int32)).astype(np.float64))
    flat = np.zeros((0, 1)) if people is None else people.reshape(len(people), -1).astype(np.float64)
    return np.stack(codes), flat


def seen(engine: OnnxEngine, picture: npt.NDArray[np.uint8]) -> Packed:
    """The people that the person network finds in a grey picture, int16 (6, VALUES)."""
    height, width = picture.shape
    assert engine.manifest.person_frame is not None
    frame = np.zeros((1, *engine.manifest.person_frame, 3), np.uint8)
    fit(picture, frame[0])
    found = decode(engine.perceive(frame)).within(place(height, width, engine.manifest.person_frame))
    return pack(found, height, width)
