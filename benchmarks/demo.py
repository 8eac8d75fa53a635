"""The demo: build the engine, run broker, edge and bridge on a clip, say what was seen and what left.

    python -m benchmarks.demo [--source FILE_OR_URL_OR_INDEX] [--json OUT] [--seconds N]

Without a source it plays a clip that it renders itself: a person walks in, falls and lies. It needs no server and ends
by itself: 0 after a clean run, 1 when something went wrong on the way, 2 for a source that cannot be used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.broker import ROOT, EmbeddedBroker, Mosquitto
from benchmarks.harness import CHECKPOINT, Child, Heard, Listener, Rig, build_engine, end_on_signals, fail, percentiles
from edge_runtime.capture.sources import backend_of, masked, open_frames
from wire.errors import CameraError, ConfigError, VeilsightError
from wire.privacy.certificate import round_up
from wire.protocol.message import Alert, Verdict

__all__ = ["CLIP", "Played", "check_source", "clip_label", "main", "rendered_clip", "run", "show", "summarise"]

CLIP = ROOT / "build" / "demo" / "clip.mp4"
_LIVE_S = 60.0
_OPEN_S = 10.0
_READY_S = 120.0  # a first import of torch from a cold disk takes long
_SLACK_S = 60.0


@dataclass(frozen=True, slots=True)
class Played:
    """What to play and how. seconds: of the source, 0 for all of it. limit_s: how long that takes at the most."""

    source: str
    speed: float
    seconds: float
    limit_s: float
    fall_onset_s: float | None = None


def rendered_clip(path: Path = CLIP) -> tuple[Path, float]:
    """The renderer's demo clip as a video file, and the second at which its person begins to fall.

    Made once and kept until the renderer changes; the same file for the same renderer.
    """
    import cv2  # here, so that a broker or a listener alone does not load it

    from familial.synth import clip as render
    from familial.synth.version import RENDERER_VERSION

    stamp = path.with_suffix(".json")
    if path.is_file() and stamp.is_file():
        known = json.loads(stamp.read_text())
        if known.get("renderer") == RENDERER_VERSION:
            return path, float(known["fall_onset_s"])
    print("rendering the demo's clip", flush=True)
    clip = render.demo_clip()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"part-{os.getpid()}{path.suffix}")
    height, width = clip.frames.shape[1:3]
    fps = (len(clip.times_s) - 1) / float(clip.times_s[-1] - clip.times_s[0])
    fourcc = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(part), fourcc, round(fps, 6), (width, height))
    if not writer.isOpened():
        raise ConfigError(f"{part}: this OpenCV writes no video; install opencv-python-headless, or give --source")
    for frame in clip.frames:
        writer.write(frame)
    writer.release()
    onset = next(h.start_s for h in clip.annotations if h.label == "fall")
    part.replace(path)
    stamp.write_text(json.dumps({"renderer": RENDERER_VERSION, "fall_onset_s": onset}) + "\n")
    return path, onset


def check_source(source: str) -> float:
    """Open `source` and read one frame; its length in seconds, 0 where it has none to tell. Raises CameraError."""
    frames = open_frames(source, _OPEN_S, 96, 96)  # kept: the source is closed with it
    first = next(frames, None)
    if first is None or first[1]() is None:
        raise CameraError(f"{masked(source)}: no frame can be read; it is empty or damaged")
    if backend_of(source) != "file":
        return 0.0
    import cv2

    capture = cv2.VideoCapture(source)
    fps, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    return float(count / fps) if fps > 0 and count > 0 else 0.0


def clip_label(verdicts: Sequence[Verdict], labels: Sequence[str], decision_threshold: float) -> str:
    """The one label of a clip: `familial.evaluate.clip_inference.clip_verdict` on the events as they were published.

    verdicts: one member's, in slot order. Whole events count alone; in a clip shorter than an event, the last one.
    """
    from familial.evaluate.clip_inference import clip_verdict  # it loads torch, which nothing else here does

    whole = [v for v in verdicts if v.last_slot - v.first_slot + 1 >= len(v.present)] or list(verdicts[-1:])
    if not whole:
        return labels[0]
    rows = np.array([[v.probabilities[label] for label in labels] for v in whole])
    return labels[clip_verdict(rows, decision_threshold)[0]]


def run(rig: Rig, listener: Listener, played: Played, say: Callable[[str], None]) -> tuple[Heard, list[str]]:
    """Play through a running broker, telling `say` each verdict and alert as it comes; all of them, and what failed."""
    errors: list[str] = []
    with rig.bridge(exit_when_offline=True) as bridge:
        bridge.wait_for_line("ready", _READY_S)
        teller = _Teller(rig, listener, say)
        windows = math.ceil(played.seconds / rig.manifest.window.slot_s)
        with rig.edge(played.source, speed=played.speed, windows=windows) as edge:
            try:
                _follow(teller, edge, played.limit_s + _SLACK_S)
                _follow(teller, bridge, _SLACK_S)
            except TimeoutError as error:
                errors.append(str(error))
            teller.tell()
            if not edge.running and edge.wait(1) == 2:  # its own word for "this cannot be played"
                raise CameraError(_last_line(edge))
            errors += _what_failed(edge)
        errors += _what_failed(bridge)
    heard = rig.hear(listener.records())
    return heard, errors + [f"refused: {text}" for text in heard.refused]


class _Teller:
    """Tells what the listener has heard since the last time."""

    def __init__(self, rig: Rig, listener: Listener, say: Callable[[str], None]) -> None:
        self._rig, self._listener, self._say, self._told = rig, listener, say, 0

    def wait(self, seconds: float) -> None:
        self._listener.wait_more(self._told, seconds)

    def tell(self) -> None:
        news = self._listener.records(self._told)
        self._told += len(news)
        heard = self._rig.hear(news)
        said: list[tuple[float, Verdict | Alert]] = [*heard.verdicts, *heard.alerts]
        for _, item in sorted(said, key=lambda pair: pair[0]):
            self._say(_line(item))


def _follow(teller: _Teller, child: Child, seconds: float) -> None:
    """Tell what comes until `child` ends. Raises TimeoutError."""
    waited = 0.0
    while child.running:
        if waited > seconds:
            child.wait(0.1)
        teller.wait(0.2)
        waited += 0.2
        teller.tell()


def _line(item: Verdict | Alert) -> str:
    if isinstance(item, Alert):
        turn = "RAISED" if item.raised else "cleared"
        return f"{item.at_s:7.1f} s  ALERT   {item.label} {turn} ({item.probability:.2f})"
    bar = "#" * round(10 * item.probability)
    span = f"{item.start_s:5.1f} to {item.end_s:5.1f} s"
    return f"{span}  {item.member:5}  {item.label:7} {item.probability:4.2f} {bar:10}  {item.sentence}".rstrip()


def _what_failed(child: Child) -> list[str]:
    status = child.wait(_SLACK_S) if not child.running else child.stop()
    ended = [] if status == 0 else [f"{child.name} ended with status {status}: {_last_line(child)}"]
    return ended + [f"{child.name}: {line}" for line in child.error_lines()]


def _last_line(child: Child) -> str:
    lines = [line for line in child.output().splitlines() if line.strip()]
    text = lines[-1] if lines else f"{child.name} said nothing"
    return text.removeprefix("edge_runtime: ").removeprefix("error: ")


def summarise(rig: Rig, listener: Listener, heard: Heard, played: Played, errors: list[str]) -> dict[str, Any]:
    """The document that `--json` writes."""
    manifest = rig.manifest
    slot_s = manifest.window.slot_s
    by_topic = _published(listener)
    cloud = heard.of("cloud")
    verdicts = sorted(heard.verdicts, key=lambda pair: (pair[1].end_s, pair[1].member == "cloud"))
    label = clip_label([v for _, v in cloud], manifest.labels, _decision_threshold(rig))
    certificate = manifest.certificate()
    event = certificate.reveals(manifest.event_releases)
    publish, verdict = _latencies(rig, heard, played.speed)
    falls = {m: next((v.end_s for _, v in heard.of(m) if v.label == "fall"), None) for m in ("edge", "cloud")}
    windows = len(heard.features)
    document: dict[str, Any] = {
        "source": played.source,
        "windows": windows,
        "duration_s": round(windows * slot_s, 3),
        "verdicts": [
            {
                "start_s": v.start_s,
                "end_s": v.end_s,
                "label": v.label,
                "probability": round(v.probability, 4),
                "member": v.member,
                "sentence": v.sentence,
            }
            for _, v in verdicts
        ],
        "clip_label": label,
        "alerts": [{"at_s": a.at_s, "label": a.label, "raised": a.raised} for _, a in heard.alerts],
        "published_bytes": sum(by_topic.values()),
        "bytes_by_topic": by_topic,
        "bytes_per_window": by_topic.get("features", 0) / windows if windows else 0,
        "certified_bits_per_event": event["bits"],
        "certified_bits_in_all": certificate.reveals(max(1, windows))["bits"],
        "S_event": event["S"],
        "name_one_of_1000": event["name_one_of"]["1000"],
        "time_to_vacuous_s": {str(m): certificate.time_to_vacuous_s(m) for m in (10, 1000)},
        "not_proved": certificate.document()["not_proved"],
        "latency_ms": publish,
        "cloud_latency_ms": verdict,
        "speed": played.speed,
        "first_fall_end_s": min((end for end in falls.values() if end is not None), default=None),
        "first_fall_end_s_by_member": falls,
        "errors": errors,
    }
    if played.fall_onset_s is not None:
        document["fall_onset_s"] = played.fall_onset_s
    return document


def _published(listener: Listener) -> dict[str, int]:
    """Payload bytes by topic of what the edge has published."""
    edge = ("features", "verdict/edge", "state", "certificate")
    sizes = dict.fromkeys(edge, 0)
    for record in listener.records():
        name = record.topic.split("/", 4)[-1]
        if name in sizes:
            sizes[name] += len(record.payload)
    return sizes


def _latencies(rig: Rig, heard: Heard, speed: float) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds from a slot's end to its features, by the device's own clock, and to the cloud's verdict as heard.

    The listener's clock is set by the device's: half of the features are heard within the device's own p50.
    """
    loop = rig.summary().get("loop", {})
    if not heard.features or not loop:
        return {}, {}
    publish = {name: float(loop[f"latency_ms_{name}"]) for name in ("p50", "p99")}
    slot_s = rig.manifest.window.slot_s / speed
    began = (
        float(np.median([at - (message.slot + 1) * slot_s for at, message in heard.features])) - publish["p50"] / 1e3
    )
    last = max(message.slot for _, message in heard.features)
    verdict = [1e3 * (at - began - (v.last_slot + 1) * slot_s) for at, v in heard.of("cloud") if v.last_slot <= last]
    return publish, percentiles(verdict)


def _decision_threshold(rig: Rig) -> float:
    from familial.model.config import FamilyConfig

    return float(FamilyConfig.load(rig.checkpoint / "config.json").decision_threshold)


def show(document: dict[str, Any], manifest_n: int) -> None:
    """The summary for people."""
    sizes = document["bytes_by_topic"]
    windows = document["windows"]
    print()
    print(f"clip               {document['clip_label']}  ({windows} windows, {document['duration_s']:g} s)")
    if document.get("fall_onset_s") is not None:
        first = document["first_fall_end_s"]
        when = (
            "never named"
            if first is None
            else f"first verdict that says so ends {first - document['fall_onset_s']:+.1f} s"
        )
        print(f"fall               onset at {document['fall_onset_s']:.1f} s, {when}")
    print(f"left the box       {document['published_bytes']} bytes: " + ", ".join(f"{v} {k}" for k, v in sizes.items()))
    print(f"a window           {document['bytes_per_window']:g} bytes: {manifest_n} noised integers, signed")
    bits, shift, p = (round_up(document[k]) for k in ("certified_bits_per_event", "S_event", "name_one_of_1000"))
    print(f"an event reveals   at most {bits} bits (S = {shift}); one of 1,000 people is named with p <= {p}")
    vacuous = document["time_to_vacuous_s"]["1000"]
    print(f"                   after {vacuous:g} s in view nothing is promised about naming one of 1,000")
    print(
        f"the clip reveals   at most {round_up(document['certified_bits_in_all'])} bits, all {windows} windows together"
    )
    print("not proved         " + "\n                   ".join(document["not_proved"]))
    for name, key in (("to the features", "latency_ms"), ("to the verdict", "cloud_latency_ms")):
        if document[key]:
            p50, p99 = document[key]["p50"], document[key]["p99"]
            print(f"{name:18} {p50:.1f} ms after the slot's end (p50), {p99:.1f} ms (p99)")
    print(f"errors             {len(document['errors'])}")
    for line in document["errors"]:
        print(f"  {line}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="The whole loop on a clip, in one command.")
    parser.add_argument(
        "--source", metavar="FILE_OR_URL", help="a video file, an RTSP or other URL, or a camera's index"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the summary there")
    parser.add_argument("--seconds", type=float, help=f"stop after that much of the source (live sources: {_LIVE_S:g})")
    parser.add_argument("--speed", type=float, default=1.0, help="play a file faster than it was taken (default 1)")
    parser.add_argument("--engine", type=Path, metavar="DIR", help="an engine that is built already")
    parser.add_argument(
        "--checkpoint", type=Path, default=CHECKPOINT, metavar="DIR", help="what that engine was built from"
    )
    parser.add_argument("--mosquitto", action="store_true", help="use an installed Mosquitto as the broker")
    return parser


def _played(args: argparse.Namespace) -> Played:
    """The source, checked as far as it can be before anything starts. Raises CameraError, ConfigError."""
    for name in ("seconds", "speed"):
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"--{name} is {value}; it must be a positive number")
    onset = None
    source: str = args.source if args.source is not None else ""
    kind = backend_of(source) if args.source is not None else "file"
    endless = kind != "file"
    if args.source is None:
        path, onset = rendered_clip()
        source = str(path)
    if not endless:
        source = str(Path(source.removeprefix("file://")).absolute())
    duration = check_source(source)
    seconds = args.seconds if args.seconds is not None else (_LIVE_S if endless else 0.0)
    speed = args.speed if kind in ("file", "synthetic") else 1.0
    return Played(source, speed, seconds, (seconds or duration or 600.0) / speed, onset)


def main(argv: Sequence[str] | None = None) -> int:
    """The demo; 0 clean, 1 something went wrong on the way, 2 unusable source or arguments."""
    args = _parser().parse_args(argv)
    end_on_signals()
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # a broken file is our error to tell, in one line
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        return _demo(args)
    except VeilsightError as error:
        return fail(error)
    except KeyboardInterrupt:
        return 130


def _demo(args: argparse.Namespace) -> int:
    played = _played(args)  # before the engine is built: a wrong path is told at once
    engine = args.engine.absolute() if args.engine else build_engine()
    broker_kind = Mosquitto if args.mosquitto else EmbeddedBroker
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="veilsight-demo-")))
        broker = stack.enter_context(broker_kind(folder))
        listener = stack.enter_context(Listener(broker))
        rig = Rig(folder, broker, engine, args.checkpoint.absolute())
        print(f"playing {played.source}; the cloud member is loaded first", flush=True)
        heard, errors = run(rig, listener, played, lambda line: print(line, flush=True))
        document = summarise(rig, listener, heard, played, errors)
    show(document, rig.manifest.n)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
