"""A camera mounted on its side or upside down: with `[camera] rotate` it gives what an upright one gives."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.capture import camera as camera_module
from edge_runtime.capture.camera import Camera
from edge_runtime.capture.clock import SlotClock
from edge_runtime.capture.pictures import shrink
from edge_runtime.capture.sources import Frame, open_frames, unreadable
from edge_runtime.capture.turning import turned
from edge_runtime.child_settings import ChildSettings
from edge_runtime.config import load_config
from tests.support.engine_factory import make_edge_config
from tests.support.services import ROOT
from wire.artifact.manifest import WindowSpec
from wire.errors import CameraError, ConfigError

cv2 = pytest.importorskip("cv2")
SPEC = WindowSpec(24, 20, slot_s=1.0, new_frames=8, context_frames=0, context_step_s=0.125, hold_s=0.5)
PERSON_FRAME = (96, 128)
TURNS = (90, 180, 270)
Picture = npt.NDArray[np.uint8]
Shown = list[tuple[Picture, Picture | None, tuple[int, int]]]
"""Of each picture: small and grey, for the person network, and its size."""


def config_of(folder: Path, source: str, rotate: int) -> ChildSettings:
    config = load_config(make_edge_config(folder, engine="/none", source=source, camera={"rotate": rotate}))
    return ChildSettings.of(config, set(), camera=True)


def camera_of(folder: Path, source: str, rotate: int, person_frame: tuple[int, int] | None = PERSON_FRAME) -> Camera:
    return Camera(config_of(folder, source, rotate), SPEC, SlotClock(1.0, 0.2), person_frame)


def mounted(picture: Picture, rotate: int) -> Picture:
    """An upright picture as a camera takes it whose pictures must be turned by `rotate` degrees clockwise."""
    return np.ascontiguousarray(np.rot90(picture, rotate // 90))


def frames_of(pictures: list[Picture]) -> Iterator[Frame]:
    return ((k / 8, _given(picture)) for k, picture in enumerate(pictures))


def _given(picture: Picture) -> Callable[[], Picture | None]:
    return lambda: picture


def shown(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What a camera gives of its source, to the end or for 20 frames."""
    found: Shown = []

    def push(at_s: float, small: Picture, colour: Picture | None, size: tuple[int, int]) -> None:
        found.append((small.copy(), None if colour is None else colour.copy(), size))

    monkeypatch.setattr(camera._buffer, "push", push)
    for at_s, fetch in itertools.islice(camera._opened or camera._frames(), 20):
        camera._keep(fetch, at_s)
    return found


def film(path: Path, height: int = 48, width: int = 64) -> Path:
    """A clip of a second whose top left quarter is bright."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 8.0, (width, height))
    assert writer.isOpened()
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = 230
    for _ in range(9):
        writer.write(picture)
    writer.release()
    return path


def bright_quarter(small: Picture) -> str:
    height, width = small.shape
    rows = {"top": small[: height // 2], "bottom": small[height // 2 :]}
    means = {
        f"{row} {side}": float(part.mean())
        for row, half in rows.items()
        for side, part in (("left", half[:, : width // 2]), ("right", half[:, width // 2 :]))
    }
    return max(means, key=lambda name: means[name])


# --- what is seen -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rotate", TURNS)
@pytest.mark.parametrize("size", [(63, 101), (121, 67), (96, 128)])
def test_a_turned_camera_with_the_key_is_an_upright_one_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotate: int, size: tuple[int, int]
) -> None:
    """Odd sizes, higher than wide, and of the person network's own size."""
    rng = np.random.default_rng(0)
    upright = [rng.integers(0, 256, (*size, 3), np.uint8) for _ in range(4)]
    sideways = [mounted(picture, rotate) for picture in upright]
    monkeypatch.setattr(camera_module, "open_frames", lambda *_: frames_of([picture.copy() for picture in upright]))
    expected = shown(camera_of(tmp_path, "rtsp://cam/1", 0), monkeypatch)
    monkeypatch.setattr(camera_module, "open_frames", lambda *_: frames_of(sideways))
    found = shown(camera_of(tmp_path, "rtsp://cam/1", rotate), monkeypatch)
    assert len(found) == len(expected) == 4
    for (small, colour, seen_size), (small_then, colour_then, size_then) in zip(found, expected, strict=True):
        assert seen_size == size_then == size
        assert np.array_equal(small, small_then)
        assert colour is not None and colour_then is not None and np.array_equal(colour, colour_then)
    assert not any(picture.any() for picture in sideways)  # the decoder's pictures are overwritten


@pytest.mark.parametrize(
    ("rotate", "quarter", "size"),
    [
        (0, "top left", (48, 64)),
        (90, "top right", (64, 48)),
        (180, "bottom right", (48, 64)),
        (270, "bottom left", (64, 48)),
    ],
)
def test_a_picture_is_turned_clockwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotate: int, quarter: str, size: tuple[int, int]
) -> None:
    found = shown(camera_of(tmp_path, str(film(tmp_path / "clip.mp4")), rotate), monkeypatch)
    assert {(bright_quarter(small), seen) for small, _, seen in found} == {(quarter, size)}
    assert len(found) == 9


@pytest.mark.parametrize(("rotate", "quarter"), [(0, "top right"), (90, "bottom right"), (270, "top left")])
def test_it_adds_to_what_a_film_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotate: int, quarter: str
) -> None:
    """A telephone writes into its films by how much they must be turned: OpenCV does."""
    clip = film(tmp_path / "clip.mp4")
    data = bytearray(clip.read_bytes())
    at = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[at : at + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)  # 90 clockwise
    clip.write_bytes(data)
    found = shown(camera_of(tmp_path, str(clip), rotate), monkeypatch)
    assert {bright_quarter(small) for small, *_ in found} == {quarter}


@pytest.mark.parametrize("person_frame", [PERSON_FRAME, None])
@pytest.mark.parametrize("rotate", TURNS)
def test_a_scene_is_turned_too_and_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotate: int, person_frame: tuple[int, int] | None
) -> None:
    found = shown(camera_of(tmp_path, "synthetic://walk", rotate, person_frame), monkeypatch)
    assert {size for *_, size in found} == {person_frame or (SPEC.height, SPEC.width)}
    drawn = next(open_frames("synthetic://walk", 1.0, *found[0][2][:: 1 if rotate == 180 else -1]))[1]()
    assert drawn is not None
    upright = np.ascontiguousarray(np.rot90(drawn, -rotate // 90))
    assert np.array_equal(found[0][0], shrink(upright, SPEC.height, SPEC.width))


def test_a_turned_scene_needs_no_opencv() -> None:
    code = (
        "import sys; from edge_runtime.capture.sources import open_frames; "
        "from edge_runtime.capture.turning import turned; "
        "picture = next(turned(open_frames('synthetic://walk', 1, 8, 16), 90))[1](); "
        "assert picture.shape == (16, 8) and 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_picture_is_judged_as_it_stands_upright(tmp_path: Path) -> None:
    """Too small for the person network: that depends on which side is the height."""
    clip = film(tmp_path / "clip.mp4", 48, 64)
    assert camera_of(tmp_path, str(clip), 0, (192, 128)).sightings is not None
    with pytest.raises(CameraError):
        camera_of(tmp_path, str(clip), 90, (192, 128))


# --- what is not turned, and what is refused --------------------------------------------------------------------------


def test_nothing_is_copied_where_nothing_is_turned() -> None:
    frames = frames_of([np.zeros((2, 3, 3), np.uint8)])
    assert turned(frames, 0) is frames


@pytest.mark.parametrize("rotate", TURNS)
def test_damaged_places_stay_what_they_are(rotate: int) -> None:
    frames: list[Frame] = [(0.0, unreadable), (0.1, lambda: None)]
    (_, first), (_, second) = turned(iter(frames), rotate)
    assert first is unreadable
    assert second() is None


@pytest.mark.parametrize("rotate", [45, 360, 1])
def test_another_angle_is_refused_with_the_cure(tmp_path: Path, rotate: int) -> None:
    with pytest.raises(ConfigError, match=rf"\[camera\] rotate is {rotate}; .* 0, 90, 180 or 270"):
        config_of(tmp_path, "0", rotate)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (-90, "is -90; expected a number of at least 0"),
        (90.0, "is 90.0; expected int"),
        ("90", "is '90'; expected int"),
    ],
)
def test_what_is_no_angle_is_refused_by_name(tmp_path: Path, value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[camera\] rotate {says}"):
        config_of(tmp_path, "0", value)


def test_the_check_says_that_pictures_are_turned(tmp_path: Path) -> None:
    camera = camera_of(tmp_path, "synthetic://walk", 90)
    camera.frames = 1
    assert camera.first_frame(0.0) == "synthetic://walk: pictures come, and are turned by 90 degrees"
