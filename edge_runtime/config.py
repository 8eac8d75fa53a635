"""The configuration: one TOML file, typed. Unknown keys and wrong types are errors, all of them told at once.

    edge.toml + --source, --engine, --broker --> Config;   [camera] source is Config.camera_source

Paths in the file are relative to the file. Secrets are read from files of their own, never written here.
"""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from wire.errors import ConfigError
from wire.topics import topic

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Config", "load_config"]


@dataclass(frozen=True)
class Config:
    """A whole `edge.toml`: the field SECTION_KEY is `key` of `[section]`."""
    device_site: str
    device_camera: str
    device_key: str  # path of the signing key, made where missing
    device_state_dir: str  # holds the ledger
    camera_source: str = field(repr=False)  # see camera.py; it may hold a password
    engine_folder: str
    broker_url: str  # mqtt://host[:port] or mqtts://
    camera_speed: float = 1.0  # of files and synthetic scenes
    camera_loop: bool = False  # begin a file anew at its end
    camera_timeout_s: float = 10.0  # patience with an open or a read
    camera_lost_after_s: float = 600.0  # then the process ends with code 4; 0: never
    engine_threads: int = 1
    broker_username: str = ""
    broker_password_file: str = ""
    broker_ca: str = ""
    broker_cert: str = ""
    broker_key: str = ""
    broker_required: bool = False  # end with an error where nobody answers within 5 s of the start
    broker_queue: int = 600  # messages kept while the broker is away
    privacy_max_releases_per_day: int = 0  # the hard cut-off; 0: none
    health_listen: str = ""  # "host:port" or ":port" (loopback) of the local page; "": none
    run_windows: int = 0  # end after so many releases; 0: endless
    run_release_delay_s: float = 0.2  # from a slot's end to its release; at most half a slot


_PATHS = ("device_key", "device_state_dir", "engine_folder", "broker_password_file", "broker_ca", "broker_cert")
_POSITIVE = ("camera_speed", "camera_timeout_s", "engine_threads", "broker_queue", "run_release_delay_s")


def load_config(path: Path | str, flags: Mapping[str, str] | None = None) -> Config:
    """Read `path`; `flags`, field -> value, come from the command line. The ConfigError tells all faults."""
    file = Path(path)
    try:
        found = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: {error}; docs/configuration.md has an example") from error
    tables = {name: table for name, table in found.items() if isinstance(table, dict)}
    given = {f"{section}_{key}": value for section, table in tables.items() for key, value in table.items()}
    faults = [f"{name} stands in no section" for name in found if name not in tables]
    faults += _faults({**given, **(flags or {})})
    if faults:
        raise ConfigError("\n".join(f"{file}: {fault}" for fault in faults))
    for name in (*_PATHS, "broker_key", "camera_source"):
        beside = file.parent / given.get(name, "")
        if given.get(name) and (name != "camera_source" or beside.is_file()):
            given[name] = str(beside)
    config = Config(**{**given, **(flags or {})})
    if "+" in topic(config.device_site, config.device_camera, "state"):
        raise ConfigError(f"{file}: [device] site and camera name one camera; '+' stands for many")
    return config


def _faults(given: Mapping[str, Any]) -> Iterator[str]:
    """What is unknown, missing, or not a value of its key's type and range."""
    types = get_type_hints(Config)
    needed = (item.name for item in fields(Config) if item.default is MISSING)
    yield from (f"{_shown(name)} is missing" for name in needed if name not in given)
    for name, value in given.items():
        want = types.get(name)
        if want is None:
            yield f"{_shown(name)} is unknown; {_nearest(name, types)}"
        elif type(value) is not want and not (want is float and type(value) is int):
            yield f"{_shown(name)} is {value!r}; expected {want.__name__}"
        elif want in (int, float) and not (0 <= value < math.inf and (value or name not in _POSITIVE)):
            yield f"{_shown(name)} is {value}; expected a number {'above' if name in _POSITIVE else 'of at least'} 0"


def _shown(name: str) -> str:
    section, _, key = name.partition("_")
    return f"[{section}] {key}"


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"{'did you mean' if close else 'there are'} {', '.join(map(_shown, close or known))}"
