"""The configurations of a box: the first camera's edge.toml, and one for each further camera.

    --camera-config edge.toml --camera-config door.toml  -->  etc/veilsight/edge.toml, etc/veilsight/cameras/door.toml

The name of a further camera's file is the name of its units: veilsight-edge@door.service. What two cameras of one box
must not share is refused here already, by the same rules as on the device (`edge_runtime/box.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from edge_runtime.box import FURTHER, clashes, crowded
from edge_runtime.config import Config, load_config
from wire.errors import ConfigError
from wire.settings import refuse

__all__ = ["ETC", "check_cameras", "folder_of", "names_of", "place_of"]

ETC = PurePosixPath("/etc/veilsight")
"""The configuration on a device."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


def names_of(files: Sequence[Path]) -> dict[str, Path]:
    """Camera -> its file; the first one is "". Raises ConfigError where a name is none of a unit, or is there twice."""
    if not files:
        return {}
    found = {"": files[0]}
    for file in files[1:]:
        twice = file.stem in found or file.absolute() in {other.absolute() for other in found.values()}
        if twice or not _NAME.fullmatch(file.stem) or file.suffix != ".toml":
            raise ConfigError(
                f"--camera-config {file}: the name of a further camera's file names its units; call it NAME.toml, with "
                "a name of its own of a to z, 0 to 9 and '-'"
            )
        found[file.stem] = file
    return found


def folder_of(camera: str) -> PurePosixPath:
    """The folder of a camera's configuration on the device."""
    return ETC / FURTHER if camera else ETC


def place_of(camera: str) -> str:
    """The file of a camera's configuration, below the root."""
    return str(folder_of(camera) / f"{camera or 'edge'}.toml")[1:]


def check_cameras(files: Mapping[str, Path]) -> None:
    """Refuse cameras that cannot run beside each other. Raises ConfigError, which names the files and every reason."""
    loaded: dict[Path, Config] = {file: load_config(file) for file in files.values()}
    problems, seen = list[str](), dict[Path, Config]()
    for file, config in loaded.items():
        problems += [f"{other} and {file}: {text}" for other, one in seen.items() for text in clashes(one, config)]
        if not problems:
            problems += crowded(file, config, {other: one for other, one in loaded.items() if other != file})
        seen[file] = config
    refuse("--camera-config", dict.fromkeys(problems))
