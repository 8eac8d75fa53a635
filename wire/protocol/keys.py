"""Device keys: make, load, sign, verify (Ed25519, RFC 8032, by the `cryptography` package).

DeviceKey.new --save--> <path>.pub, then <path>: where there is a key, its public half is beside it
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wire.errors import DeviceKeyError
from wire.files import make_folder, read_trusted, write_durably

__all__ = ["SIGNATURE_BYTES", "DeviceKey", "KeyAhead", "PublicKey"]

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
        try:
            if not _HEX.fullmatch(candidate) and path.is_file():
                candidate = read_trusted(path).decode().strip()
            return cls(bytes.fromhex(candidate))
        except OSError as error:
            raise DeviceKeyError(f"public key {path}: {error.strerror}") from error
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


class KeyAhead(PublicKey):
    """A public key that can verify one signature ahead, on any thread, and then answers for that one at once.

    What is asked must be equal to what was verified, byte for byte; anything else is verified as usual.
    """

    __slots__ = ("_found", "_pair")

    def __init__(self, public: PublicKey, signature: bytes, data: bytes) -> None:
        """Prepare; nothing is verified yet."""
        self._key, self.hex = public._key, public.hex
        self._pair, self._found = (signature, data), dict[tuple[bytes, bytes], bool]()

    def look(self) -> None:
        """Verify it."""
        self._found[self._pair] = super().verify(*self._pair)

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Do as `PublicKey.verify`."""
        found = self._found.get((signature, data))
        return super().verify(signature, data) if found is None else found


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
    def new(cls) -> DeviceKey:
        """Draw a key from the system's random generator; it is on no disk yet."""
        return cls(os.urandom(_SEED_BYTES))

    @classmethod
    def load(cls, path: Path | str) -> DeviceKey:
        """Read the 32-byte key at `path` (mode 0600), and see that its public half is beside it where that is possible.

        Raises:
            FileNotFoundError: There is none.
            DeviceKeyError: It is malformed, a symbolic link, or readable by group or others.
        """
        file = Path(path)
        try:
            seed, mode = read_trusted(file, _SEED_BYTES), stat.S_IMODE(file.stat().st_mode)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise DeviceKeyError(f"device key {file}: {error.strerror}") from error
        if mode & 0o077:
            raise DeviceKeyError(f"device key {file}: mode {mode:04o} lets others read it; chmod 600 {file}")
        if len(seed) != _SEED_BYTES:
            cure = "restore it; or delete it, and ledger.json in state_dir with it: the next start makes both"
            raise DeviceKeyError(f"device key {file}: {len(seed)} bytes, expected {_SEED_BYTES}; {cure}")
        key = cls(seed)
        with suppress(OSError):  # a key may lie where nothing can be written
            if not key._public_is_there(file):
                key._save_public(file)
        return key

    @classmethod
    def load_or_make(cls, path: Path | str) -> DeviceKey:
        """Do as `load`; where there is no key, make one with its public half in `<path>.pub`. Raises DeviceKeyError."""
        try:
            return cls.load(path)
        except FileNotFoundError:
            key = cls.new()
        try:
            key.save(path)
        except FileExistsError:  # another process made one in the meantime
            key = cls.load(path)
        return key

    def save(self, path: Path | str) -> None:
        """Write the public half to `<path>.pub` and then the key to `path`, mode 0600, both durably and whole.

        Raises:
            FileExistsError: There is a key already; it stays.
            DeviceKeyError: They cannot be written.
        """
        file = Path(path)
        try:
            make_folder(file.parent)
            self._save_public(file)
            write_durably(file, self._key.private_bytes_raw(), replace=False)
        except FileExistsError:
            raise
        except OSError as error:
            raise DeviceKeyError(f"device key {file}: {error.strerror}; make its folder writable") from error

    def _public_is_there(self, file: Path) -> bool:
        try:
            return read_trusted(Path(f"{file}.pub")) == f"{self.public.hex}\n".encode()
        except OSError:
            return False

    def _save_public(self, file: Path) -> None:
        write_durably(Path(f"{file}.pub"), f"{self.public.hex}\n".encode(), mode=0o644)

    def sign(self, data: bytes) -> bytes:
        """Sign exactly `data`; returns the Ed25519 signature of 64 bytes."""
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"DeviceKey(public={self.public.hex[:8]}..., secret=***)"
