"""No pixel leaves: a random watermark goes through the real device, and nothing it writes or sends holds it.

The detector (`tests/support/pixels.py`) looks for the watermark, for the people whom the person network sees in it and
for the codes in every byte that left: files, log lines, MQTT payloads and the raw bytes on the socket; with the
product's own eye and with hostile ones. The same detector is tested with leaks planted on purpose.
"""

from __future__ import annotations

import base64
import gzip
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.support.hostile_runs import Arena, Play, Run, faults
from tests.support.pixels import (
    Floats,
    Secrets,
    clean_codes,
    frames_of,
    leaks,
    read_clip,
    shapes_of,
    watermark,
    write_clip,
)
from wire.artifact.manifest import WindowSpec

FPS, SECONDS = 20.0, 4.0
HOSTILE = ("attacks", "speaks", "heap", "crashes")


@pytest.mark.parametrize("which", ["small", pytest.param("shipped", marks=pytest.mark.slow)])
def test_no_pixel_leaves(tmp_path: Path, request: pytest.FixtureRequest, which: str) -> None:
    """Neither the watermark nor a code is in a file, a log line, a message, or in what the socket sent."""
    rng, clip = np.random.default_rng(), tmp_path / "clip.avi"
    small, folder = {"size": 96, "slot_s": 0.25, "person_frame": (96, 96)}, tmp_path / "run"
    folder.mkdir()
    built = request.getfixturevalue("shipped_engine") if which == "shipped" else None
    with Arena(folder, small, built) as arena:
        spec, speed = arena.rig.manifest.window, 2.0 if which == "shipped" else 1.0
        pattern = watermark(rng, spec)
        write_clip(clip, frames_of(pattern, round(FPS * SECONDS), rng), FPS)
        how = {"source": str(clip), "windows": 0, "speed": speed, "tap": True}
        plays = {"own": Play(**how)}  # type: ignore[arg-type]  # of each its own
        if which == "small":
            eyes = {name: f"tests.support.hostile_eye:{name}@{folder}" for name in (*HOSTILE, "free-attacks")}
            plays |= {name: Play(eye=eye, **{**how, "windows": 12}) for name, eye in eyes.items()}  # type: ignore[arg-type]
        runs = arena.play({name: play for name, play in plays.items() if name != "free-attacks"})
        seen, files = read_clip(clip), arena.left()
        assert arena.caught == []
        assert np.corrcoef(seen[5].ravel(), pattern.ravel())[0, 1] ** 2 > 0.9, "the watermark was not what was played"
        codes, people = clean_codes(arena.rig.engine, seen, FPS, spec.releases_of(SECONDS))
        assert len(people) == len(seen)
        found = people[people.any(axis=1)]  # a person network that was trained sees nobody in a watermark, or hardly
        assert which == "shipped" or len(found) == len(people), "nobody was seen: nobody can be looked for"
        _look(runs, files, seen, pattern, Secrets(shapes_of(pattern), codes, found[::10]))
        if which == "small":  # the same attacks by an eye that does not confine itself: here pixels leave
            free = arena.play({"free": plays["free-attacks"]})["free"]
            assert free.figures["eye"]["says"] == "the engine failed"
            assert arena.caught
            secrets = Secrets(shapes_of(pattern), np.ones((1, 64)))
            assert any(leaks(data, secrets) for data in (*arena.caught, *arena.left().values()))
            _clean_up(arena)


def _clean_up(arena: Arena) -> None:
    """Remove what the free attacks left outside of the arena."""
    for path in (Path("/tmp") / arena.name, Path("/dev/shm") / arena.name):
        path.unlink(missing_ok=True)
    (Path("/tmp") / f"{arena.name}-folder").rmdir()


def _look(
    runs: dict[str, Run], files: dict[str, bytes], seen: npt.NDArray[np.uint8], pattern: Floats, secrets: Secrets
) -> None:
    own, codes = runs["own"], secrets.codes
    assert own.status == 0, own.log
    late = int(own.figures["eye"]["missed"])  # where the last of them are late, noise alone goes on after the source
    assert 0.7 * len(codes) < len(own.slots) <= len(codes) + late  # all, except slots that a busy machine missed
    assert codes.any(axis=1).all(), "an empty code cannot be looked for"
    assert any("state" in name for name in files) and any(name.endswith(".log") for name in files)
    left = {**files, **{f"socket of {name}": run.sent for name, run in runs.items()}}
    assert sum(len(data) for data in left.values()) > 5_000
    assert {name: found for name, data in left.items() if (found := leaks(data, secrets))} == {}
    assert {name: found for name, run in runs.items() if name != "own" and (found := _told(run, own))} == {}

    # The same detector, on what was sent with one leak put into it.
    seen_slots = [slot for slot in own.slots if slot < len(codes)]
    released = codes[seen_slots]
    z = np.stack([m.z for _, m in own.heard.features][: len(released)]).astype(float)
    whom = [secrets.people[-1].astype("<i2").tobytes()] if len(secrets.people) else []
    for leak in (seen[7].tobytes(), zlib.compress(seen[7].tobytes()), released[2].astype("<i2").tobytes(), *whom):
        assert leaks(own.sent[:700] + leak + own.sent[700:], secrets)
    # Two releases with the same noise would differ by their codes alone.
    pairs = [(z[a] - z[b], released[a] - released[b]) for a in range(len(z)) for b in range(a)]
    assert min(float(((p - d) ** 2).sum() / (d**2).sum()) for p, d in pairs if d.any()) > 1.0


def _told(run: Run, own: Run) -> list[str]:
    """As `faults`; the product's own eye was played to the end of the file, the others for some slots of it."""
    return [fault for fault in faults(run, own) if not fault.startswith("releases: ")]


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
