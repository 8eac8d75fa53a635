"""Nothing grows beyond what a reader takes in at once: files of 500 lines, functions of 60."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.support.services import ROOT
from tests.support.source_tree import LAYERS, python_files

FILE_LINES, FUNCTION_LINES = 500, 60
# Files of pure data, and nothing else. No function is excepted, and no file for its code.
TABLES: set[str] = set()
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def functions(source: str) -> Iterator[tuple[str, int, int]]:
    """(name, first line, count of lines) of every function, methods and inner ones too; decorators don't count."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, FUNCTIONS):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def test_no_file_is_too_long() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in python_files(*LAYERS)}
    found = [f"{name}: {n} lines" for name, n in lengths.items() if n > FILE_LINES and name not in TABLES]
    assert not found, "\n".join([*found, f"Split it by the jobs that it does: {FILE_LINES} lines is the limit."])
    assert lengths.keys() >= TABLES, "TABLES names a file that is gone"


def test_no_function_is_too_long() -> None:
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{line} {name}: {n} lines"
        for path in python_files(*LAYERS)
        for name, line, n in functions(path.read_text())
        if n > FUNCTION_LINES
    ]
    assert not found, "\n".join([*found, f"Give its steps names of their own: {FUNCTION_LINES} lines is the limit."])


def test_a_long_function_is_found() -> None:
    source = "class A:\n    @property\n    def f(self):\n" + "        pass\n" * 60
    assert list(functions(source)) == [("f", 3, 61)]
