"""Addresses with passwords, cameras that refuse us, streams that run ahead or behind, and damaged files."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.capture import camera as camera_module
from edge_runtime.capture.address import backend_of, check_address, host_of, masked, tells_secrets
from edge_runtime.capture.camera import Camera
from edge_runtime.capture.clock import SlotClock, StreamClock
from edge_runtime.capture.opening import LoginRefused
from edge_runtime.capture.sources import check_source, open_frames
from edge_runtime.child_settings import ChildSettings
from edge_runtime.config import load_config
from tests.support.camera_servers import files_over_http, refusing_http, refusing_rtsp
from tests.support.engine_factory import make_edge_config
from tests.support.services import PATIENCE_S, ROOT, free_port, until
from wire.artifact.manifest import WindowSpec
from wire.errors import CameraError

cv2 = pytest.importorskip("cv2")
SPEC = WindowSpec(24, 24, slot_s=0.2, new_frames=8, context_frames=0, context_step_s=0, hold_s=0.5)


def config_of(folder: Path, source: str, **camera: Any) -> ChildSettings:
    """What the eye is told of a camera."""
    config = load_config(make_edge_config(folder, engine="/none", source=source, camera=camera))
    return ChildSettings.of(config, set(), camera=True)


def film(path: Path, frames: int, code: str = "MJPG") -> Path:
    """A clip of random pictures, 25 a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 25.0, (64, 48))
    assert writer.isOpened()
    rng = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    return path


# --- passwords -------------------------------------------------------------------------------------------------------

UNPARSED = [
    "rtsp://admin:1/SuperSecret@127.0.0.1:9/x",
    "rtsp://admin:1#SuperSecret@127.0.0.1:9/x",
    "rtsp://admin:1@SuperSecret@127.0.0.1:9/x",
    "rtsp://admin:SuperSecret@[fe80::1/x",
    "rtsp://admin:SuperSecret@127.0.0.1:port/x",
    "rtsp://admin:Super Secret@127.0.0.1/x",
    "rtsp://admin:SuperSecret@/x",
    "onvif://admin:SuperSecret@127.0.0.1/x",
    "rtsp//admin:SuperSecret@127.0.0.1/x",
    "rtsp:admin:SuperSecret@127.0.0.1/x",
    "http://admin:\u2100SuperSecret@@127.0.0.1/x",  # a character that urlsplit names, with all around it
    "csi://0@SuperSecret@x",
]


@pytest.mark.parametrize("source", UNPARSED)
def test_an_address_that_cannot_be_parsed_is_refused_and_never_shown(source: str) -> None:
    with pytest.raises(CameraError) as caught:
        check_source(source)
    for text in (str(caught.value), masked(source) if "://" in source else ""):
        assert "Secret" not in text and "admin" not in text and "\n" not in text
    assert caught.value.__cause__ is None  # nor is it in a traceback


def test_what_is_shown_of_an_address_has_no_path_and_no_query(tmp_path: Path) -> None:
    """XMEye cameras take user and password in the path."""
    assert masked("RTSP://me:Secret@cam:554/user=me&password=Secret?token=x") == "rtsp://cam:554"
    assert masked("udp://@:5000") == "udp://:5000"
    assert masked("https://[fe80::1]/Secret") == "https://[fe80::1]"
    for plain in ("clip.mp4", "/a/clip@home.mp4", "file:///a.mp4", "0", "csi://0", "synthetic://walk"):
        assert masked(plain) == plain
    assert "Secret" not in repr(config_of(tmp_path, "rtsp://me:Secret@cam/x"))


@pytest.mark.parametrize(
    ("source", "tells"),
    [
        ("rtsp://me:Secret@cam/1", True),
        ("http://cam/1?password=Secret", True),
        (UNPARSED[0], True),
        ("rtsp://cam/1", False),
        ("clip.mp4", False),
        ("udp://@:5000", False),
    ],
)
def test_a_command_line_may_not_hold_a_password(source: str, tells: bool) -> None:
    assert tells_secrets(source) == tells


@pytest.mark.parametrize("source", ["rtsp://me:p%40ss@10.0.0.7:554/x", "RTSP://10.0.0.7/x", "rtsps://10.0.0.7?x=1"])
def test_a_sound_address_names_its_host(source: str) -> None:
    check_address(source)
    assert (host_of(source), backend_of(source)) == ("10.0.0.7", "stream")


def test_a_password_with_every_sign_reaches_the_camera_as_it_is_meant(tmp_path: Path) -> None:
    with refusing_rtsp("401 Unauthorized") as (port, asked), pytest.raises(LoginRefused):
        open_frames(f"rtsp://me:p%40s%2Fs%23%3A@127.0.0.1:{port}/x", 20.0, 24, 24)
    assert "Authorization: Basic bWU6cEBzL3MjOg==" in asked  # me:p@s/s#:


# --- why a camera cannot be opened -----------------------------------------------------------------------------------


OPEN = """
import sys
from edge_runtime.capture.sources import open_frames
try:
    open_frames(sys.argv[1], 20.0, 24, 24)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("rtsp 401 Unauthorized", "refuses user and password"),
        ("rtsp 403 Forbidden", "refuses user and password"),
        ("rtsp 404 Not Found", "no such stream"),
        ("http 401 Unauthorized", "refuses user and password"),
        ("http 403 Forbidden", "refuses user and password"),
        ("http 404 Not Found", "no such stream"),
        ("port", "nobody listens"),
        ("index", "has no index"),
        ("text", "no video that FFmpeg reads"),
    ],
)
def test_reasons_are_told_apart(tmp_path: Path, fault: str, says: str) -> None:
    kind, _, status = fault.partition(" ")
    with ExitStack() as stack:
        if kind == "rtsp":
            source = f"rtsp://me:Secret@127.0.0.1:{stack.enter_context(refusing_rtsp(status))[0]}/Secret"
        elif kind == "http":
            source = f"http://me:Secret@127.0.0.1:{stack.enter_context(refusing_http(status))}/Secret"
        elif kind == "port":
            source = f"rtsp://me:Secret@127.0.0.1:{free_port()}/Secret"
        elif kind == "index":
            whole = film(tmp_path / "whole.mp4", 20, "mp4v").read_bytes()
            source = str(tmp_path / "half.mp4")
            Path(source).write_bytes(whole[: len(whole) // 2])
        else:
            source = str(tmp_path / "text.avi")
            Path(source).write_text("no film")
        command = [sys.executable, "-c", OPEN, source]  # FFmpeg takes its log's level when it is first used
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    name, _, message = run.stdout.partition(" ")
    assert says in message
    assert name == ("LoginRefused" if status[:3] in ("401", "403") else "CameraError")
    assert "Secret" not in run.stdout + run.stderr


def test_a_camera_that_refuses_our_password_is_asked_again_after_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([*(LoginRefused("no") for _ in range(4)), CameraError("gone")])
    clock, pauses = SlotClock(0.2, 0.05), list[float]()

    class Stop:
        def is_set(self) -> bool:
            return len(pauses) == 5

        def wait(self, seconds: float) -> None:
            pauses.append(seconds)
            camera._alive_at = -math.inf
            assert camera.lost == (len(pauses) == 5)  # a new process does not change the password

    def fails(*_: Any) -> None:
        raise next(answers)

    monkeypatch.setattr(camera_module, "open_frames", fails)
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    camera = Camera(config_of(tmp_path, "rtsp://cam/1", lost_after_s=0.1), SPEC, clock)
    clock.stop = Stop()  # type: ignore[assignment]  # counts the pauses
    camera._follow()
    assert pauses == [300.0, 600.0, 900.0, 900.0, 0.25]


def test_a_check_says_why_no_picture_comes(tmp_path: Path) -> None:
    clock = SlotClock(0.2, 0.05)
    source = f"rtsp://me:Secret@127.0.0.1:{free_port()}/x"
    with Camera(config_of(tmp_path, source), SPEC, clock) as camera, pytest.raises(CameraError, match="nobody listens"):
        camera.first_frame(60.0)


# --- the time of a stream's frames -----------------------------------------------------------------------------------


def test_a_frame_that_is_decoded_late_keeps_the_time_at_which_it_was_taken() -> None:
    """4K HEVC on one thread: 6.9 s of the scene took 38 s, and were shown as 38 s."""
    stream = StreamClock(paced=False)
    times = [stream.place(0.04 * k, 10 + 0.22 * k, 0.2 * k) for k in range(100)]
    assert times == pytest.approx([10 + 0.04 * k for k in range(100)], abs=0.05)
    assert stream.late and stream.give_up(0.2 * 99)  # 18 s behind: open it again, in the present


def test_a_stream_on_time_is_never_given_up() -> None:
    """Jitter, a stall that is made up for, and a clock that is slower than ours by 500 ppm."""
    stream, rng = StreamClock(paced=False), np.random.default_rng(0)
    for k in range(90_000):
        at_s = 0.04 * k
        stall_s = 4.0 - 2 * (at_s % 100.0) if at_s % 100.0 < 2.0 and k > 2500 else 0.0
        stream.place(at_s, at_s * 1.0005 + float(rng.uniform(0, 0.3)) + stall_s, 0.0)
        assert not stream.give_up(0.0)
    assert stream.late_s < 0.5


def test_a_stream_whose_own_clock_is_slow_is_not_believed() -> None:
    """The decoder is idle: that cannot be why frames come late."""
    stream = StreamClock(paced=False)
    for k in range(200):
        stream.place(0.04 * k, 0.1 * k, 0.001 * k)
        assert not stream.give_up(0.001 * k)
    assert stream.place(0.04 * 200, 20.0, 0.2) == 20.0 and not stream.late


def test_what_a_server_sends_ahead_waits_for_its_time() -> None:
    stream = StreamClock(paced=True)
    times = [stream.place(0.04 * k, 5 + 0.001 * k, 0.0) for k in range(500)]
    assert times == pytest.approx([5 + 0.04 * k for k in range(500)])


def test_a_server_that_waits_for_a_slow_decoder_is_not_opened_again() -> None:
    stream = StreamClock(paced=True)
    for k in range(200):
        taken_s = stream.place(0.04 * k, 0.2 * k, 0.2 * k)
        assert taken_s <= 0.2 * k and not stream.give_up(0.2 * k)
        assert 0.2 * k - taken_s < 8.0  # on time again after a gap


def test_without_time_stamps_a_frame_is_of_when_it_came() -> None:
    stream = StreamClock(paced=False)
    assert [stream.place(math.nan, now, 0.0) for now in (3.0, 9.0, 30.0)] == [3.0, 9.0, 30.0]
    assert not stream.late


@pytest.mark.parametrize("name", ["clip.ts", "clip.avi"])
def test_a_film_over_http_runs_at_its_own_pace(tmp_path: Path, name: str) -> None:
    """It was read as fast as it came: 17 times too fast."""
    film(tmp_path / name, 250, "mp4v" if name.endswith("ts") else "MJPG")
    clock = SlotClock(0.2, 0.05)
    clock.start()
    with ExitStack() as stack:
        source = f"http://127.0.0.1:{stack.enter_context(files_over_http(tmp_path))}/{name}"
        camera = stack.enter_context(Camera(config_of(tmp_path, source), SPEC, clock))
        until(lambda: camera.frames > 20, 60)
        frames, now_s = camera.frames, clock.now()
        newest_s = camera._buffer.newest_s
    assert frames <= 25 * now_s + 3
    assert newest_s <= clock.now()


def test_mjpeg_over_http_comes_without_time_stamps(tmp_path: Path) -> None:
    jpeg = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    part = b"--x\r\nContent-type: image/jpeg\r\n\r\n" + jpeg + b"\r\n"
    (tmp_path / "clip.mjpg").write_bytes(50 * part)
    with files_over_http(tmp_path) as port:
        frames = open_frames(f"http://127.0.0.1:{port}/clip.mjpg", 20.0, 24, 24)
        assert math.isnan(next(frames)[0])
        frames.close()  # type: ignore[attr-defined]  # a generator


def test_slow_decoding_shows_no_slow_motion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten frames, 40 ms apart, that take 150 ms each: in the buffer they stay 40 ms apart."""

    def slow(*_: Any) -> Iterator[Any]:
        rng = np.random.default_rng(0)
        for k in range(10):
            time.sleep(0.15)
            yield 0.04 * k, lambda: rng.integers(0, 256, (48, 64, 3), np.uint8)
        clock.stop.set()

    clock = SlotClock(0.2, 0.05)
    monkeypatch.setattr(camera_module, "open_frames", slow)
    camera = Camera(config_of(tmp_path, "rtsp://cam/1"), SPEC, clock)
    clock.start()
    camera._follow()
    times = np.sort(camera._buffer._times[np.isfinite(camera._buffer._times)])
    assert len(times) == 10 and np.allclose(np.diff(times), 0.04, atol=0.01)


# --- damaged files ---------------------------------------------------------------------------------------------------


def test_what_can_be_decoded_after_a_damage_is_played(tmp_path: Path) -> None:
    """A corrupt AVI gave 60 of 233 frames, then its end."""
    clip = film(tmp_path / "clip.avi", 400)
    data = bytearray(clip.read_bytes())
    begin, end = len(data) // 4, len(data) // 2
    data[begin:end] = np.random.default_rng(0).bytes(end - begin)
    clip.write_bytes(data)
    clock = SlotClock(0.2, 0.05, 100.0)  # not started: it is always 0 s, and no frame is too late to be decoded
    camera = Camera(config_of(tmp_path, str(clip)), replace(SPEC, hold_s=0.1), clock)
    with camera:
        until(lambda: camera._end_s < math.inf, 60)
    assert 200 <= camera.frames < 350
    assert camera.damaged


def test_a_film_that_ends_long_before_its_header_says_is_damaged(tmp_path: Path) -> None:
    clip = film(tmp_path / "clip.avi", 200)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 3])
    whole = film(tmp_path / "whole.avi", 30)
    for file, damaged in ((clip, True), (whole, False)):
        camera = Camera(config_of(tmp_path, str(file)), SPEC, clock := SlotClock(0.2, 0.05, 100.0))
        clock.start()
        with camera:
            until(partial(_ended, camera), 60)
        assert camera.damaged == damaged


def _ended(camera: Camera) -> bool:
    return camera._end_s < math.inf
