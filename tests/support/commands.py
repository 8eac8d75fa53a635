"""Every command of the project: which modules are commands, and their parsers, without running them."""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.source_tree import PACKAGES, module_name, python_files

__all__ = ["command_modules", "parser_of"]

_IS_COMMAND = re.compile(r'^if __name__ == "__main__":', re.MULTILINE)


class _Found(BaseException):
    """Ends a command where it would read its arguments."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def _name(path: Path) -> str:
    """What follows `python -m`: a command of the benchmarks is found without its folder."""
    name = module_name(path).removesuffix(".__main__")
    return f"benchmarks.{path.stem}" if name.startswith("benchmarks.") else name


@functools.cache
def command_modules() -> dict[str, str]:
    """What stands after `python -m` -> the module that has `main`."""
    found = {}
    for path in python_files(*PACKAGES):
        source = path.read_text()
        if _IS_COMMAND.search(source) and "argparse" in source or path.name == "__main__.py":
            found[_name(path)] = _home_of_main(path, source)
    return found


def _home_of_main(path: Path, source: str) -> str:
    """Where the `main` of this module is defined: here, or where a `__main__` imports it from."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == "main" for alias in node.names):
            return str(node.module)
    return module_name(path)


@functools.cache
def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of `python -m command`: its `main` is run up to the point where it reads its arguments."""

    def stop(parser: argparse.ArgumentParser, *_: Any) -> Any:
        raise _Found(parser)

    main = importlib.import_module(command_modules()[command]).main
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        try:
            main([])
        except _Found as found:
            return found.parser
    raise AssertionError(f"python -m {command} reads no arguments")
