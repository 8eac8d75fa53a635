"""The eye of a family that sees people: the codes of whole films, pictures for the network, and what the eye says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.capture import camera as camera_module
from edge_runtime.capture.camera import Camera
from edge_runtime.capture.clock import SlotClock
from edge_runtime.capture.pictures import fit, shrink
from edge_runtime.capture.sources import open_frames
from edge_runtime.child_settings import ChildSettings
from edge_runtime.config import load_config
from edge_runtime.eye.engine.onnx import OnnxEngine
from edge_runtime.eye.process import Eye
from edge_runtime.eye.window import Window
from edge_runtime.record import CAMERA_FAILED, ENGINE_STOPPED, TOO_SLOW, read_said
from familial.data.people import fitted
from tests.support.engine_factory import make_edge_config, make_engine
from tests.support.patient_clock import PatientClock
from tests.support.services import PATIENCE_S, until
from wire.errors import CameraError, EngineError
from wire.people.decode import decode, place
from wire.people.packed import pack
from wire.people.tracks import form_tracks

cv2 = pytest.importorskip("cv2")
FRAME = (96, 128)
SLOT_S = 0.4
Code = npt.NDArray[np.int16]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> OnnxEngine:
    folder = tmp_path_factory.mktemp("seeing")
    make_engine(folder, slot_s=SLOT_S, person_frame=FRAME)
    return OnnxEngine(folder)


def settings_of(folder: Path, source: str, **camera: Any) -> ChildSettings:
    config = load_config(make_edge_config(folder, engine="/none", source=source, camera=camera))
    return ChildSettings.of(config, set(), camera=True)


def film(path: Path, rate: float, size: tuple[int, int], seconds: float = 2.4) -> Path:
    """A bright square that crosses the dark picture (width, height)."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, size)
    assert writer.isOpened()
    for k in range(round(seconds * rate)):
        picture = np.full((size[1], size[0], 3), 20, np.uint8)
        left = int(k / rate / seconds * (size[0] - 12))
        picture[size[1] // 3 : size[1] // 3 + 12, left : left + 12] = (250, 240, 255)
        writer.write(picture)
    writer.release()
    return path


def played(folder: Path, engine: OnnxEngine, source: Path) -> list[Code]:
    """The codes of the eye, slot by slot, to the film's end."""
    manifest = engine.manifest
    clock = PatientClock(manifest.window.slot_s)
    camera = Camera(settings_of(folder, str(source)), manifest.window, clock, manifest.person_frame)
    sightings = camera.sightings
    assert sightings is not None

    def caught_up(until: float) -> bool:
        """Whether capture has come so far, and everybody was looked for in it: no picture is lost for want of speed."""
        has_come = camera._buffer.newest_s >= until or camera._end_s < math.inf
        return has_come and not sightings._waits.any() and sightings._running < 0

    clock.ready = caught_up
    eye, codes = Eye(camera, engine, clock), list[Code]()
    assert eye._perception is not None
    with camera, eye._perception:
        clock.start()
        for slot in itertools.islice(clock.slots(), 100):
            eye._answer(slot)
            codes.append(eye._code.copy())
            if camera.last(slot):
                break
    assert camera._colour is not None and not camera._colour.any()
    return codes


def expected(engine: OnnxEngine, source: Path, slots: int) -> tuple[list[Code], list[Code]]:
    """The codes of the same film, each frame seen and each window picked offline; and those with nobody in it."""
    window, times, small, people = engine.manifest.window, list[float](), list[Any](), list[Any]()
    frame = np.zeros((1, *FRAME, 3), np.uint8)
    for at_s, fetch in open_frames(str(source), 1.0, 0, 0):
        picture = fetch()
        assert picture is not None
        height, width = picture.shape[:2]
        fit(picture, frame[0])
        times.append(at_s)
        small.append(shrink(picture, window.height, window.width))
        people.append(pack(decode(engine.perceive(frame)).within(place(height, width, FRAME)), height, width))
    made, alone = [], []
    for slot in range(slots):
        index = window.pick(np.array(times), (slot + 1) * window.slot_s)
        there = (index >= 0)[:, None, None]
        frames = np.where(there, np.stack(small)[index], 0)[None]
        tracks = form_tracks(np.where(there, np.stack(people)[index], 0)[None]).astype(np.int32)
        made.append(engine.encode(frames, tracks))
        alone.append(engine.encode(frames, np.zeros_like(tracks)))
    return made, alone


@pytest.mark.parametrize(("rate", "size"), [(25.0, (64, 48)), (5.0, (64, 48)), (30.0, (320, 240)), (12.5, (54, 96))])
def test_a_film_has_the_codes_of_its_frames_and_people(
    tmp_path: Path, engine: OnnxEngine, rate: float, size: tuple[int, int]
) -> None:
    """Decoded ahead, slower than the network runs, larger than its frame, and upright."""
    clip = film(tmp_path / "clip.avi", rate, size)
    codes = played(tmp_path, engine, clip)
    made, alone = expected(engine, clip, len(codes))
    assert len(codes) == engine.manifest.window.releases_of(round(2.4 * rate) / rate)
    assert [code.tolist() for code in codes] == [code.tolist() for code in made]
    assert sum(bool((a != b).any()) for a, b in zip(made, alone, strict=True)) >= 6, "the people change nothing"


# --- pictures for the network -----------------------------------------------------------------------------------------


def test_a_picture_keeps_its_proportions_and_its_colours() -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    picture[:] = (10, 20, 200)  # BGR
    frame = np.full((*FRAME, 3), 77, np.uint8)
    fit(picture, frame)
    assert (frame == (200, 20, 10)).all()
    fit(np.rot90(picture), frame)  # upright: 96 x 72 of it
    assert (frame[:, :72] == (200, 20, 10)).all() and not frame[:, 72:].any()
    fit(picture[:240], frame)  # wide: 48 rows of it
    assert (frame[:48] == (200, 20, 10)).all() and not frame[48:].any()


def test_a_picture_is_averaged_by_area_or_enlarged_and_grey_has_three_equal_colours() -> None:
    rng, frame = np.random.default_rng(0), np.zeros((*FRAME, 3), np.uint8)
    large, small = rng.integers(0, 256, (192, 256), np.uint8), rng.integers(0, 256, (48, 64, 3), np.uint8)
    fit(large, frame)
    assert np.array_equal(frame[..., 0], cv2.resize(large, (128, 96), interpolation=cv2.INTER_AREA))
    assert np.array_equal(frame[..., 0], frame[..., 1]) and np.array_equal(frame[..., 0], frame[..., 2])
    fit(small, frame)
    assert np.array_equal(frame, cv2.resize(small, (128, 96), interpolation=cv2.INTER_LINEAR)[..., ::-1])


@pytest.mark.parametrize("shape", [(480, 640, 3), (640, 480, 3), (96, 128), (60, 100, 3), (1080, 1920, 3), (97, 131)])
def test_the_device_makes_the_frame_that_training_makes(shape: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    frame = np.full((*FRAME, 3), 77, np.uint8)
    fit(picture, frame)
    assert np.array_equal(frame, fitted(picture, FRAME))


def test_a_scene_is_drawn_large_enough(tmp_path: Path, engine: OnnxEngine) -> None:
    window = engine.manifest.window
    camera = Camera(settings_of(tmp_path, "synthetic://walk"), window, SlotClock(SLOT_S, 0.1), (192, 256))
    assert camera.sightings is not None
    picture = next(camera._frames())[1]()
    assert picture is not None and picture.shape == (192, 256)


def test_a_film_too_small_for_the_network_is_named_at_once(tmp_path: Path, engine: OnnxEngine) -> None:
    clip = film(tmp_path / "clip.avi", 25.0, (48, 32))
    with pytest.raises(CameraError, match="picture is 48x32, too small for the person network; .*a larger mode"):
        Camera(settings_of(tmp_path, str(clip)), engine.manifest.window, SlotClock(SLOT_S, 0.1), FRAME)


def stills(shape: tuple[int, ...], count: int = 10_000) -> Iterator[Any]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield math.nan, lambda: rng.integers(0, 256, shape, np.uint8)


def test_a_live_camera_with_too_small_pictures_says_so(
    tmp_path: Path, engine: OnnxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a check in words, to the page by its word; and it sees as soon as its pictures are larger."""
    shapes = [(32, 48, 3)]
    monkeypatch.setattr(camera_module, "open_frames", lambda *_: stills(shapes[-1], 5))
    monkeypatch.setattr(camera_module, "_FIRST_PAUSE_S", 0.01)
    clock = SlotClock(SLOT_S, 0.1)
    clock.start()
    camera = Camera(settings_of(tmp_path, "rtsp://me:secret@cam/1"), engine.manifest.window, clock, FRAME)
    eye = Eye(camera, engine, clock)
    assert eye._perception is not None
    with camera, eye._perception:
        with pytest.raises(CameraError, match="^rtsp://cam: the camera's picture is 48x32, too small"):
            camera.first_frame(PATIENCE_S)
        assert read_said(eye._answer(0)).word == CAMERA_FAILED and camera.frames == 0
        shapes.append((96, 128, 3))
        until(lambda: camera.frames > 0, PATIENCE_S)
        assert not camera.too_small


# --- late and failed --------------------------------------------------------------------------------------------------


@pytest.fixture
def seeing(tmp_path: Path, engine: OnnxEngine) -> Iterator[Eye]:
    """An eye before whose open camera somebody walks; its clock stands at the end of slot 0."""
    clock = PatientClock(SLOT_S)
    settings = settings_of(tmp_path, "synthetic://walk")
    camera = Camera(settings, engine.manifest.window, clock, FRAME)
    clock.ready = lambda until: camera._buffer.newest_s >= until
    eye = Eye(camera, engine, clock)
    assert eye._perception is not None
    with camera, eye._perception:
        clock.start()
        clock.wait(SLOT_S)
        yield eye


def test_an_eye_whose_network_is_late_says_that_it_is_too_slow(seeing: Eye, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_said(seeing._answer(0)).word == 0 and seeing._code.any()
    seeing._record.fill(0)
    assert seeing._perception is not None
    monkeypatch.setattr(seeing._perception, "complete", lambda window, timeout_s: False)
    assert read_said(seeing._answer(0)).word == TOO_SLOW and not seeing._code.any()


def test_an_eye_waits_for_its_network_until_the_deadline(seeing: Eye, monkeypatch: pytest.MonkeyPatch) -> None:
    waited = list[float]()

    def complete(window: Window, timeout_s: float) -> bool:
        waited.append(timeout_s)
        return True

    assert seeing._perception is not None
    monkeypatch.setattr(seeing._clock, "left", lambda until: until)
    monkeypatch.setattr(seeing._perception, "complete", complete)
    seeing._answer(0)
    assert waited == [seeing._clock.deadline(0)]


def test_an_eye_whose_network_fails_says_that_the_engine_failed(
    seeing: Eye, engine: OnnxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_said(seeing._answer(0)).word == 0
    seeing._record.fill(0)

    def fails(frame: object) -> None:
        raise EngineError("perceive: the run failed")

    monkeypatch.setattr(engine, "perceive", fails)
    seeing._clock.wait(5 * SLOT_S)
    assert read_said(seeing._answer(4)).word == ENGINE_STOPPED and not seeing._code.any()
