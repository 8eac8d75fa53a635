"""The device's processes as the kernel shows them: which they are, what memory they hold."""

from __future__ import annotations

from pathlib import Path

from edge_runtime.gate.children import CHILDREN

__all__ = ["family", "resident"]


def family(pid: int) -> dict[str, int]:
    """Name -> process, of the gate `pid` and its children, "eye" and "reader". Raises OSError where one has ended."""
    names, found = {module: name for name, module in CHILDREN.items()}, {"gate": pid}
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in file.read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
            found[next((name for module, name in names.items() if module in words), "eye")] = int(child)
    return found


def resident(pid: int) -> dict[str, float]:
    """Memory of a process in MB: rss, pss, and own, pages of no file, whoever else runs; empty without smaps_rollup.

    Raises:
        OSError: It has ended.
    """
    path = Path(f"/proc/{pid}/smaps_rollup")
    if not path.is_file():
        return {}
    lines = [*path.read_text().splitlines()[1:], *Path(f"/proc/{pid}/status").read_text().splitlines()]
    fields = dict(line.split(":", 1) for line in lines)
    names = {"rss": "Rss", "pss": "Pss", "own": "RssAnon"}
    return {name: int(fields[field].split()[0]) / 1024 for name, field in names.items() if field in fields}
