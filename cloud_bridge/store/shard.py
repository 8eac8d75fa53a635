"""Shards: which process reads which cameras. Pure.

    site/camera --lane_of--> 0 .. 65535, for ever --lane % of--> the shard, 1 .. of

A camera's lane follows from its name alone, so every process knows whose it is, and rows that carry it find their shard
whatever the number of shards is later.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from wire.errors import ConfigError

__all__ = ["Shard", "lane_of"]

_LANES = 1 << 16
_MOST = 256
_TEXT = re.compile(r"(any|[1-9]\d{0,2})/([1-9]\d{0,2})")


def lane_of(camera: str) -> int:
    """The lane of `site/camera`: bytes 3 and 4 of the SHA-256 of its name."""
    return int.from_bytes(hashlib.sha256(camera.encode()).digest()[2:4], "big") % _LANES


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `of` shards.

    Attributes:
        number: 1 to `of`; 0: whichever is free.
        of: How many there are.
        fenced: Whether other processes may wait to take its place, so that this one must not publish without it.
    """

    number: int = 1
    of: int = 1
    fenced: bool = False

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "2/8", or "any/8"; "": the only one. Raises ConfigError."""
        if not text:
            return cls()
        match = _TEXT.fullmatch(text)
        number, of = (0 if match[1] == "any" else int(match[1]), int(match[2])) if match else (1, 0)
        if not number <= of <= _MOST:
            raise ConfigError(
                f'shard is {text!r}; write "2/8" for the second of eight, or "any/8" for whichever is free; {_MOST} at '
                "most"
            )
        return cls(number, of, fenced=True)

    def __str__(self) -> str:
        return f"{self.number or 'any'}/{self.of}"

    def has(self, camera: str) -> bool:
        """Whether it reads `site/camera`."""
        return lane_of(camera) % self.of == self.number - 1

    def rows(self, lane: sa.Column[Any]) -> sa.ColumnElement[bool]:
        """The rows of its cameras, by their lane."""
        return (lane % self.of) == self.number - 1 if self.of > 1 else sa.true()

    def following(self, number: int) -> int:
        """The next number that is for this shard: no two of them give the same."""
        return number + 1 + (self.number - 2 - number) % self.of
