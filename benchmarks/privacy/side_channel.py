"""`python -m benchmarks.side_channel`: can a listener tell the scene from anything but the noised content?

    scenes, tossed up slot by slot --> the real edge process --> broker --> listener --> classifiers --> which scene?

The listener has all that a network shows: which topics spoke in a slot, when, how long each message was, every field
but z and the signature (and there is nothing else in a message: it is canonical, or it does not open), and the slots of
which nothing was heard. Runs: an idle machine, a loaded
one, a budget that is spent on the way, a live stream whose frames come in time, in bursts or not at all. A logistic
regression and a forest of random trees learn from some slots and name the others; a channel is closed where the lower
end of the exact confidence interval of their share is not above that of the commonest scene.

Controls: the same classifiers on sizes and times that were tampered with, down to what they can still find, and on a
process that was made to wait before it publishes a dark scene.
What is a function of z (the verdict) is not held against chance: it is computed again from the published z.
"""

from __future__ import annotations

import argparse
import contextlib
import http.server
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.broker import EmbeddedBroker, Mosquitto, child_env, find_mosquitto
from benchmarks.harness import Child, Listener, Record, Rig, build_engine, end_on_signals, fail, report
from edge_runtime.eye.engine.onnx import OnnxEngine
from wire.errors import VeilsightError
from wire.privacy.certificate import bits
from wire.protocol.event import EventWindow
from wire.protocol.topics import parse_topic

__all__ = [
    "ARRIVALS",
    "SCENES",
    "Finding",
    "Floats",
    "Labels",
    "Pixels",
    "Seen",
    "Stream",
    "clopper_pearson",
    "forest",
    "frames_of",
    "load",
    "logistic",
    "main",
    "observe",
    "planted_delays",
    "recomputed",
    "start",
    "tampered",
    "tell",
    "worst",
    "write_clip",
]

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]

SCENES = ("empty", "dark", "switched", "crowd")
ARRIVALS = ("regular", "bursts", "stalled")
_LAGS = (0, 1, 2, 5)  # a file is decoded ahead: what is released now may feel a later scene's load
_FALSE_ALARM = 1e-4  # of each confidence interval, on its lower side
_SIZE = (240, 320)
_FOLDS, _TREES, _DEPTH = 5, 30, 4
_DELAYS_MS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_SLOT_S = 0.25  # a slot of the runs that play a file takes at least so long

# Put in the control's way by PYTHONPATH: the process waits before it publishes what it saw in the dark.
_LEAK = """
import time
from edge_runtime.eye import encoder
from edge_runtime.uplink import publisher
encode, send, dark = encoder.Encoder.encode, publisher.Publisher.send, [False]
def look(self, window, *rest):
    dark[0] = window.frames[0, -4:-1].mean() < 40
    return encode(self, window, *rest)
def wait(self, name, payload):
    time.sleep(0.08 * (dark[0] and name == "features"))
    send(self, name, payload)
encoder.Encoder.encode, publisher.Publisher.send = look, wait
"""
_RUN_FIRST = "sitecustomize.py"  # the name under which Python runs it before all else


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
    """A video file with a scene for every slot."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, _SIZE[::-1])
    if not writer.isOpened():
        raise VeilsightError(f"{path}: this OpenCV writes no video; install opencv-python-headless")
    for scene in scenes:
        for frame in frames_of(SCENES[scene], round(slot_s * fps), rng):
            writer.write(frame)
    writer.release()
    return path


class Stream:
    """A live camera over HTTP (motion JPEG): scene and way of arrival change every `block_s`, tossed up anew.

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
def load() -> Iterator[None]:
    """Twice as many busy processes as there are cores, for the block."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 2))]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def start(
    rig: Rig, source: str, camera: str, *, speed: float = 1.0, windows: int = 0, extra: str = "", leaky: bool = False
) -> Child:
    """The edge process on `source`; extra: more of its TOML; leaky: made to wait before it publishes a dark scene."""
    config = rig.edge_config(source, camera=camera, speed=speed, windows=windows)
    config.write_text(config.read_text() + extra)
    env = child_env(OMP_NUM_THREADS="1")
    if leaky:
        (rig.folder / "leaky").mkdir(exist_ok=True)
        (rig.folder / "leaky" / _RUN_FIRST).write_text(_LEAK)
        env["PYTHONPATH"] = f"{rig.folder / 'leaky'}{os.pathsep}{env['PYTHONPATH']}"
    return Child(
        camera, [sys.executable, "-m", "edge_runtime", "--config", str(config)], rig.folder / f"{camera}.log", env
    )


@dataclass(frozen=True)
class Seen:
    """What the listener has of slots 0 to the last: rows (slots, columns), NaN where a message did not come.

    begin: when slot 0 began, wall clock, as near as the messages tell. spent: the slots that said so.
    """

    columns: tuple[str, ...]
    rows: Floats
    begin: float
    spent: npt.NDArray[np.bool_]


def observe(records: Sequence[Record], rig: Rig, camera: str, slot_s: float, speed: float = 1.0) -> Seen:
    """The records of one camera as a table: per slot, and nothing that is a function of z or a signature."""
    ours = [r for r in records if (parsed := parse_topic(r.topic)) and parsed[1] == camera and r.payload]
    heard = rig.hear(ours, camera)
    size = {(r.at, r.topic.partition(camera + "/")[2]): r for r in ours}
    step = slot_s / speed
    last = max(message.slot for _, message in heard.features)
    releases = {m.slot: (at, m, size[at, "features"].payload) for at, m in heard.features}
    verdicts = {v.last_slot: (at, v, size[at, "verdict/edge"].payload) for at, v in heard.verdicts}
    base = float(np.median([at - m.slot * step for at, m in heard.features]))
    table: dict[str, Floats] = {}

    def put(name: str, slot: int, value: float) -> None:
        table.setdefault(name, np.full(last + 1, np.nan))[slot] = value

    for slot, (at, release, payload) in releases.items():
        put("features: late", slot, at - base - slot * step)
        put("features: interval", slot, at - releases.get(slot - 1, (math.nan,))[0])
        put("features: size", slot, len(payload))
        for name in ("boot_id", "model_id", "flags", "level"):
            put(f"features: {name}", slot, float(getattr(release, name)))
    for slot, (at, verdict, payload) in verdicts.items():
        put("verdict: after the features", slot, at - releases.get(slot, (math.nan,))[0])
        put("verdict: size", slot, len(payload))
        put("verdict: first_slot", slot, verdict.first_slot - max(0, slot + 1 - len(verdict.present)))
        put("verdict: present", slot, float(sum(here << k for k, here in enumerate(verdict.present))))
        put("verdict: start_s", slot, verdict.start_s - verdict.first_slot * slot_s)
        put("verdict: end_s", slot, verdict.end_s - (slot + 1) * slot_s)
        put("verdict: sentence", slot, len(verdict.sentence))
        for name in ("boot_id", "model_id"):
            put(f"verdict: {name}", slot, float(getattr(verdict, name)))
    for record in ours:
        slot = math.floor((record.at - base) / step + 0.5)
        if 0 <= slot <= last:
            name = f"topic {record.topic.partition(camera + '/')[2]}"
            table.setdefault(name, np.zeros(last + 1))[slot] += 1
    names = tuple(sorted(table))
    spent = np.array([slot in releases and releases[slot][1].flags != 0 for slot in range(last + 1)])
    begin = base - step  # a release comes a little after its slot's end: the rest is the delay, the same for all
    return Seen(names, np.stack([table[name] for name in names], axis=1), begin, spent)


def recomputed(records: Sequence[Record], rig: Rig, camera: str) -> tuple[int, int]:
    """(verdicts whose probabilities follow from the published z of their releases, all verdicts that were heard)."""
    heard, manifest = rig.hear(records, camera), rig.manifest
    engine, event = OnnxEngine(rig.engine), EventWindow(manifest.event_releases, manifest.tokens, manifest.width)
    said: dict[int, Mapping[str, float]] = {}
    for _, release in sorted(heard.features, key=lambda each: each[1].slot):
        if release.flags & 1:
            continue
        event.push(release.slot, release.z, manifest.weights[release.level])
        said[release.slot] = engine.decide(event)
    engine.close()
    mine = [verdict for _, verdict in heard.verdicts]
    same = [v for v in mine if _close(v.probabilities, said.get(v.last_slot, {}))]
    return len(same), len(mine)


def _close(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one.keys() == other.keys() and all(abs(one[label] - other[label]) < 1e-6 for label in one)


# --- classifiers: fitted on some slots, asked about the others


def _design(rows: Floats) -> Floats:
    """Columns that vary: value, rank, and whether it was missing; each scaled."""
    made = []
    for column in rows.T:
        gone = np.isnan(column)
        known = np.where(gone, np.nanmedian(column) if not gone.all() else 0.0, column)
        made += [known, np.argsort(np.argsort(known)).astype(float), gone.astype(float)]
    stacked = np.stack([c for c in made if np.ptp(c) > 0] or [np.zeros(len(rows))], axis=1)
    scaled = (stacked - stacked.mean(axis=0)) / (stacked.std(axis=0) + 1e-12)
    return np.asarray(np.clip(scaled, -6, 6))


def logistic(x: Floats, y: Labels, asked: Floats, kinds: int) -> Labels:
    """Multinomial logistic regression with squares, ridge, by gradient descent with momentum."""
    x, asked = (np.hstack([part, part**2 - 1, np.ones((len(part), 1))]) for part in (x, asked))
    weights, speed = np.zeros((x.shape[1], kinds)), np.zeros((x.shape[1], kinds))
    truth = np.eye(kinds)[y]
    rate = 1.0 / (0.25 * np.linalg.norm(x, 2) ** 2 / len(x) + 0.01)
    for _ in range(200):
        logits = x @ weights
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        gradient = x.T @ (p / p.sum(axis=1, keepdims=True) - truth) / len(x) + 0.01 * weights
        speed = 0.9 * speed - 0.5 * rate * gradient
        weights = weights + speed
    return np.asarray((asked @ weights).argmax(axis=1))


def forest(x: Floats, y: Labels, asked: Floats, kinds: int) -> Labels:
    """Extremely randomised trees (Geurts et al. 2006): the best of a few random cuts at every node."""
    rng = np.random.default_rng(0)
    votes = np.zeros((len(asked), kinds))
    for _ in range(_TREES):
        _grow(x, y, np.arange(len(x)), asked, np.arange(len(asked)), votes, kinds, _DEPTH, rng)
    return np.asarray(votes.argmax(axis=1))


def _grow(
    x: Floats, y: Labels, here: Labels, asked: Floats, there: Labels, votes: Floats, kinds: int, depth: int, rng: Any
) -> None:
    counts = np.bincount(y[here], minlength=kinds)
    if depth == 0 or counts.max() == len(here) or len(here) < 8 or len(there) == 0:
        votes[there] += counts / len(here)
        return
    best, gain = (0, 0.0), -1.0
    for column in rng.integers(0, x.shape[1], math.isqrt(x.shape[1]) + 2):
        low, high = x[here, column].min(), x[here, column].max()
        if low == high:
            continue
        cut = rng.uniform(low, high)
        left = x[here, column] <= cut
        sides = [np.bincount(y[here[side]], minlength=kinds) for side in (left, ~left)]
        purity = sum(float((side.astype(float) ** 2).sum()) / max(1, int(side.sum())) for side in sides)
        if purity > gain:
            best, gain = (int(column), float(cut)), purity
    if gain < 0:
        votes[there] += counts / len(here)
        return
    for side in (True, False):
        mine = here[(x[here, best[0]] <= best[1]) == side]
        its = there[(asked[there, best[0]] <= best[1]) == side]
        if len(mine):
            _grow(x, y, mine, asked, its, votes, kinds, depth - 1, rng)


_CLASSIFIERS: Mapping[str, Callable[[Floats, Labels, Floats, int], Labels]] = {"logistic": logistic, "forest": forest}


@dataclass(frozen=True, slots=True)
class Finding:
    """Share of slots whose scene a classifier named, `lag` slots on, with its exact interval; chance: always saying
    the commonest."""

    classifier: str
    lag: int
    count: int
    share: float
    low: float
    high: float
    chance: float

    @property
    def leaks(self) -> bool:
        """Whether it is above chance, beyond doubt."""
        return self.low > self.chance


def tell(
    seen: Seen, labels: Labels, keep: npt.NDArray[np.bool_] | None = None, lags: Sequence[int] = _LAGS
) -> list[Finding]:
    """What each classifier makes of a run; labels (slots,), -1 for unknown; keep: slots to use. Five folds of time."""
    found = []
    for lag in lags:
        usable = np.zeros(len(seen.rows), bool)
        there = min(len(seen.rows), len(labels) - lag)
        usable[:there] = labels[lag : lag + there] >= 0
        if keep is not None:
            usable &= keep
        at = np.flatnonzero(usable)
        x, y = _design(seen.rows[at]), labels[at + lag]
        fold = np.arange(len(at)) * _FOLDS // len(at)
        kinds = int(labels.max()) + 1
        for name, classifier in _CLASSIFIERS.items():
            said = np.empty_like(y)
            for k in range(_FOLDS):
                said[fold == k] = classifier(x[fold != k], y[fold != k], x[fold == k], kinds)
            right = int((said == y).sum())
            low, high = clopper_pearson(right, len(y))
            found.append(Finding(name, lag, len(y), right / len(y), low, high, float(np.bincount(y).max() / len(y))))
    return found


def worst(found: Sequence[Finding]) -> Finding:
    """The one that stands highest above its chance."""
    return max(found, key=lambda each: each.low - each.chance)


def tampered(seen: Seen, column: str, where: npt.NDArray[np.bool_], by: float) -> Seen:
    """The same run with something planted: `by` added to a column in some slots."""
    rows = seen.rows.copy()
    rows[where, seen.columns.index(column)] += by
    return Seen(seen.columns, rows, seen.begin, seen.spent)


def clopper_pearson(right: int, count: int, beyond: float = _FALSE_ALARM) -> tuple[float, float]:
    """The exact interval of a share: either end is passed with probability `beyond` at most."""
    return (
        0.0 if right == 0 else _root(lambda p: _tail(right, count, p) - beyond),
        1.0 if right == count else 1.0 - _root(lambda p: _tail(count - right, count, p) - beyond),
    )


def _tail(least: int, count: int, p: float) -> float:
    """P(at least `least` of `count`)."""
    if p <= 0.0:
        return float(least <= 0)
    k = np.arange(least, count + 1)
    log = np.array([math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1) for i in k.tolist()])
    return float(np.exp(log + k * math.log(p) + (count - k) * math.log1p(-p)).sum())


def _root(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return low


# --- the campaign


def _is_dark(labels: Labels) -> Labels:
    return np.where(labels == SCENES.index("dark"), 1, 0).astype(np.int64)


def planted_delays(seen: Seen, labels: Labels) -> dict[float, bool]:
    """Milliseconds by which the releases of a dark scene were made later, and whether that was found."""
    dark, where = _is_dark(labels), np.zeros(len(seen.rows), bool)
    where[: len(labels)] = dark[: len(seen.rows)] == 1
    delays = {}
    for ms in _DELAYS_MS:
        later = tampered(seen, "features: late", where, ms / 1000)
        delays[ms] = worst(tell(later, dark, lags=(0,))).leaks
    return delays


@dataclass
class _Campaign:
    """Where the runs live and what they found."""

    folder: Path
    rig: Rig
    listener: Listener
    slots: int

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng()
        self.slot_s = self.rig.manifest.window.slot_s
        self.speed = max(1.0, self.slot_s / _SLOT_S)
        self.labels = self.rng.permutation(np.arange(self.slots) % len(SCENES))
        self.clip = write_clip(
            self.folder / "clip.mp4", self.labels, self.slot_s, 10.0 if self.slot_s >= 1 else 25.0, self.rng
        )
        self.followed = [0, 0]

    def play(self, camera: str, **how: Any) -> Seen:
        """The clip through the edge process."""
        limit_s = 60 + 3 * self.slots * self.slot_s / self.speed
        with start(self.rig, str(self.clip), camera, speed=self.speed, **how) as edge:
            if edge.wait(limit_s) != 0:
                raise VeilsightError(edge.output()[-2000:])
        return self.look(camera, self.speed)

    def look(self, camera: str, speed: float) -> Seen:
        """What was heard of a camera; its verdicts are computed again on the way."""
        time.sleep(0.5)
        records = self.listener.records()
        for k, count in enumerate(recomputed(records, self.rig, camera)):
            self.followed[k] += count
        return observe(records, self.rig, camera, self.slot_s, speed)

    def spend(self) -> str:
        """A budget for an hour of which a third of the run's releases is all."""
        price = bits(float(self.rig.manifest.clip_norm / self.rig.manifest.sigma))
        return f'[privacy]\nbits_per_hour = {self.slots / 3 * price}\nover_budget = "cut"\n'

    def stream(self) -> tuple[Seen, Labels, Labels]:
        """A live stream for half as many slots: (seen, scenes, arrivals)."""
        with Stream(self.slot_s) as stream:
            with start(self.rig, stream.url, "stream", windows=self.slots // 2) as edge:
                if edge.wait(60 + 2 * self.slots * self.slot_s) != 0:
                    raise VeilsightError(edge.output()[-2000:])
            seen = self.look("stream", 1.0)
            scenes, arrivals = stream.labels(seen.begin + (np.arange(len(seen.rows)) + 0.5) * self.slot_s)
        return seen, scenes, arrivals


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaign; 0, 1 where a channel is open or a control was missed, 2 with the reason."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_channel", description="What a listener can tell.")
    parser.add_argument("--engine", type=Path, metavar="DIR", help="an engine folder (default: build or reuse nano's)")
    parser.add_argument("--slots", type=int, default=400, help="slots of each run; of the live one half")
    args = parser.parse_args(argv)
    end_on_signals()
    try:
        engine = args.engine or build_engine()
        with tempfile.TemporaryDirectory(prefix="veilsight-side-channel-") as name:
            folder = Path(name)
            with (Mosquitto if find_mosquitto() else EmbeddedBroker)(folder) as broker, Listener(broker) as listener:
                return _measure(_Campaign(folder, Rig(folder, broker, engine), listener, args.slots))
    except VeilsightError as error:
        return fail(error)


def _measure(campaign: _Campaign) -> int:
    labels = campaign.labels
    idle = campaign.play("idle")
    found = {"idle machine": tell(idle, labels)}
    with load():
        found["loaded machine"] = tell(campaign.play("loaded"), labels)
    spent = campaign.play("spent", extra=campaign.spend())
    found["budget spent on the way"] = tell(spent, labels)
    found["after it was spent"] = tell(spent, labels, spent.spent)
    stream, scenes, arrivals = campaign.stream()
    found["live stream: scene"] = tell(stream, scenes)
    found["live stream: arrival of frames"] = tell(stream, arrivals)
    crowd = np.zeros(len(idle.rows), bool)
    crowd[: len(labels)] = labels[: len(idle.rows)] == SCENES.index("crowd")
    controls = {
        "control: a byte more for a crowd": tell(tampered(idle, "features: size", crowd, 1.0), labels, lags=(0,)),
        "control: no release for a crowd": tell(tampered(idle, "features: late", crowd, math.nan), labels, lags=(0,)),
        "control: a process that waits in the dark": tell(campaign.play("leaky", leaky=True), _is_dark(labels)),
    }
    delays = planted_delays(idle, labels)
    least = min((ms for ms, seen in delays.items() if seen), default=None)
    rows = [["run", "slots", "best named", "interval", "chance", "verdict"]]
    figures: dict[str, Any] = {"runs": {}, "controls": {}, "least_delay_found_ms": least}
    for kind, table in (("runs", found), ("controls", controls)):
        for name, all_found in table.items():
            top = worst(all_found)
            said = ("found" if top.leaks else "MISSED") if kind == "controls" else "LEAKS" if top.leaks else "closed"
            shown = f"{top.share:.3f} ({top.classifier}, {top.lag} on)"
            rows.append([name, str(top.count), shown, f"{top.low:.3f} to {top.high:.3f}", f"{top.chance:.3f}", said])
            figures[kind][name] = {
                "n": top.count,
                "share": round(top.share, 4),
                "ci": [round(top.low, 4), round(top.high, 4)],
                "chance": round(top.chance, 4),
                "tests": len(all_found),
                "leaks": top.leaks,
            }
    same, all_verdicts = campaign.followed
    figures["verdicts_from_z"] = [same, all_verdicts]
    notes = [
        f"{same} of {all_verdicts} verdicts follow from the published z",
        f"the least delay of one scene's releases that the classifiers still find: {least} ms",
        f"intervals are exact, either end passed with probability {_FALSE_ALARM:g} at most; shown is the worst of all "
        "classifiers and lags",
    ]
    ratio = max(top.share / top.chance for each in found.values() for top in [worst(each)])
    report("side_channel", ratio=round(ratio, 4), of="chance", figures=figures, rows=rows, notes=notes)
    closed = not any(worst(each).leaks for each in found.values()) and same == all_verdicts
    return 0 if closed and all(worst(each).leaks for each in controls.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
