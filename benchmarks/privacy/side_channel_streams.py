"""Input of the side channel benchmark for the edge process: clips and live streams of random scenes, and load.

scenes chosen at random, slot by slot --> a video file, or a live stream --> the real edge process (`start`)
"""

from __future__ import annotations

import contextlib
import http.server
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.broker import Broker, child_env
from benchmarks.harness import Child, Rig
from benchmarks.privacy.hostile_gate import hostile_gate
from familial.synth.disk import save_video

__all__ = ["ARRIVALS", "SCENES", "Labels", "Pixels", "Stream", "frames_of", "load", "start", "write_clip"]

Labels = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

SCENES = ("empty", "dark", "switched", "crowd")
ARRIVALS = ("regular", "bursts", "stalled")
_SIZE = (240, 320)


def frames_of(scene: str, count: int, rng: np.random.Generator) -> Iterator[Pixels]:
    """`count` frames of a scene, uint8 (H, W, 3) each."""
    people = rng.integers(0, (_SIZE[1] - 40, _SIZE[0] - 80), (30, 2))
    for index in range(count):
        frame = np.full((*_SIZE, 3), 120, np.uint8)
        if scene == "dark" or (scene == "switched" and index % 2):
            frame[:] = 15
        if scene == "crowd":
            frame = rng.integers(0, 90, frame.shape, np.uint8)
            people += rng.integers(-8, 9, people.shape)
            for left, top in people.tolist():
                shade = rng.integers(0, 255, 3).tolist()
                cv2.rectangle(frame, (left, top), (left + 30, top + 70), shade, -1)
        yield frame


def write_clip(path: Path, scenes: Labels, slot_s: float, fps: float, rng: np.random.Generator) -> Path:
    """Write a video file with a scene for every slot. Raises DataError."""
    shots = (frames_of(SCENES[scene], round(slot_s * fps), rng) for scene in scenes)
    save_video(path, itertools.chain.from_iterable(shots), fps)
    return path


class Stream:
    """A live camera over HTTP (motion JPEG): scene and way of arrival are drawn anew every `block_s`.

    history: (when it began, wall clock; scene; arrival) of every block.
    """

    def __init__(self, block_s: float, fps: float = 12.5) -> None:
        self.history: list[tuple[float, int, int]] = []
        self._block_s, self._fps, self._stop = block_s, fps, threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with contextlib.suppress(OSError):
                    outer._play(self.wfile.write)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/camera.mjpg"

    def _play(self, write: Callable[[bytes], object]) -> None:
        rng = np.random.default_rng()
        count = round(self._block_s * self._fps)
        began = time.monotonic()
        for block in range(10**6):
            scene, arrival = int(rng.integers(len(SCENES))), int(rng.integers(len(ARRIVALS)))
            pictures = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames_of(SCENES[scene], count, rng)]
            due = np.arange(count) / self._fps
            if ARRIVALS[arrival] == "bursts":
                due = np.sort(np.floor(due / 0.3) * 0.3 + rng.uniform(0, 0.02, count)) + 0.2
            if ARRIVALS[arrival] == "stalled":
                due, pictures = due[:1], pictures[:1]
            self._wait(began + block * self._block_s)
            self.history.append((time.time(), scene, arrival))
            for at_s, picture in zip(due, pictures, strict=True):
                self._wait(began + block * self._block_s + float(at_s))
                if self._stop.is_set():
                    return
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                write(head.encode() + picture + b"\r\n")

    def _wait(self, until: float) -> None:
        self._stop.wait(max(0.0, until - time.monotonic()))

    def __enter__(self) -> Stream:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def labels(self, times: npt.NDArray[np.floating[Any]]) -> tuple[Labels, Labels]:
        """Scene and arrival at each of `times` (wall clock); -1 before the first block."""
        begins = np.array([at for at, _, _ in self.history])
        block = np.searchsorted(begins, times, side="right") - 1
        rows = np.array([row[1:] for row in self.history])
        return tuple(np.where(block >= 0, rows[np.maximum(block, 0), k], -1) for k in (0, 1))  # type: ignore[return-value]  # a pair


@contextlib.contextmanager
def load(processes: int = 0) -> Iterator[None]:
    """So many busy processes for the block; 0: twice as many as there are cores."""
    count = processes or 2 * (os.cpu_count() or 2)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def start(
    rig: Rig,
    source: str,
    camera: str,
    *,
    speed: float = 1.0,
    windows: int = 0,
    extra: str = "",
    eye: str = "",
    broker: Broker | None = None,
) -> Child:
    """The device on `source`.

    Args:
        extra: More of its TOML.
        broker: In place of the rig's.
        eye: A behaviour of `scene_eyes.py`, for a hostile eye in place of the device's own; "tells" also breaks the
            gate, which is then made to wait before it publishes a dark scene.
    """
    config = rig.edge_config(source, camera=camera, speed=speed, windows=windows, broker=broker)
    config.write_text(config.read_text() + extra)
    hostile = hostile_gate(eye=f"benchmarks.privacy.scene_eyes:{eye}", leaky=eye == "tells")
    command = hostile if eye else [sys.executable, "-m", "edge_runtime"]
    log = rig.folder / f"{camera}.log"
    return Child(camera, [*command, "--config", str(config)], log, child_env(OMP_NUM_THREADS="1"))
