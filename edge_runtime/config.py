"""The configuration: one TOML file, typed. Unknown keys and wrong types are errors, all of them told at once.

    edge.toml + --source, --engine, --broker --> Config

Relative paths in the file are relative to the file. Secrets are read from files of their own, never written here.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from wire.errors import ConfigError
from wire.topics import topic

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Broker", "Camera", "Config", "Device", "Engine", "Health", "Privacy", "Run", "load_config"]


@dataclass(frozen=True)
class Device:
    """Who this is. key: path of the signing key, made where missing. state_dir: holds the ledger."""

    site: str
    camera: str
    key: str
    state_dir: str


@dataclass(frozen=True)
class Camera:
    """Where frames come from; speed and loop are for files and synthetic scenes. lost_after_s 0: never give up."""

    source: str = field(repr=False)
    speed: float = 1.0
    loop: bool = False
    timeout_s: float = 10.0
    lost_after_s: float = 600.0


@dataclass(frozen=True)
class Engine:
    """The engine folder, and the threads that one encode may use."""

    folder: str
    threads: int = 1


@dataclass(frozen=True)
class Broker:
    """mqtt://host[:port] or mqtts://. required: end with an error where it does not answer within 5 s of the start."""

    url: str
    username: str = ""
    password_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    required: bool = False
    queue: int = 600


@dataclass(frozen=True)
class Privacy:
    """max_releases_per_day: the hard cut-off; 0 for none."""

    max_releases_per_day: int = 0


@dataclass(frozen=True)
class Health:
    """listen: "host:port" or ":port" (loopback) of the local page; "" for none."""

    listen: str = ""


@dataclass(frozen=True)
class Run:
    """windows: end after so many releases; 0 for endless. release_delay_s: from a slot's end to its release."""

    windows: int = 0
    release_delay_s: float = 0.2


@dataclass(frozen=True)
class Config:
    """A whole `edge.toml`."""

    device: Device
    camera: Camera
    engine: Engine
    broker: Broker
    privacy: Privacy
    health: Health
    run: Run


_PATHS = {"device": ("key", "state_dir"), "engine": ("folder",), "broker": ("password_file", "ca", "cert", "key")}
_POSITIVE = ("speed", "threads", "queue", "release_delay_s", "timeout_s")


def load_config(path: Path | str, overrides: Mapping[str, Mapping[str, str]] | None = None) -> Config:
    """Read `path`; `overrides` (section -> key -> value) come from the command line. Raises ConfigError with all faults."""
    file = Path(path)
    try:
        found = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: {error}; docs/ has an example of this file") from error
    sections = get_type_hints(Config)
    faults = [f"[{name}] is no section; {_known(name, sections)}" for name in found if name not in sections]
    parts: dict[str, Any] = {}
    for name, kind in sections.items():
        table = found.get(name, {})
        if not isinstance(table, dict):
            faults.append(f"{name} is {table!r}; expected a section [{name}]")
            continue
        merged = {**_rooted(name, table, file.parent), **(overrides or {}).get(name, {})}
        wrong = list(_faults(name, kind, merged))
        faults += wrong
        parts[name] = None if wrong else kind(**merged)
    if faults:
        raise ConfigError("\n".join(f"{file}: {fault}" for fault in faults))
    config = Config(**parts)
    topic(config.device.site, config.device.camera, "state")
    return config


def _known(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def _faults(section: str, kind: type[Any], table: Mapping[str, Any]) -> Iterator[str]:
    """What is unknown, missing, or not a value of its key's type and range."""
    types = get_type_hints(kind)
    for item in fields(kind):
        if item.default is MISSING and item.name not in table:
            yield f"[{section}] {item.name} is missing"
    for key, value in table.items():
        want = types.get(key)
        if want is None:
            yield f"[{section}] {key} is unknown; {_known(key, types)}"
        elif type(value) is not want and not (want is float and type(value) is int):
            yield f"[{section}] {key} is {value!r}; expected {want.__name__}"
        elif want in (int, float) and not (0 <= value < math.inf and (value > 0 or key not in _POSITIVE)):
            yield f"[{section}] {key} is {value}; expected a {'positive number' if key in _POSITIVE else 'number >= 0'}"


def _rooted(section: str, table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The section with its paths made relative to the file's folder."""
    made = dict(table)
    keys = [key for key in _PATHS.get(section, ()) if made.get(key) and isinstance(made[key], str)]
    if section == "camera" and isinstance(made.get("source"), str) and (folder / made["source"]).is_file():
        keys = ["source"]
    return {**made, **{key: str(folder / made[key]) for key in keys}}
