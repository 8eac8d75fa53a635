"""`python -m benchmarks`: every benchmark and picture of this package, a line each."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runner import Benchmark, Picture

__all__ = ["commands", "main"]

_PACKAGE = Path(__file__).parent


def commands() -> dict[str, Benchmark | Picture]:
    """Command name -> the benchmark or picture behind it, from every module that defines `COMMAND`."""
    found: dict[str, Benchmark | Picture] = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        if path.stem.startswith("__"):
            continue
        name = ".".join(["benchmarks", *path.relative_to(_PACKAGE).with_suffix("").parts])
        command = getattr(importlib.import_module(name), "COMMAND", None)
        if command is not None:
            found[command.name] = command
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the list."""
    description = "Every benchmark and picture, a line each; python -m benchmarks.NAME --help says more."
    argparse.ArgumentParser(prog="python -m benchmarks", description=description).parse_args(argv)
    found = commands()
    width = max(map(len, found))
    for kind, title in (
        (Benchmark, "benchmarks: a table, and one JSON document as the last line"),
        (Picture, "pictures"),
    ):
        print(f"{title}:")
        for name, command in sorted(found.items()):
            if isinstance(command, kind):
                print(f"  python -m benchmarks.{name:{width}}  {command.summary}")
    print("python -m benchmarks.NAME --help says more; python -m benchmarks.demo plays the whole loop on a clip")
    return 0


if __name__ == "__main__":
    sys.exit(main())
