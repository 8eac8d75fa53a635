"""Command-line options that every package's commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

__all__ = ["at_least_one", "former_command", "former_name"]


def at_least_one(text: str) -> int:
    """Read a count of 1 or more; as `type` of an option, argparse names the option and prints this error."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no count; give a whole number of at least 1")
    return int(text)


def former_command(old: str, new: str, main: Callable[[], int]) -> int:
    """Run `main` of `python -m NEW` when it was called as `python -m OLD`; prints a notice, returns its status."""
    print(f"python -m {old} is now python -m {new}; the old name ends with the next version", file=sys.stderr)
    return main()


def former_name(parser: argparse.ArgumentParser, old: str, option: argparse.Action) -> None:
    """Accept `old`, the name that `option` had one version ago, as another name of it; `--help` does not list it.

    Args:
        parser: The parser of `option`.
        old: Such as `--rate`.
        option: What `add_argument` returned.
    """
    kinds = {} if option.nargs == 0 else {"nargs": option.nargs, "type": option.type, "choices": option.choices}
    parser.add_argument(
        old,
        action=type(option),
        dest=option.dest,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
        **kinds,  # type: ignore[arg-type]  # as the option itself has them
    )
