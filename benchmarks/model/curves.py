"""`python -m benchmarks.curves CURVE.csv --svg OUT`: the picture of a training run, from the CSV it writes.

curve.csv (rows of step, seconds, losses, shares of the validation set) --chosen columns--> one line each over minutes
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import fail
from wire.errors import DataError, VeilsightError

__all__ = ["draw", "main"]

_COLUMNS = ("clean", "now", "cloud", "linked", "val_release", "val_cloud", "val_cloud_full")
_COLOURS = ("#6c757d", "#adb5bd", "#0a58ca", "#b02a37", "#fd7e14", "#6ea8fe", "#198754")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__.split("\n")[0])
    parser.add_argument("curve", type=Path, metavar="CURVE.csv", help="of familial.train: build/train/NAME/curve.csv")
    parser.add_argument("--svg", type=Path, required=True, metavar="OUT")
    parser.add_argument("--columns", nargs="+", default=list(_COLUMNS), metavar="NAME", help="which to draw")
    args = parser.parse_args(argv)
    try:
        args.svg.write_text(draw(args.curve, args.columns))
    except VeilsightError as error:
        return fail(error)
    print(args.svg)
    return 0


def draw(path: Path, columns: Sequence[str]) -> str:
    """Lines of `columns` over the minutes of training, as SVG text; cells that are empty make no point."""
    from calibration.audit.drawing import Axis, Curve, chart

    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        found = {
            name: [(float(row["seconds"]) / 60, float(row[name])) for row in rows if row.get(name)] for name in columns
        }
    except (OSError, ValueError, KeyError) as error:
        cure = "familial.train writes build/train/NAME/curve.csv"
        raise DataError(f"{path}: not a training curve ({error!r}); {cure}") from error
    points = {name: line for name, line in found.items() if line}
    if not points:
        raise DataError(f"{path}: no row has any of {', '.join(columns)}; a run shorter than half a minute writes none")
    last = max(x for line in points.values() for x, _ in line)
    top = math.ceil(max(1.0, *(y for line in points.values() for _, y in line)))
    along = Axis("minutes of training", 0.0, max(last, 1e-3), tuple(round(last * part / 4, 1) for part in range(5)))
    up = Axis("losses (lower is better), shares (higher)", 0.0, top, tuple(top * part / 4 for part in range(5)))
    lines = [Curve(name, line, _COLOURS[index % len(_COLOURS)]) for index, (name, line) in enumerate(points.items())]
    return chart(lines, along, up, marks={})


if __name__ == "__main__":
    sys.exit(main())
