"""`python -m benchmarks.wire`: what a second of Veilsight costs on the network, against a second of video.

    edge process -> tap (counts TCP bytes and, by the kernel's count, IP packets in both directions) -> broker

Ours is everything: features, the edge member's verdict, MQTT's own bytes, acknowledgements both ways, and 52 bytes of
IPv4 and TCP headers (timestamps on) a packet; measured from the first whole event to the last release of a run, so
without the connection's start, which is listed. Video is the bare stream alone, headers not counted, at 320x240: H.264
(libx264, crf 28) and JPEG (8 frames a second, quality 80).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.broker import Tap
from benchmarks.demo_source import rendered_clip
from benchmarks.harness import add_engine, engine_folder, running_rig
from benchmarks.listener import Record
from benchmarks.runner import Benchmark, Report
from familial.data.clips import read_manifests
from wire.artifact.manifest import EngineManifest
from wire.errors import VeilsightError

__all__ = ["COMMAND", "h264_bytes", "jpeg_bytes", "ours"]

_HEADERS = 52  # IPv4 20, TCP 20, timestamps 12
_SIZE = (320, 240)
_JPEG_FPS = 8.0
_TIMEOUT_S = 120.0


def ours(engine: Path, seconds: float) -> dict[str, Any]:
    """A run of the real edge process: bytes a window by kind, and a second, over `seconds` of full events.

    The scene does not matter: messages have one size and leave once a slot, whatever is seen.
    """
    with running_rig("wire", engine) as (rig, listener), Tap(rig.broker) as tap:
        first, slot_s = rig.manifest.event_releases, rig.manifest.window.slot_s  # from then on, a verdict each slot
        windows = first + 1 + max(2, round(seconds / slot_s))
        with rig.edge("synthetic://walk", windows=windows, broker=tap) as edge:
            counts: list[Mapping[str, int]] = []
            seen = 0
            while edge.running:
                listener.wait_more(seen, 0.05)
                news = listener.records(seen)
                seen += len(news)
                # each release is counted when the next one comes: by then all that belongs to it has passed
                counts += [tap.counts() for record in news if record.topic.endswith("/features")]
            status = edge.wait(_TIMEOUT_S)
            if status != 0 or len(counts) < first + 3:
                raise VeilsightError(f"the edge process ended with status {status}:\n{edge.output()[-2000:]}")
        return _by_window(counts[first:], slot_s) | {
            **_payloads(listener.records()),
            "start_bytes": counts[0]["bytes_up"] + counts[0]["bytes_down"],
            "broker": type(rig.broker).__name__,
        }


def _payloads(records: Sequence[Record]) -> dict[str, int]:
    """Bytes of the payload of a release and of an edge verdict."""
    sizes = {record.topic.split("/", 4)[-1]: len(record.payload) for record in records}
    return {"payload_bytes": sizes["features"], "verdict_bytes": sizes.get("verdict/edge", 0)}


def _by_window(counts: Sequence[Mapping[str, int]], slot_s: float) -> dict[str, Any]:
    """Bytes and packets a window from the tap's counts at the releases of full events."""
    begin, end, windows = counts[0], counts[-1], len(counts) - 1
    spent = {key: end[key] - begin[key] for key in end}
    packets = spent.get("segments_up", 0) + spent.get("segments_down", 0)
    if not packets:  # no such count on this system: one packet a write, one bare acknowledgement for each
        packets = 2 * (spent["chunks_up"] + spent["chunks_down"])
    total = spent["bytes_up"] + spent["bytes_down"] + _HEADERS * packets
    return {
        "mqtt_bytes_up": spent["bytes_up"] / windows,
        "mqtt_bytes_down": spent["bytes_down"] / windows,
        "packets": packets / windows,
        "bytes_per_window": total / windows,
        "bytes_per_s": total / windows / slot_s,
        "windows": windows,
        "packets_counted_by": "kernel" if "segments_up" in spent else "one a write, one acknowledgement each",
    }


def h264_bytes(clip: Path) -> float | None:
    """Bytes a second of `clip` as bare H.264; None where ffmpeg is not installed or has no libx264."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        return None
    scale = f"scale={_SIZE[0]}:{_SIZE[1]}"
    encode = ["-an", "-vf", scale, "-c:v", "libx264", "-crf", "28", "-f", "h264", "-"]
    command = [ffmpeg, "-v", "error", "-i", str(clip), *encode]
    result = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
    frames, fps = _frames(clip)
    return len(result.stdout) / (frames / fps) if result.returncode == 0 and frames else None


def jpeg_bytes(clip: Path) -> float:
    """Bytes a second of `clip` as JPEG frames."""
    import cv2

    capture = cv2.VideoCapture(str(clip))
    fps = capture.get(cv2.CAP_PROP_FPS) or 25.0
    total, taken, index = 0, 0, 0
    while True:
        good, picture = capture.read()
        if not good:
            break
        if index >= taken * fps / _JPEG_FPS:
            small = cv2.resize(picture, _SIZE, interpolation=cv2.INTER_AREA)
            total += len(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1])
            taken += 1
        index += 1
    capture.release()
    return total / (index / fps) if index else 0.0


def _frames(clip: Path) -> tuple[int, float]:
    import cv2

    capture = cv2.VideoCapture(str(clip))
    frames, fps = 0, capture.get(cv2.CAP_PROP_FPS) or 25.0
    while capture.grab():
        frames += 1
    capture.release()
    return frames, fps


def _real_clips(manifest: Path | None, labels: Sequence[str]) -> dict[str, Path]:
    """The first clip of each set of a clip manifest: set -> file."""
    found: dict[str, Path] = {}
    for clip in read_manifests([manifest], labels) if manifest else []:
        found.setdefault(clip.set, clip.file)
    return found


def _options(parser: argparse.ArgumentParser) -> None:
    data = os.environ.get("VEILSIGHT_DATA")
    add_engine(parser)
    parser.add_argument(
        "--data",
        type=Path,
        metavar="MANIFEST.csv",
        help="also the first real clip of each of its sets",
        default=Path(data) / "clips" / "manifest.csv" if data else None,
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of our own traffic (default 20)")


def _measure(args: argparse.Namespace) -> Report:
    engine = engine_folder(args)
    demo, _ = rendered_clip()
    mine = ours(engine, args.seconds)
    clips = {"demo clip": demo, **_real_clips(args.data, EngineManifest.load(engine).labels)}
    return _report(mine, {name: {"h264": h264_bytes(path), "jpeg": jpeg_bytes(path)} for name, path in clips.items()})


def _report(mine: dict[str, Any], video: dict[str, dict[str, float | None]]) -> Report:
    own = mine["bytes_per_s"]
    rows = [["clip", "ours B/s", "H.264 B/s", "JPEG B/s", "ours/H.264", "ours/JPEG"]]
    for name, streams in video.items():
        h264, jpeg = streams["h264"], streams["jpeg"]
        shares = [f"{own / value:.4f}" if value else "skipped" for value in (h264, jpeg)]
        rows.append([name, f"{own:.0f}", f"{h264:.0f}" if h264 else "skipped", f"{jpeg:.0f}", *shares])
    h264 = video["demo clip"]["h264"]
    notes = [
        f"a window: payload {mine['payload_bytes']} bytes, verdict {mine['verdict_bytes']}, MQTT up "
        f"{mine['mqtt_bytes_up']:.1f} and down {mine['mqtt_bytes_down']:.1f}, {mine['packets']:.2f} packets "
        f"of {_HEADERS} bytes of headers: {mine['bytes_per_window']:.0f} bytes in all",
        f"once a connection: {mine['start_bytes']} bytes (state, certificate, first release); broker {mine['broker']}",
    ]
    if h264 is None:
        notes.append("H.264: skipped, no ffmpeg with libx264 is installed")
    return Report(own / h264 if h264 else None, {**mine, "video_bytes_per_s": video}, rows, notes)


COMMAND = Benchmark(
    "wire", __doc__, "H.264 at 320x240, crf 28, of the same seconds of the demo clip", _options, _measure
)

if __name__ == "__main__":
    sys.exit(COMMAND.main())
