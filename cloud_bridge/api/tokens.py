"""Who may ask the API, and for what: one file of tokens, of which it holds hashes alone.

    token (32 random bytes, shown once) --SHA-256--> the file: name, role, sites, until when

A token is long and random, so a plain hash keeps it: nothing can be guessed. The file is read again when it changes, so
a token that is taken out ends at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wire.errors import ConfigError
from wire.files import read_trusted, write_durably

__all__ = ["ROLES", "Caller", "TokenFile", "add_token", "remove_token"]

ROLES = ("viewer", "nurse", "operator", "admin")
"""Each may do what those before it may: read; acknowledge, comment; export, command; delete, see the audit log."""

ANY_SITE = "*"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}")
_SITE = re.compile(r"\*|[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_PREFIX = "vs_"
_MOST = 10_000
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever bears a token.

    Attributes:
        name: For the audit log.
        role: One of ROLES.
        sites: Whose cameras exist for them; "*": all.
        until_s: When the token ends, seconds since 1970.
    """

    name: str
    role: str
    sites: frozenset[str]
    until_s: float

    def may(self, role: str) -> bool:
        """Whether they may do what `role` may."""
        return ROLES.index(self.role) >= ROLES.index(role)

    @property
    def sees_all(self) -> bool:
        """Whether every site is theirs."""
        return ANY_SITE in self.sites

    def sees(self, camera: str) -> bool:
        """Whether a camera, `site/camera`, is of one of their sites."""
        return self.sees_all or camera.partition("/")[0] in self.sites


class TokenFile:
    """The tokens of a file. Any thread may ask."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """Read the file. Raises ConfigError where it cannot be believed."""
        self._path, self._clock = path, clock
        self._looked_s, self._stamp = 0.0, _stamp(path)
        self._callers = _read(path)

    def caller(self, token: str) -> Caller | None:
        """Return whose token this is; None: nobody's, or it has ended."""
        self._look_again()
        found = self._callers.get(_hash(token))
        return found if found is not None and self._clock() < found.until_s else None

    def _look_again(self) -> None:
        """Read the file where it has changed. One that cannot be believed any more lets nobody in."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_S:
            return
        self._looked_s = now_s
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        try:
            callers = _read(self._path)
        except ConfigError:
            callers = {}
        self._stamp, self._callers = stamp, callers


def add_token(path: Path, name: str, role: str, sites: list[str], days: float) -> str:
    """Add a token to a file, which is made where there is none; returns the token, which is kept nowhere.

    Raises:
        ConfigError: A value or the file cannot be used, or the name has a token.
    """
    rows = _rows(path) if path.exists() else []
    if any(row.get("name") == name for row in rows):
        raise ConfigError(f"{path}: {name} has a token; remove it first")
    token = _PREFIX + secrets.token_urlsafe(32)
    row = {"name": name, "role": role, "sites": sites, "until_s": time.time() + days * 86_400.0, "sha256": _hash(token)}
    _caller(row)
    _write(path, [*rows, row])
    return token


def remove_token(path: Path, name: str) -> None:
    """Take the token of a name out of a file. Raises ConfigError where it has none."""
    rows = _rows(path)
    left = [row for row in rows if row.get("name") != name]
    if len(left) == len(rows):
        raise ConfigError(f"{path}: {name!r} has no token there")
    _write(path, left)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_ino)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    try:
        write_durably(path, (json.dumps({"tokens": rows}, indent=1) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror})") from error


def _rows(path: Path) -> list[dict[str, Any]]:
    cure = "make one with python -m cloud_bridge.api --add NAME"
    try:
        found = json.loads(read_trusted(path))
        rows = found["tokens"]
        if not isinstance(rows, list) or len(rows) > _MOST or not all(isinstance(row, dict) for row in rows):
            raise ValueError("tokens is no list of tables")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {cure}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a file of tokens ({error!r}); {cure}") from error
    return rows


def _read(path: Path) -> dict[str, Caller]:
    return {str(row.get("sha256")): _caller(row) for row in _rows(path)}


def _caller(row: Mapping[str, Any]) -> Caller:
    """Read a row. Raises ConfigError."""
    name, role, sites, until_s = (row.get(key) for key in ("name", "role", "sites", "until_s"))
    if type(name) is not str or not _NAME.fullmatch(name):
        raise ConfigError(f"the name of a token is {name!r}; letters, digits and _ . @ - are allowed, at most 63")
    if role not in ROLES:
        raise ConfigError(f"token of {name}: role is {role!r}; there are {', '.join(ROLES)}")
    if not isinstance(sites, list) or not sites or not all(type(s) is str and _SITE.fullmatch(s) for s in sites):
        raise ConfigError(f"token of {name}: sites are {sites!r}; name at least one, or '*' for all")
    if type(until_s) not in (int, float) or not 0 <= float(until_s or 0) < 1e11:
        raise ConfigError(f"token of {name}: until_s is {until_s!r}; seconds since 1970 are expected")
    if not re.fullmatch(r"[0-9a-f]{64}", str(row.get("sha256"))):
        raise ConfigError(f"token of {name}: sha256 is no hash")
    return Caller(name, str(role), frozenset(sites), float(until_s or 0))
