"""The project's own source, for the tests that check it: its packages, its files and what they import."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.services import ROOT

__all__ = ["LAYERS", "PACKAGES", "imports", "module_name", "python_files", "tracked"]

# A package may import from packages of a smaller number only. `tests` run the benchmarks, never the other way.
LAYERS = {
    "tests": 5,
    "benchmarks": 4,
    "calibration": 3,
    "cloud_bridge": 3,
    "export": 2,
    "firmware_configs": 2,
    "familial": 1,
    "edge_runtime": 1,
    "wire": 0,
}
PACKAGES = tuple(name for name in LAYERS if name != "tests")
"""What is shipped."""

_TEXT = {".py", ".md", ".toml", ".txt", ".proto", ".json", ".service", ".conf", ".sh", ".js", ".html", ""}
_IMPORTERS = {"importlib.import_module", "import_module", "__import__"}


def tracked() -> list[Path]:
    """Text files under version control; skips the test where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.suffix in _TEXT and path.is_file() and path.name != "LICENSE"]


def python_files(*packages: str) -> list[Path]:
    """The Python files of `packages`, without generated code."""
    found = (path for package in packages for path in (ROOT / package).rglob("*.py"))
    return sorted(path for path in found if not path.name.endswith("_pb2.py"))


def module_name(path: Path) -> str:
    """The dotted name under which `path` is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _called(function: ast.expr) -> str:
    """The dotted name of what is called; "" where it is something else."""
    parts = list[str]()
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    return ".".join([function.id, *reversed(parts)]) if isinstance(function, ast.Name) else ""


def imports(path: Path, source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that `source` imports, wherever the statement stands.

    `from a import b` gives `a.b`, since `b` may be a module; calls of importlib count too, with
    "" for a name that is no literal.
    """
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(source, str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            start = [*base, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*start, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node.func) in _IMPORTERS and node.args:
            yield node.lineno, str(getattr(node.args[0], "value", ""))
