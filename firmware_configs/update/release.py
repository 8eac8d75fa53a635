"""What a bundle says of itself beside RAUC's manifest: which release it is, and below which none may run any more.

    release.json --bounded, typed--> Release        the mounted bundle --exactly these files--> Release, or UpdateError

RAUC has verified the signature over all of it before this is read.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from wire.bounded_json import read_json
from wire.errors import UpdateError

__all__ = ["IMAGE", "MOST_BYTES", "NOTE", "Release", "read_bundle"]

IMAGE, NOTE = "rootfs.ext4", "release.json"
_MANIFEST = "manifest.raucm"
MOST_BYTES = 64 << 30  # of an image
_SMALL = 4096
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Release:
    """A release of the whole system.

    Attributes:
        release: Its number, larger than that of every one before.
        floor: The lowest release that may run once this one is kept; at most `release`.
        size: Of the image, bytes.
        sha256: Of the image, hex.
    """

    release: int
    floor: int
    size: int
    sha256: str

    def __post_init__(self) -> None:
        if not (type(self.release) is type(self.floor) is type(self.size) is int and type(self.sha256) is str):
            raise UpdateError(
                f"{NOTE}: a field is not of its type; make the bundle with firmware_configs.update.bundle"
            )
        if not 0 < self.release < 10**18:
            raise UpdateError(f"{NOTE}: release is {self.release}; expected 1 to 10^18 - 1")
        if not 0 <= self.floor <= self.release:
            raise UpdateError(f"{NOTE}: floor is {self.floor}; expected 0 to the release, {self.release}")
        if not 0 < self.size <= MOST_BYTES:
            raise UpdateError(f"{NOTE}: size is {self.size}; expected 1 to {MOST_BYTES} bytes")
        if not _HEX.fullmatch(self.sha256):
            raise UpdateError(f"{NOTE}: sha256 is {self.sha256[:80]!r}; expected 64 hex digits")

    def to_json(self) -> str:
        """The text of release.json."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, data: bytes) -> Release:
        """Read release.json. Raises UpdateError."""
        try:
            return cls(**read_json(data, _SMALL, depth=1, values=8))
        except (ValueError, TypeError) as error:
            raise UpdateError(
                f"{NOTE} is not ours ({error}); make the bundle with firmware_configs.update.bundle"
            ) from (error)


def read_bundle(folder: Path, digest: str) -> Release:
    """Read the mounted content of a bundle.

    Args:
        folder: Where RAUC mounted it.
        digest: SHA-256 of the image as RAUC's manifest has it, hex.

    Raises:
        UpdateError: It holds another file than its image and its notes (a hook, say), a link, or an image of another
            size or hash than release.json says.
    """
    try:
        kinds = {entry.name: entry.stat(follow_symlinks=False).st_mode for entry in os.scandir(folder)}
        strange = sorted(kinds.keys() - {IMAGE, NOTE, _MANIFEST})
        missing = sorted({IMAGE, NOTE} - kinds.keys())
        odd = sorted(name for name, mode in kinds.items() if not stat.S_ISREG(mode))
        if strange or missing or odd:
            raise UpdateError(
                f"the bundle has {strange or 'nothing'} beside what it must have, lacks {missing or 'nothing'}, and "
                f"{odd or 'nothing'} is no plain file; make it with firmware_configs.update.bundle"
            )
        found = Release.from_json((folder / NOTE).read_bytes()[: _SMALL + 1])
        size = (folder / IMAGE).stat().st_size
    except OSError as error:
        raise UpdateError(f"{folder}: {error.strerror}; copy the bundle to the device again") from error
    if size != found.size or digest != found.sha256:
        raise UpdateError(
            f"the image has {size} bytes and SHA-256 {digest[:16]}..., {NOTE} says {found.size} and "
            f"{found.sha256[:16]}...; make the bundle with firmware_configs.update.bundle"
        )
    return found
