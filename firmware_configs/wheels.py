"""The Python packages of a device: exact versions, the one wheel of each for its Python, and what is in that wheel.

constraints/edge-py310.txt (versions) + constraints/edge-aarch64-hashes.txt (hashes) --chosen--> wheels
wheels --fetch (pip, checked by hash)--> a folder --contents (checked by hash again)--> files below site-packages
"""

from __future__ import annotations

import email
import hashlib
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wire.errors import ConfigError

__all__ = ["PYTHONS", "Wheel", "chosen", "contents", "fetch", "licence", "pins"]

PYTHONS = ("3.10", "3.11", "3.12")
"""Versions of Python that every pinned package has a wheel for: JetPack 6, Debian 12, JetPack 7."""

_FOLDER = Path(__file__).resolve().parent.parent / "constraints"
_PINS, _HASHES = _FOLDER / "edge-py310.txt", _FOLDER / "edge-aarch64-hashes.txt"
_LINE = re.compile(r"([0-9a-f]{64})  (([A-Za-z0-9_.]+)-([A-Za-z0-9_.!+]+)-([^-]+)-([^-]+)-[^-]+\.whl)")
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
# onnxruntime asks for these, and reads them in tools that no device runs.
_UNUSED = ("coloredlogs", "humanfriendly", "mpmath", "sympy")


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel: the package, its version, the name of the file and its SHA-256."""

    name: str
    version: str
    file: str
    sha256: str


def pins() -> list[str]:
    """The packages of a device, as "name==version". Raises ConfigError where the constraints are missing."""
    return [pin for pin in _lines(_PINS) if pin.partition("==")[0] not in _UNUSED]


def chosen(wanted: Sequence[str], python: str) -> list[Wheel]:
    """Choose the wheel of each package that pip would take for `python` on aarch64.

    Args:
        wanted: Packages as "name==version".
        python: One of PYTHONS.

    Raises:
        ConfigError: No wheel is known for it, with its hash.
    """
    if python not in PYTHONS:
        raise ConfigError(f"--python {python!r} is not one that we have wheels for; choose one of {', '.join(PYTHONS)}")
    known = [_known(line) for line in _lines(_HASHES)]
    found = []
    for pin in wanted:
        name, _, version = pin.partition("==")
        fitting = [
            (_preference(line[5], line[6], int(python[2:])), line[2], line[1])
            for line in known
            if _normal(line[3]) == _normal(name) and line[4] == version
        ]
        rank, file, sha256 = max(fitting, default=(-1, "", ""))
        if rank < 0:
            raise ConfigError(f"{_HASHES}: no hash of {pin} for {python}; make the file again, as its first lines say")
        found.append(Wheel(_normal(name), version, file, sha256))
    return found


def fetch(wheels: Sequence[Wheel], python: str, folder: Path) -> None:
    """Download those of `wheels` that `folder` lacks, by pip, which takes no file but these.

    Raises:
        ConfigError: pip fails: no package index can be reached, or it has other files.
    """
    missing = [wheel for wheel in wheels if not (folder / wheel.file).is_file()]
    if not missing:
        return
    lines = [f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in missing]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.writelines(lines)
        requirements.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--require-hashes", *(f"--platform={name}" for name in _PLATFORMS)]
        command += [f"--python-version={python}", f"--dest={folder}", f"--requirement={requirements.name}"]
        result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    still = [wheel.file for wheel in missing if not (folder / wheel.file).is_file()]
    if result.returncode or still:
        said = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        raise ConfigError(
            f"--wheels {folder}: pip did not download {', '.join(still) or 'all'} "
            f"({said[-1] if said else f'exit status {result.returncode}'}); is a package index within reach?"
        )


def contents(wheel: Wheel, folder: Path) -> dict[str, bytes]:
    """Read a wheel: path below site-packages -> bytes. What runs is what was hashed: the file is read once.

    Raises:
        ConfigError: It is missing, has another hash, or has a file that is not for site-packages.
    """
    file = folder / wheel.file
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file}: {error.strerror}; run python -m firmware_configs.debian without --offline"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != wheel.sha256:
        raise ConfigError(f"{file} has the SHA-256 {digest}, not {wheel.sha256}; delete it, and it is downloaded again")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
        names = [name for name in names if "__pycache__" not in name]  # compiled anew on the device
        for name in names:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or path.parts[0].endswith(".data"):
                raise ConfigError(f"{file}: {name!r} is not for site-packages; such a wheel is not supported")
        return {name: archive.read(name) for name in names}


def licence(files: dict[str, bytes]) -> tuple[str, str]:
    """What a wheel says of its licence: (an SPDX expression or "", a name or "")."""
    metadata = next(data for path, data in files.items() if path.endswith(".dist-info/METADATA"))
    fields = email.message_from_bytes(metadata)
    lines = str(fields.get("License", "")).strip().splitlines()
    named = [each.rpartition(" :: ")[2] for each in fields.get_all("Classifier", []) if each.startswith("License ::")]
    short = lines[0] if len(lines) == 1 and not lines[0].startswith("Copyright") else ""
    return str(fields.get("License-Expression", "")), short or (named[0] if named else "")


def _known(line: str) -> re.Match[str]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ConfigError(f"{_HASHES}: {line!r} is no line of sha256sum for a wheel; make the file again")
    return found


def _preference(tag: str, abi: str, minor: int) -> int:
    """Higher for a wheel that pip prefers on CPython 3.`minor`; -1 where it does not fit."""
    if tag == f"cp3{minor}":
        return 100
    if abi == "abi3" and int(tag[3:]) <= minor:
        return int(tag[3:])
    return 0 if "py3" in tag.split(".") else -1


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise ConfigError(f"{file} is missing; run this from a checkout of the project")
    lines = (line.strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
