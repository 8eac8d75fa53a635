"""The Python packages of an image: exact versions, and for each the hashes of the files that pip may take.

constraints/edge-py310.txt (versions) + constraints/edge-aarch64-hashes.txt (hashes) --> lines for pip --require-hashes
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from wire.errors import ConfigError

__all__ = ["BUILD_TOOL", "INSTALLER", "hashed", "pins"]

INSTALLER = "pip==25.3"  # goes into the image as a wheel: the device's own Python has none
BUILD_TOOL = "setuptools==84.2.1"  # makes the wheel of our own package, on the host that flashes

_FOLDER = Path(__file__).resolve().parent.parent / "constraints"
_PINS, _HASHES = _FOLDER / "edge-py310.txt", _FOLDER / "edge-aarch64-hashes.txt"
_LINE = re.compile(r"([0-9a-f]{64})  (([A-Za-z0-9_.]+)-([A-Za-z0-9_.!+]+)-[^-]+-[^-]+-[^-]+\.whl)")


def pins() -> list[str]:
    """The packages of a device, as "name==version". Raises ConfigError where the constraints are missing."""
    return _lines(_PINS)


def hashed(wanted: Iterable[str]) -> str:
    """Requirements, with which pip takes a file only if its hash is known.

    Args:
        wanted: Packages as "name==version".

    Returns:
        A line for each, as `pip install --require-hashes` reads them.

    Raises:
        ConfigError: The hashes of a package are not known.
    """
    known: defaultdict[str, list[str]] = defaultdict(list)
    for line in _lines(_HASHES):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ConfigError(f"{_HASHES}: {line!r} is no line of sha256sum for a wheel; make the file again")
        known[f"{_normal(found[3])}=={found[4]}"].append(found[1])
    made = ""
    for pin in wanted:
        name, _, version = pin.partition("==")
        hashes = known.get(f"{_normal(name)}=={version}")
        if not hashes:
            raise ConfigError(f"{_HASHES}: no hash of {pin}; make the file again, as its first lines say")
        made += " ".join([pin, *(f"--hash=sha256:{digest}" for digest in hashes)]) + "\n"
    return made


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise ConfigError(f"{file} is missing; run this from a checkout of the project")
    lines = (line.strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
