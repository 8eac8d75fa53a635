"""What the project says, and in which Python: forbidden claims, the device's syntax, exports, docstrings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.services import ROOT
from tests.support.source_tree import LAYERS, PACKAGES, python_files, tracked

# No claim that a release reveals nothing. Settings and classes of brokers carry the second word inside a longer name.
FORBIDDEN = re.compile(r"un" + r"reconstructable|\banonym" + r"ous(ly)?\b", re.IGNORECASE)


def test_nothing_is_promised_that_cannot_be_proved() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number} says {hit.group()!r}"
        for path in tracked()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (hit := FORBIDDEN.search(line))
    ]
    assert not found, "\n".join(found)


# What a device runs of `export`: the proof, the installer, and what they need.
INSTALLER = [
    ROOT / "export" / f"{name}.py"
    for name in ("backends/builder", "bundle", "install", "proof/structure", "proof/verify_graph")
]
UPDATER = [path for path in python_files("firmware_configs") if path.parent.name == "update"]
ON_DEVICE = [*python_files("wire", "edge_runtime"), *INSTALLER, *UPDATER]


@pytest.mark.parametrize("path", ON_DEVICE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_device_speaks_python_3_10(path: Path) -> None:
    ast.parse(path.read_text(), str(path), feature_version=(3, 10))


def test_the_device_uses_the_library_of_python_3_10() -> None:
    """Names that the standard library has only from 3.11 on, where a fallback is not written beside them."""
    newer = re.compile(
        r"datetime\.UTC|from datetime import .*\bUTC\b|\bStrEnum\b|ExceptionGroup|\bTaskGroup\b|"
        r"from typing import .*\b(Self|Never|LiteralString|assert_never|override)\b|"
        r"hashlib\.file_digest|itertools\.batched|contextlib\.chdir"
    )
    found = [
        f"{path.relative_to(ROOT)}: {hit.group()}" for path in ON_DEVICE if (hit := newer.search(path.read_text()))
    ]
    assert not found, "\n".join(found)


def defined(tree: ast.Module) -> set[str]:
    """Public functions and classes that a module defines at its top."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


def bound(tree: ast.Module) -> set[str]:
    """Every name that a module binds at its top, in either branch of an `if` or `try`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return names


def exported(tree: ast.Module) -> list[str] | None:
    """The module's `__all__`, or None."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return list(ast.literal_eval(node.value))  # type: ignore[attr-defined]  # only an Assign gets here
    return None


@pytest.mark.parametrize("path", python_files(*PACKAGES), ids=lambda path: str(path.relative_to(ROOT)))
def test_exports_are_what_they_say(path: Path) -> None:
    """Every module names what it offers: all it lists exists, and all public functions and classes are listed."""
    tree = ast.parse(path.read_text(), str(path))
    names = exported(tree)
    if path.name in ("__init__.py", "__main__.py"):
        names = names or []
    assert names is not None, "no __all__"
    assert len(names) == len(set(names)), "__all__ lists a name twice"
    assert set(names) <= bound(tree), f"listed but missing: {sorted(set(names) - bound(tree))}"
    if path.name != "__main__.py":
        assert defined(tree) <= set(names), f"public but not listed: {sorted(defined(tree) - set(names))}"


@pytest.mark.parametrize("path", python_files(*LAYERS), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_its_job(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), "no module docstring"
