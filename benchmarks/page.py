"""docs/benchmarks.md: every benchmark has a block of its own there and writes nothing else.

    <!-- benchmark:NAME -->  date, machine, command, table, notes  <!-- /benchmark -->

Headings and prose between the blocks are written by people.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.broker import ROOT
from wire.errors import DataError

__all__ = ["MOST_CHARACTERS", "MOST_WORDS", "PAGE", "Run", "record", "table", "with_block"]

PAGE = ROOT / "docs" / "benchmarks.md"
MOST_CHARACTERS, MOST_WORDS = 120, 1500


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a benchmark, as its block shows it.

    Attributes:
        name: of the benchmark.
        date: of the run, YYYY-MM-DD.
        machine: processor and versions, in words.
        command: what repeats it.
        rows: the table; its first row is the head.
        notes: lines below the table; empty ones are left out.
    """

    name: str
    date: str
    machine: str
    command: str
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table with aligned columns and a rule below its head; none for no rows."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def record(run: Run, page: Path = PAGE) -> None:
    """Replace the run's block of `page`; a page that becomes too long gives a warning on stderr.

    Raises:
        DataError: the page cannot be read, or has no block of that name.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{page}: cannot be read ({error.strerror}); --record needs this page") from error
    text = with_block(text, run)
    page.write_text(text, encoding="utf-8")
    words = len(text.split())
    if words > MOST_WORDS:
        print(f"warning: {page.name} has {words} words, {MOST_WORDS} are allowed: shorten it", file=sys.stderr)


def with_block(text: str, run: Run) -> str:
    """The page's text with the run in its block. Raises DataError where there is no such block."""
    begin, end = f"<!-- benchmark:{run.name} -->", "<!-- /benchmark -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    block = "\n".join([begin, *_lines(run), end])
    changed, count = pattern.subn(lambda match: block, text)
    if count != 1:
        raise DataError(f"docs/benchmarks.md has {count} blocks {begin!r} ... {end!r}; one is needed: add a section")
    return changed


def _lines(run: Run) -> list[str]:
    """The block's lines, at most MOST_CHARACTERS each. A table that is too wide is turned: its columns become rows."""
    lines = table(run.rows)
    if any(len(line) > MOST_CHARACTERS for line in lines):
        lines = table([*zip(*run.rows, strict=True)])
    wrapped = (textwrap.wrap(f"- {note}", MOST_CHARACTERS, subsequent_indent="  ") for note in run.notes if note)
    notes = [line for lines_of_note in wrapped for line in lines_of_note]
    figures = ["", "```text", *lines, "```"] if lines else []
    return [f"{run.date}, {run.machine}.", "", f"`{run.command}`", *figures, "", *notes]
