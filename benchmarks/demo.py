"""The demo: build the engine, run broker, edge and bridge on a clip, say what was seen and what left the box.

    python -m benchmarks.demo [--source FILE_OR_URL_OR_INDEX] [--json OUT] [--seconds N]

    clip -> edge process -> broker -> bridge process        a listener keeps every message and prints each verdict

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
from pathlib import Path

from benchmarks.broker import EmbeddedBroker, Mosquitto
from benchmarks.demo_source import Played, played
from benchmarks.demo_summary import show, summarise
from benchmarks.harness import Child, Rig, add_checkpoint, add_engine, engine_folder
from benchmarks.listener import Heard, Listener
from benchmarks.runner import end_on_signals, fail
from wire.errors import CameraError, ConfigError, VeilsightError
from wire.protocol.message import Alert, Verdict

__all__ = ["main", "run"]

_READY_S = 120.0  # a first import of torch from a cold disk takes long
_SLACK_S = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """The demo; 0 clean, 1 something went wrong on the way, 2 unusable source or arguments."""
    args = _parser().parse_args(argv)
    end_on_signals()
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # a broken file is reported by us, in one line
    try:
        return _demo(args)
    except VeilsightError as error:
        return fail(error)
    except KeyboardInterrupt:
        return 130


def _demo(args: argparse.Namespace) -> int:
    _check(args)
    source = played(args.source, args.speed, args.seconds)  # before the build: a wrong path is reported at once
    engine = engine_folder(args)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="veilsight-demo-")))
        broker = stack.enter_context((Mosquitto if args.mosquitto else EmbeddedBroker)(folder))
        listener = stack.enter_context(Listener(broker))
        rig = Rig(folder, broker, engine, args.checkpoint.absolute())
        print(f"playing {source.source}; the cloud member is loaded first", flush=True)
        heard, errors = run(rig, listener, source, lambda line: print(line, flush=True))
        document = summarise(rig, listener.records(), heard, source, errors)
    show(document, rig.manifest.n)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if errors else 0


def run(rig: Rig, listener: Listener, source: Played, say: Callable[[str], None]) -> tuple[Heard, list[str]]:
    """Play through a running broker and give `say` a line for each verdict and alert as it comes.

    Returns:
        All that was heard, and what failed.

    Raises:
        CameraError: the edge process cannot play the source.
    """
    errors: list[str] = []
    with rig.bridge(exit_when_offline=True) as bridge:
        bridge.wait_for_line("ready", _READY_S)
        news = _News(rig, listener, say)
        windows = math.ceil(source.seconds / rig.manifest.window.slot_s)
        with rig.edge(source.source, speed=source.speed, windows=windows) as edge:
            try:
                news.follow(edge, source.limit_s + _SLACK_S)
                news.follow(bridge, _SLACK_S)
            except TimeoutError as error:
                errors.append(str(error))
            news.report()
            if not edge.running and edge.wait(1) == 2:  # its own word for "this cannot be played"
                raise CameraError(_last_line(edge))
            errors += _what_failed(edge)
        errors += _what_failed(bridge)
    heard = rig.hear(listener.records())
    return heard, errors + [f"refused: {text}" for text in heard.refused]


class _News:
    """Says each verdict and alert once, in the order they were heard."""

    def __init__(self, rig: Rig, listener: Listener, say: Callable[[str], None]) -> None:
        self._rig, self._listener, self._say, self._seen = rig, listener, say, 0

    def report(self) -> None:
        """Say what has come since the last time."""
        news = self._listener.records(self._seen)
        self._seen += len(news)
        heard = self._rig.hear(news)
        found: list[tuple[float, Verdict | Alert]] = [*heard.verdicts, *heard.alerts]
        for _, item in sorted(found, key=lambda pair: pair[0]):
            self._say(_line(item))

    def follow(self, child: Child, seconds: float) -> None:
        """Say what comes until `child` ends. Raises TimeoutError after `seconds`."""
        waited = 0.0
        while child.running:
            if waited > seconds:
                child.wait(0.1)
            self._listener.wait_more(self._seen, 0.2)
            waited += 0.2
            self.report()


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


def _check(args: argparse.Namespace) -> None:
    """Raise ConfigError for numbers that cannot be played."""
    for name in ("seconds", "speed"):
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"--{name} is {value}; it must be a positive number")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="The whole loop on a clip, in one command.")
    parser.add_argument(
        "--source", metavar="FILE_OR_URL", help="a video file, an RTSP or other URL, or a camera's index"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the summary there")
    parser.add_argument("--seconds", type=float, help="stop after that much of the source (live sources: 60)")
    parser.add_argument("--speed", type=float, default=1.0, help="play a file faster than it was recorded (default 1)")
    add_engine(parser)
    add_checkpoint(parser, "the checkpoint that the engine was built from (default: checkpoints/nano)")
    parser.add_argument("--mosquitto", action="store_true", help="use an installed Mosquitto as the broker")
    return parser


if __name__ == "__main__":
    sys.exit(main())
