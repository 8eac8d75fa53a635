"""The cameras of one box: each has a configuration of its own, and what two of them must not share is refused by name.

    /etc/veilsight/edge.toml, cameras/NAME.toml  -->  what this one and another say  -->  ConfigError, or nothing

Two processes of one key, ledger, page or camera would disturb each other. Cameras of one scene see the same people:
each charges and states what all of them reveal, by the number of cameras that its own configuration names. A gate does
not ask the others, so a wrong number is seen here or nowhere; cameras of another box are not seen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.capture.address import LIVE, backend_of
from edge_runtime.config import Config, load_config
from wire.errors import ConfigError

__all__ = ["FURTHER", "check_box", "clashes", "crowded", "others"]

log = logging.getLogger("veilsight")

FURTHER = "cameras"
"""The folder beside edge.toml that has the configuration of each further camera."""

_ALIKE = ("device_scene_cameras", "engine_folder", "privacy_max_profile", "privacy_adaptive_level")
"""What cameras of one scene must have in common: each counts the others as if they were itself."""


def others(path: Path | str) -> list[Path]:
    """The configurations of the other cameras of the box whose `path` is one."""
    own = Path(path).absolute()
    further = own.parent if own.parent.name == FURTHER else own.parent / FURTHER
    first = [further.parent / "edge.toml"] if own.parent == further else []
    return [file for file in (*first, *sorted(further.glob("*.toml"))) if file != own and file.is_file()]


def check_box(path: Path | str, config: Config) -> list[str]:
    """Compare a camera's configuration with those of the others of its box.

    One that cannot be read is left out, with a warning: its own camera does not start with it.

    Args:
        path: Of `config`.
        config: As it was loaded.

    Returns:
        `site/camera` of each camera of the box, this one first.

    Raises:
        ConfigError: Two cannot run beside each other; the message names both files, and lists every reason.
    """
    found = dict[Path, Config]()
    for file in others(path):
        try:
            found[file] = load_config(file)
        except ConfigError as error:
            log.warning("%s; this camera is not compared with it", error)
    problems = [
        f"{path} and {file}: {text}" for file, other in found.items() for text in clashes(config, other)
    ] + crowded(path, config, found)
    if problems:
        raise ConfigError("\n".join(problems))
    return [f"{each.device_site}/{each.device_camera}" for each in (config, *found.values())]


def clashes(one: Config, other: Config) -> Iterator[str]:
    """Yield why two cameras cannot run on one box."""
    name = (one.device_site, one.device_camera)
    if name == (other.device_site, other.device_camera):
        yield f"[device] both are {'/'.join(name)}; give each camera a name of its own"
    for key in ("device_key", "device_state_dir"):
        value = str(getattr(one, key))
        if Path(value).absolute() == Path(getattr(other, key)).absolute():
            yield f"[device] {key.removeprefix('device_')} is {value!r} in both; a key and a ledger are of one camera"
    if one.health_listen and one.health_listen.rpartition(":")[2] == other.health_listen.rpartition(":")[2]:
        yield f"[health] listen is {one.health_listen!r} in both; give each page a port of its own"
    if backend_of(one.camera_source) in LIVE and _place(one) == _place(other):
        yield "[camera] source is the same; one camera is one process"
    if one.device_scene and _scene(one) == _scene(other):
        yield from _unlike(one, other)


def crowded(path: Path | str, config: Config, found: dict[Path, Config]) -> list[str]:
    """Say which of the box's cameras are of this one's scene, where they are more than it names."""
    if not config.device_scene:
        return []
    members = [str(file) for file, other in found.items() if _scene(other) == _scene(config)]
    if len(members) < config.device_scene_cameras:
        return []
    return [
        f"{path}: [device] scene {config.device_scene!r} has scene_cameras = {config.device_scene_cameras}, but also "
        f"{', '.join(members)} are of it; count every camera that sees these people"
    ]


def _unlike(one: Config, other: Config) -> Iterator[str]:
    for key in _ALIKE:
        values = (getattr(one, key), getattr(other, key))
        if values[0] != values[1]:
            section, _, name = key.partition("_")
            yield (
                f"[{section}] {name} is {values[0]!r} and {values[1]!r}, but both are of scene {one.device_scene!r}; "
                "cameras of one scene count each other, so write the same in all of them"
            )


def _scene(config: Config) -> tuple[str, str]:
    return config.device_site, config.device_scene


def _place(config: Config) -> str:
    source = config.camera_source
    return f"/dev/video{source}" if source.isdecimal() else source
