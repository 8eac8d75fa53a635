"""Every command of the project and its parser, found without running what the command does."""

from __future__ import annotations

import argparse
import functools
import re
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.support.source_tree import PACKAGES, module_name, python_files

__all__ = ["commands", "parser_of"]

_IS_COMMAND = re.compile(r'^if __name__ == "__main__":', re.MULTILINE)
# Processes that other commands start: a broker, and a gate and eyes that are hostile.
_NO_COMMAND = {"benchmarks.broker", "benchmarks.hostile_gate", "benchmarks.scene_eyes"}


class _Found(BaseException):
    """Ends a command where it would read its arguments."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def _name(path: Path) -> str:
    """What follows `python -m`: a command of the benchmarks is found without its folder."""
    name = module_name(path).removesuffix(".__main__")
    return f"benchmarks.{path.stem}" if name.startswith("benchmarks.") else name


@functools.cache
def commands() -> tuple[str, ...]:
    """Every module that can be run with `python -m`."""
    found = {_name(path) for path in python_files(*PACKAGES) if _IS_COMMAND.search(path.read_text())}
    return tuple(sorted(found - _NO_COMMAND))


@functools.cache
def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of `python -m command`, which is run up to the point where it reads its arguments."""

    def stop(parser: argparse.ArgumentParser, *_: Any) -> Any:
        raise _Found(parser)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # runpy's, about a module that is imported already
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        patch.setattr(sys, "argv", [command])
        try:
            runpy.run_module(command, run_name="__main__", alter_sys=True)
        except _Found as found:
            return found.parser
    raise AssertionError(f"python -m {command} reads no arguments")
