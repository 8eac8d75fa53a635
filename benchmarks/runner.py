"""The one command line of all benchmarks: options in, a table and one JSON document out.

    options(parser), measure(args) -> Report        a benchmark's own module
          |                 |
    shared options, errors in one line       table, notes, last line of stdout: one JSON document; --json, --record

A `Picture` is a command that writes an SVG file instead. `python -m benchmarks` lists both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from benchmarks.page import Run, record, table
from wire.errors import DataError, VeilsightError

__all__ = ["Benchmark", "Picture", "Report", "end_on_signals", "fail", "machine", "percentiles", "write_text"]


@dataclass(frozen=True, slots=True)
class Report:
    """What a benchmark found.

    Attributes:
        ratio: ours over the benchmark's peer, both measured in this run; None where the peer is not there.
        figures: everything that was measured, as plain JSON values.
        rows: the table; its first row is the head.
        notes: lines below the table.
        wrong: what must hold and did not, in words: each is told, and one ends the command with status 1. None: nothing
            is asked of the figures.
        page_rows: the table for docs/benchmarks.md where `rows` is too wide or too long for a page.
    """

    ratio: float | None
    figures: Mapping[str, Any]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    wrong: Sequence[str] | None = None
    page_rows: Sequence[Sequence[str]] = ()

    @property
    def told(self) -> Sequence[str]:
        """The notes, and what is wrong."""
        if self.wrong is None:
            return self.notes
        return [*self.notes, *([f"WRONG: {each}" for each in self.wrong] or ["everything that must hold, held"])]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One command `python -m benchmarks.NAME`.

    Attributes:
        name: NAME, the name of its module.
        text: the docstring of its module; the first line says what is measured.
        peer: what `Report.ratio` is over.
        options: adds its own options to the parser.
        measure: does the work. It may raise VeilsightError, which becomes one line and exit status 2.
    """

    name: str
    text: str
    peer: str
    options: Callable[[argparse.ArgumentParser], None]
    measure: Callable[[argparse.Namespace], Report]

    @property
    def summary(self) -> str:
        """The first line of the module's docstring, without the command."""
        return _summary(self.text)

    def parser(self) -> argparse.ArgumentParser:
        """The parser with the benchmark's own options and those that all benchmarks share."""
        parser = _parser(self.name, self.text)
        self.options(parser)
        shared = parser.add_argument_group("options of every benchmark")
        shared.add_argument("--json", type=Path, metavar="OUT", help="write the JSON document there, too")
        shared.add_argument("--record", action="store_true", help="write table and figures into docs/benchmarks.md")
        return parser

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Measure and report; the exit status is 0, 1 where something is wrong, or 2 with the reason in one line."""
        args = self.parser().parse_args(argv)
        try:
            end_on_signals()
            report = self.measure(args)
            document = self._document(report)
            for line in [*table(report.rows), *report.told]:
                print(line)
            if report.ratio is not None:
                print(f"ratio {report.ratio:.3g}: ours over {self.peer}")
            if args.json:
                write_text(args.json, json.dumps(document, indent=1))
            if args.record:
                command = _command(self.name, sys.argv[1:] if argv is None else argv)
                record(self._run(report, document, command))
        except VeilsightError as error:
            return fail(error)
        except KeyboardInterrupt:
            return 130
        print(json.dumps(document), flush=True)
        return 1 if report.wrong else 0

    def _document(self, report: Report) -> dict[str, Any]:
        """The benchmark's JSON document. Raises DataError where `figures` are no JSON values."""
        document = {
            "name": self.name,
            "ratio": None if report.ratio is None else round(float(report.ratio), 6),
            "of": self.peer,
            "figures": {**report.figures, **({} if report.wrong is None else {"wrong": [*report.wrong]})},
            "machine": machine(),
        }
        try:
            json.dumps(document)
        except (TypeError, ValueError) as error:
            cure = "use plain numbers, strings, lists and dicts in Report.figures"
            raise DataError(f"benchmark {self.name}: its figures are no JSON ({error}); {cure}") from error
        return document

    def _run(self, report: Report, document: Mapping[str, Any], command: str) -> Run:
        found = document["machine"]
        where = f"{found['cores']} cores, {found['cpu']}, Python {found['python']}, load {found['load_1min']}"
        rows = [*(report.page_rows or report.rows)]
        ratio = "" if report.ratio is None else f"Ratio {report.ratio:.3g}: ours over {self.peer}."
        return Run(self.name, time.strftime("%Y-%m-%d"), where, command, rows, [*report.told, ratio])


@dataclass(frozen=True, slots=True)
class Picture:
    """One command `python -m benchmarks.NAME --out FILE.svg`; `draw` returns the text of the SVG file.

    The other attributes are those of `Benchmark`.
    """

    name: str
    text: str
    options: Callable[[argparse.ArgumentParser], None]
    draw: Callable[[argparse.Namespace], str]

    @property
    def summary(self) -> str:
        """The first line of the module's docstring, without the command."""
        return _summary(self.text)

    def parser(self) -> argparse.ArgumentParser:
        """The parser with the picture's own options and `--out`."""
        parser = _parser(self.name, self.text)
        self.options(parser)
        parser.add_argument("--out", "--svg", type=Path, required=True, metavar="FILE.svg", help="where to write it")
        return parser

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Draw and write; the exit status is 0, or 2 with the reason in one line."""
        args = self.parser().parse_args(argv)
        try:
            end_on_signals()
            write_text(args.out, self.draw(args))
        except VeilsightError as error:
            return fail(error)
        except KeyboardInterrupt:
            return 130
        print(args.out)
        return 0


def _summary(text: str) -> str:
    return text.split("\n")[0].partition("`: ")[2] or text.split("\n")[0]


def _parser(name: str, text: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _command(name: str, argv: Sequence[str]) -> str:
    """The command as a reader can repeat it: without --record, absolute paths by their last part."""
    words = [Path(word).name if word.startswith("/") else word for word in argv if word != "--record"]
    return shlex.join(["python", "-m", f"benchmarks.{name}", *words])


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`. Raises DataError where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); give another path") from error


def end_on_signals() -> None:
    """Make SIGTERM and SIGHUP end this process through its `with` blocks, so that no child outlives it."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """{"p50", "p99"} of `values`; empty for none. p99 of fewer than 100 values is near their largest."""
    if not values:
        return {}
    p50, p99 = np.percentile(np.asarray(values), [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def machine() -> dict[str, Any]:
    """The machine that the numbers were measured on."""
    model = platform.processor() or platform.machine()
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": names[0] if names else model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_1min": None if load is None else round(load, 2),
    }


def fail(error: VeilsightError) -> int:
    """Print one error line for a user; the exit status for it."""
    print(f"error: {error}", file=sys.stderr)
    return 2
