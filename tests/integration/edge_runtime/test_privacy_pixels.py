"""No pixel leaves: a random watermark goes through the real edge process, and nothing it writes or sends holds it.

The detector looks for the watermark and for the clean code in every byte that left: files, log lines, MQTT payloads
and the raw bytes on the socket. The same detector is tested with leaks planted on purpose.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.broker import EmbeddedBroker, Tap
from benchmarks.harness import Rig
from benchmarks.listener import Listener
from tests.support.engine_factory import make_engine
from tests.support.services import PATIENCE_S
from wire.artifact.manifest import EngineManifest, WindowSpec

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
    """

    shapes: dict[str, Floats]
    codes: Floats


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
    return sorted(found)


# --- what is looked for -----------------------------------------------------------------------------------------------


def watermark(rng: np.random.Generator, spec: WindowSpec) -> Floats:
    """A random pattern, float (height, width) within +-100.

    It is fine, so that no row looks like another, and partly coarse, so that a thumbnail still shows it.
    """
    coarse = np.kron(rng.choice([-25.0, 25.0], (spec.height // 8, spec.width // 8)), np.ones((8, 8)))
    return coarse + rng.uniform(-75.0, 75.0, (spec.height, spec.width))


def frames_of(pattern: Floats, count: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The pattern in `count` strengths and signs, so that it always moves; uint8 (count, height, width)."""
    gains = rng.uniform(0.3, 1.0, count) * rng.choice([-1.0, 1.0], count)
    return np.asarray(np.clip(128.0 + gains[:, None, None] * pattern, 0, 255), np.uint8)


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


def clean_codes(engine: Path, frames: npt.NDArray[np.uint8], fps: float, slots: int) -> Floats:
    """What the engine makes of each slot's window without noise, float (slots, n)."""
    import onnxruntime

    spec = EngineManifest.load(engine).window
    session = onnxruntime.InferenceSession(str(engine / "encode.onnx"), providers=["CPUExecutionProvider"])
    shape = next(i.shape for i in session.get_inputs() if i.name == "noise")
    black = np.zeros((1, *frames.shape[1:]), np.uint8)
    codes = []
    for slot in range(slots):
        index = spec.pick(np.arange(len(frames)) / fps, (slot + 1) * spec.slot_s)
        window = np.concatenate([frames, black])[index]
        (z,) = session.run(["z"], {"frames": window[None], "noise": np.zeros(shape, np.int32)})
        codes.append(np.asarray(z, np.float64).ravel())
    return np.stack(codes)


# --- the real process -------------------------------------------------------------------------------------------------

FPS = 20.0
SECONDS = 6.0


def written(folder: Path) -> dict[str, bytes]:
    """Every file under `folder`: its name within, its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("which", ["small", pytest.param("shipped", marks=pytest.mark.slow)])
def test_no_pixel_leaves(tmp_path: Path, shipped_engine: Path, which: str) -> None:
    """Neither the watermark nor the clean code is in a file, a log line, a message, or in what the socket sent."""
    rng = np.random.default_rng()
    clip, folder = tmp_path / "clip.avi", tmp_path / "run"
    if which == "small":
        make_engine(tmp_path / "engine", size=96)
    engine = tmp_path / "engine" if which == "small" else shipped_engine
    spec = EngineManifest.load(engine).window
    pattern = watermark(rng, spec)
    write_clip(clip, frames_of(pattern, round(FPS * SECONDS), rng), FPS)
    for name in ("home", "tmp"):
        (folder / name).mkdir(parents=True)
    home = {"HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    with EmbeddedBroker(tmp_path) as broker, Tap(broker, keep=True) as tap, Listener(broker) as listener:
        rig = Rig(folder, broker, engine)
        with rig.edge(str(clip), speed=2.0, broker=tap, health="127.0.0.1:0", env=home) as edge:
            assert edge.wait(PATIENCE_S) == 0, edge.output()
        records = listener.records()
        heard = rig.hear(records)
    seen = read_clip(clip)
    releases = rig.manifest.window.releases_of(SECONDS)
    released = [message.slot for _, message in heard.features]  # all, except slots that a busy machine missed
    assert 0.7 * releases < len(released) <= releases
    codes = clean_codes(engine, seen, FPS, releases)[released]
    assert np.corrcoef(seen[5].ravel(), pattern.ravel())[0, 1] ** 2 > 0.9, "the watermark was not what was played"
    assert codes.any(axis=1).all(), "an empty code cannot be looked for"
    secrets = Secrets(shapes_of(pattern), codes)

    files = written(folder)
    assert any("state" in name for name in files) and any(name.endswith(".log") for name in files)
    left = {**files, "socket": bytes(tap.sent), "payloads": b"".join(r.payload for r in records)}
    assert sum(len(data) for data in left.values()) > 5_000
    assert {name: found for name, data in left.items() if (found := leaks(data, secrets))} == {}

    # The same detector, on what was sent with one leak put into it.
    z = np.stack([m.z for _, m in heard.features]).astype(float)
    noise = z - codes  # the device wipes it; here it can be computed
    for leak in (seen[7].tobytes(), zlib.compress(seen[7].tobytes()), (z - noise)[2].astype("<i2").tobytes()):
        assert leaks(bytes(tap.sent[:700]) + leak + bytes(tap.sent[700:]), secrets)
    # Two releases with the same noise would differ by their clean codes alone.
    differences = [codes[a] - codes[b] for a in range(len(codes)) for b in range(a)]
    published = [z[a] - z[b] for a in range(len(z)) for b in range(a)]
    gap = [float(((p - d) ** 2).sum() / (d**2).sum()) for p, d in zip(published, differences, strict=True) if d.any()]
    assert min(gap) > 1.0


# --- planted leaks ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spec() -> WindowSpec:
    return WindowSpec(96, 96, 1.0, 8, 8, 0.5, 0.5)


def planted(rng: np.random.Generator, pattern: Floats, code: Floats) -> dict[str, bytes]:
    """Leaks, each of another kind, in the middle of other bytes."""
    (frame,) = frames_of(pattern, 1, rng)
    noise = np.rint(rng.normal(0, 60, code.shape))
    z = code + noise
    thumbnail = cv2.resize(frame, (12, 12), interpolation=cv2.INTER_AREA)
    part = frame[:16]  # enough for the detector, and faster
    leak = {
        "raw": frame.tobytes(),
        "one row": frame[48].tobytes(),
        "turned": np.ascontiguousarray(frame.T[:16]).tobytes(),
        "thumbnail": thumbnail.tobytes(),
        "base64": base64.b64encode(part.tobytes()),
        "base64, for URLs": base64.urlsafe_b64encode(part.tobytes()),
        "hex": part.tobytes().hex().encode(),
        "zlib": zlib.compress(part.tobytes()),
        "gzip": gzip.compress(part.tobytes()),
        "deflate": zlib.compress(part.tobytes(), wbits=-15),
        "base64 of zlib": base64.b64encode(zlib.compress(part.tobytes())),
        "float32": (part / 255.0).astype("<f4").tobytes(),
        "float32, big-endian": (part / 255.0).astype(">f4").tobytes(),
        "int32": part.astype("<i4").tobytes(),
        "z - noise, int16": (z - noise).astype("<i2").tobytes(),
        "z - noise, int8": (z - noise).astype("i1").tobytes(),
        "z - noise, float32": (z - noise).astype("<f4").tobytes(),
        "z - noise, base64": base64.b64encode((z - noise).astype("<i2").tobytes()),
        "z - noise, printed": repr((z - noise).astype(int).tolist()).encode(),
    }
    return {name: rng.bytes(37) + b"log: " + data + b" " + rng.bytes(41) for name, data in leak.items()}


def a_code(rng: np.random.Generator) -> Floats:
    code = rng.normal(0, 1, 64)
    return np.rint(code * 60 / np.linalg.norm(code))


def test_planted_leaks_are_found(spec: WindowSpec) -> None:
    rng = np.random.default_rng()
    pattern, code = watermark(rng, spec), a_code(rng)
    secrets = Secrets(shapes_of(pattern), code[None])
    missed = [name for name, data in planted(rng, pattern, code).items() if not leaks(data, secrets)]
    assert not missed


def test_nothing_is_found_in_innocent_data(spec: WindowSpec) -> None:
    rng = np.random.default_rng()
    secrets = Secrets(shapes_of(watermark(rng, spec)), np.stack([a_code(rng) for _ in range(4)]))
    other, code = watermark(rng, spec), secrets.codes[0]
    innocent = {
        "noise": rng.bytes(20_000),
        "text": b"slot 12 published, 198 bytes; " * 200,
        "counting": np.arange(4000, dtype="<i4").tobytes(),
        "another frame": frames_of(other, 1, rng)[0].tobytes(),
        "noised codes": b"".join(np.rint(code + rng.normal(0, 60, 64)).astype("<i2").tobytes() for _ in range(20)),
    }
    assert {name: leaks(data, secrets) for name, data in innocent.items()} == dict.fromkeys(innocent, [])
