"""Sources by URI, small frames, and cameras that fail."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.capture import camera as camera_module
from edge_runtime.capture import opening, stillness
from edge_runtime.capture import sources as source_module
from edge_runtime.capture.address import backend_of, masked
from edge_runtime.capture.camera import Camera
from edge_runtime.capture.clock import SlotClock
from edge_runtime.capture.pictures import shrink
from edge_runtime.capture.sources import open_frames
from edge_runtime.child_settings import ChildSettings
from edge_runtime.config import load_config
from tests.support.engine_factory import make_edge_config
from tests.support.patient_clock import PatientClock
from tests.support.services import ROOT
from wire.artifact.manifest import WindowSpec
from wire.errors import CameraError

cv2 = pytest.importorskip("cv2")
SPEC = WindowSpec(24, 24, slot_s=0.2, new_frames=8, context_frames=0, context_step_s=0, hold_s=0.5)


def config_of(folder: Path, source: str, **camera: Any) -> ChildSettings:
    """What the eye is told of a camera."""
    config = load_config(make_edge_config(folder, engine="/none", source=source, camera=camera))
    return ChildSettings.of(config, set(), camera=True)


def film(path: Path, frames: int = 50, rate: float = 25.0, brightness: int = 8) -> Path:
    """A clip whose frame k has brightness 40 + k * brightness / 4."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (64, 48))
    assert writer.isOpened()
    for k in range(frames):
        writer.write(np.full((48, 64, 3), 40 + k * brightness // 4, np.uint8))
    writer.release()
    return path


def played(config: ChildSettings, slots: int = 1000) -> list[np.ndarray[Any, Any]]:
    """Copies of the windows of a source, to its end."""
    clock = PatientClock(SPEC.slot_s)
    camera = Camera(config, SPEC, clock)
    clock.ready = lambda until: camera._buffer.newest_s >= until or camera._end_s < math.inf
    made = []
    with camera:
        clock.start()
        for slot in itertools.islice(clock.slots(), slots):
            made.append(camera.window(slot).frames.copy())
            if camera.last(slot):
                break
    return made


class FakeCamera:
    """A live camera: `frames` frames at 100 a second, then it is gone. It keeps the pictures that it gave."""

    def __init__(self, frames: int, moving: bool = True) -> None:
        self.frames, self.moving, self.noise, self.offered = frames, moving, np.random.default_rng(), 0
        self.given: list[np.ndarray[Any, Any]] = []

    def picture(self) -> np.ndarray[Any, Any]:
        self.given.append(np.full((48, 64, 3), 200, np.uint8))
        if self.moving:  # a sensor has noise
            self.given[-1][:] += self.noise.integers(0, 20, (48, 64, 1), np.uint8)
        return self.given[-1]

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.frames):
            time.sleep(0.01)
            self.offered += 1
            yield math.nan, self.picture


@pytest.mark.parametrize(
    ("source", "backend"),
    [
        ("0", "v4l2"),
        ("/dev/video2", "v4l2"),
        ("rtsp://cam/1", "stream"),
        ("http://cam/1", "stream"),
        ("udp://@:5000", "stream"),
        ("csi://0", "gstreamer"),
        ("synthetic://walk", "synthetic"),
        ("file:///a.mp4", "file"),
        ("a.mp4", "file"),
    ],
)
def test_the_uri_chooses_the_backend(source: str, backend: str) -> None:
    assert backend_of(source) == backend


def test_passwords_are_masked() -> None:
    assert masked("rtsp://me:secret@cam:554/user=me&password=secret?token=x") == "rtsp://cam:554"
    assert masked("udp://@:5000") == "udp://:5000"
    assert masked("clip.mp4") == "clip.mp4"


@pytest.mark.parametrize("scene", ["walk", "empty", "noise"])
def test_synthetic_scenes_play(tmp_path: Path, scene: str) -> None:
    windows = played(config_of(tmp_path, f"synthetic://{scene}"), slots=6)
    assert all(window[0].any(axis=(1, 2)).all() for window in windows[1:])
    moved = bool((windows[2] != windows[5]).any())
    assert moved == (scene != "empty")


def test_an_unknown_scene_is_named(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match=r"synthetic://run: no such scene; there are walk"):
        Camera(config_of(tmp_path, "synthetic://run"), SPEC, SlotClock(0.2, 0.05))


def test_synthetic_sources_need_no_opencv() -> None:
    code = (
        "import sys; from edge_runtime.capture.sources import open_frames; "
        "next(open_frames('synthetic://walk', 1, 8, 8))[1](); assert 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_picture_is_shrunk_as_in_training() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    expected = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), (24, 20), interpolation=cv2.INTER_AREA)
    assert np.array_equal(shrink(picture, 20, 24), expected)
    grey = np.ascontiguousarray(picture[..., 0])
    assert shrink(grey, 20, 24).shape == (20, 24)


def test_a_file_plays_on_its_own_time_and_ends(tmp_path: Path) -> None:
    clip = film(tmp_path / "clip.avi")  # 2 s
    windows = played(config_of(tmp_path, str(clip)))
    assert len(windows) == SPEC.releases_of(2.0) > 10
    for slot, window in enumerate(windows[:10]):
        newest = float(window[0, -1].mean())
        frame = (slot + 1) * 5  # the frame at the slot's end, or the last
        assert abs(newest - (40 + min(frame, 49) * 2)) < 4


@pytest.mark.parametrize("frames", [50, 52, 2, 1])
def test_a_file_ends_when_no_window_can_hold_its_last_picture(tmp_path: Path, frames: int) -> None:
    windows = played(config_of(tmp_path, str(film(tmp_path / "clip.avi", frames))))
    assert len(windows) == SPEC.releases_of(frames / 25)
    assert all(window.any() for window in windows)


def test_a_file_can_be_played_in_a_loop(tmp_path: Path) -> None:
    clip = film(tmp_path / "clip.avi", 25)
    windows = played(config_of(tmp_path, str(clip), loop=True), slots=12)
    assert len(windows) == 12
    assert all(window[0, -1].any() for window in windows)


def test_unusable_timestamps_fall_back_to_the_frame_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = film(tmp_path / "clip.avi", 10)

    class Odd:
        """A capture whose timestamps repeat, jump and go backwards."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner
            self.times = iter([0.0, 0.0, 9e9, 40.0, 80.0, 120.0, -40.0, 0.0, 40.0, 80.0])

        def get(self, prop: int) -> float:
            return next(self.times) if prop == cv2.CAP_PROP_POS_MSEC else float(self.inner.get(prop))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    real = opening.open_capture
    monkeypatch.setattr(source_module, "open_capture", lambda *given: Odd(real(*given)))
    times = [at for at, _ in open_frames(str(clip), 1.0, 24, 24)]
    assert times == pytest.approx([k * 0.04 for k in range(10)])


@pytest.mark.parametrize("content", [b"", b"this is no video at all" * 100])
def test_a_corrupt_clip_is_named_before_anything_else(tmp_path: Path, content: bytes) -> None:
    clip = tmp_path / "broken.mp4"
    clip.write_bytes(content)
    with pytest.raises(CameraError, match=r"broken\.mp4"):
        Camera(config_of(tmp_path, str(clip)), SPEC, SlotClock(0.2, 0.05))


def test_a_clip_with_no_frame_is_named(tmp_path: Path) -> None:
    clip = film(tmp_path / "cut.avi")
    clip.write_bytes(clip.read_bytes()[:400])
    with pytest.raises(CameraError, match=r"cut\.avi"):
        Camera(config_of(tmp_path, str(clip)), SPEC, SlotClock(0.2, 0.05))


def test_a_missing_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match=r"none\.mp4: no such file; .*takes a path"):
        Camera(config_of(tmp_path, str(tmp_path / "none.mp4")), SPEC, SlotClock(0.2, 0.05))


def test_csi_without_gstreamer_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GStreamer:                   NO\n")
    with pytest.raises(CameraError, match="GStreamer: JetPack's"):
        Camera(config_of(tmp_path, "csi://0"), SPEC, SlotClock(0.2, 0.05))


def test_a_live_camera_accepts_no_other_speed_than_1(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="speed"):
        Camera(config_of(tmp_path, "rtsp://cam/1"), SPEC, SlotClock(0.2, 0.05, speed=2.0))


def test_a_live_camera_that_vanishes_leaves_black_windows_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras = [FakeCamera(30), FakeCamera(10_000)]
    monkeypatch.setattr(camera_module, "open_frames", lambda *_: iter(cameras.pop(0)))
    monkeypatch.setattr(random, "uniform", lambda a, b: 2.4)
    clock = SlotClock(0.2, 0.05)
    clock.start()
    spec = replace(SPEC, hold_s=0.2)
    with Camera(config_of(tmp_path, "rtsp://me:secret@cam/1"), spec, clock) as camera:
        bright = [bool(camera.window(slot).frames[0, -1].any()) for slot in itertools.islice(clock.slots(), 12)]
    assert bright[0]
    assert not all(bright)
    assert bright[-1]
    assert not cameras  # it was opened again
    assert camera.name == "rtsp://cam"


def test_a_frozen_camera_counts_as_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its one picture is in windows for as long as it counts as still, and never again; then the eye gives up."""
    monkeypatch.setattr(stillness, "STILL_S", 0.5)
    fake = FakeCamera(10_000, moving=False)
    monkeypatch.setattr(camera_module, "open_frames", lambda *_: iter(fake))
    clock = SlotClock(0.2, 0.05)
    clock.start()
    seen = []
    with Camera(config_of(tmp_path, "0", lost_after_s=2.0), SPEC, clock) as camera:
        for slot in clock.slots():
            if camera.lost:
                break
            seen.append(bool(camera.window(slot).frames.any()))
    longest = (0.5 + SPEC.receptive_field_s) / SPEC.slot_s
    assert True in seen and not any(seen[seen.index(True) + int(longest) + 1 :])
    assert not any(picture.any() for picture in fake.given)  # what is not kept is overwritten too


def test_big_pictures_are_overwritten_and_dense_ones_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCamera(10_000)
    monkeypatch.setattr(camera_module, "open_frames", lambda *_: iter(fake))
    clock = SlotClock(0.2, 0.05)
    clock.start()
    with Camera(config_of(tmp_path, "0"), SPEC, clock) as camera:
        camera.window(next(clock.slots()))
    assert fake.given
    assert not any(picture.any() for picture in fake.given)
    assert len(fake.given) < fake.offered  # 100 frames a second come in, 40 are kept


def test_a_camera_that_cannot_be_opened_is_tried_again_and_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def fails(*given: Any) -> None:
        tries.append(given)
        raise CameraError("rtsp://cam/1: cannot be opened; is it reachable, and free?")

    monkeypatch.setattr(camera_module, "open_frames", fails)
    monkeypatch.setattr(random, "uniform", lambda a, b: 0.01)
    clock = SlotClock(0.2, 0.05)
    clock.start()
    seen = 0
    with Camera(config_of(tmp_path, "rtsp://cam/1", lost_after_s=0.7), SPEC, clock) as camera:
        for slot in clock.slots():
            if camera.lost:
                break
            seen += 1
            assert not camera.window(slot).frames.any()
    assert seen >= 2
    assert len(tries) >= 3
    assert camera.frames == 0
    assert camera.silent_s > 0.7
