"""Device keys: make, load, sign, verify (Ed25519, RFC 8032, by the `cryptography` package)."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wire.errors import DeviceKeyError

__all__ = ["SIGNATURE_BYTES", "DeviceKey", "PublicKey"]

SIGNATURE_BYTES = 64
_SEED_BYTES = 32
_HEX = re.compile(r"[0-9a-fA-F]{64}")


class PublicKey:
    """The half of a device's key that the cloud holds."""

    __slots__ = ("_key", "hex")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != _SEED_BYTES:
            raise DeviceKeyError(
                f"public key: {len(raw)} bytes, expected {_SEED_BYTES}; copy the device's hex line whole"
            )
        self._key = Ed25519PublicKey.from_public_bytes(raw)
        self.hex = raw.hex()

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read a key from 64 hex digits, or from the path of a file that holds them. Raises DeviceKeyError."""
        candidate = text.strip()
        path = Path(candidate)
        if not _HEX.fullmatch(candidate) and path.is_file():
            candidate = path.read_text().strip()
        try:
            return cls(bytes.fromhex(candidate))
        except ValueError as error:
            raise DeviceKeyError(
                f"public key {text!r}: neither 64 hex digits nor a file that holds them; "
                "the device writes its own beside its key as `<key>.pub`"
            ) from error

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Return whether `signature` (64 bytes) is this key's over exactly `data`."""
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.hex == self.hex

    def __hash__(self) -> int:
        return hash(self.hex)

    def __repr__(self) -> str:
        return f"PublicKey({self.hex[:8]}...)"


class DeviceKey:
    """A device's signing key. Its `repr` never shows the secret."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != _SEED_BYTES:
            raise DeviceKeyError(
                f"device key: {len(seed)} bytes, expected {_SEED_BYTES}; delete the file to make a new key"
            )
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = PublicKey(self._key.public_key().public_bytes_raw())

    @classmethod
    def load_or_make(cls, path: Path | str) -> DeviceKey:
        """Read the 32-byte key at `path` (mode 0600), or make one with its public half in `<path>.pub`.

        Raises:
            DeviceKeyError: The file is malformed, or readable by group or others.
        """
        file = Path(path)
        if not file.exists():
            return cls._make(file)
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            raise DeviceKeyError(f"device key {file}: mode {mode:04o} lets others read it; chmod 600 {file}")
        return cls(file.read_bytes())

    @classmethod
    def _make(cls, file: Path) -> DeviceKey:
        file.parent.mkdir(parents=True, exist_ok=True)
        key = cls(os.urandom(_SEED_BYTES))
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(key._key.private_bytes_raw())
            out.flush()
            os.fsync(out.fileno())
        Path(f"{file}.pub").write_text(key.public.hex + "\n")
        return key

    def sign(self, data: bytes) -> bytes:
        """Sign exactly `data`; returns the Ed25519 signature of 64 bytes."""
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"DeviceKey(public={self.public.hex[:8]}..., secret=***)"
