"""The signature of an engine folder: the number of the release, and the signer's Ed25519 over it and manifest.json.

manifest.json (the hash of every other file) + release --signer's key--> manifest.sig: one line, "7 <128 hex digits>"
"""

from __future__ import annotations

import re
from pathlib import Path

from wire.errors import ManifestError
from wire.files import write_whole
from wire.protocol.keys import DeviceKey, PublicKey

__all__ = ["SIGNATURE", "check_signature", "sign_manifest", "signed_release"]

SIGNATURE = "manifest.sig"
"""Name of the file, beside manifest.json."""

_MANIFEST = "manifest.json"
_SIGNED_AS = b"veilsight engine manifest\n"  # so that no signature of a message can pass for one of a manifest
_FORM = re.compile(r"([1-9][0-9]{0,17}) ([0-9a-f]{128})\n")


def sign_manifest(folder: Path | str, key: DeviceKey, release: int = 1) -> None:
    """Write `manifest.sig`, which says that this folder, whose every hash is in manifest.json, is `release`.

    Args:
        folder: The engine folder.
        key: The signer's.
        release: From 1 to 10^18 - 1, larger than that of every engine before: devices refuse to go back.
    """
    if not 0 < release < 10**18:
        raise ManifestError(f"release is {release}; expected 1 to 10^18 - 1")
    data = (Path(folder) / _MANIFEST).read_bytes()
    write_whole(Path(folder) / SIGNATURE, f"{release} {key.sign(_signed_bytes(data, release)).hex()}\n")


def signed_release(folder: Path | str, signer: PublicKey) -> int:
    """The release that `signer` says an engine folder is. Raises ManifestError where the signature does not hold."""
    try:
        return check_signature((Path(folder) / _MANIFEST).read_bytes(), Path(folder) / SIGNATURE, signer)
    except OSError as error:
        raise ManifestError(f"{error.filename}: {error.strerror}; unpack its bundle again") from error


def _signed_bytes(data: bytes, release: int) -> bytes:
    return _SIGNED_AS + b"%d\n" % release + data


def check_signature(data: bytes, file: Path, signer: PublicKey) -> int:
    """Check that the signature in `file` is the signer's over `data`; returns the release that it names."""
    cure = f"use the bundle that {signer!r} signed (python -m export.bundle makes one)"
    try:
        found = _FORM.fullmatch(file.read_text())
    except (OSError, ValueError) as error:
        raise ManifestError(f"{file}: no signature can be read ({error}); {cure}") from error
    if found is None:
        raise ManifestError(f"{file}: no signature can be read (a release and 128 hex digits are expected); {cure}")
    release = int(found[1])
    if not signer.verify(bytes.fromhex(found[2]), _signed_bytes(data, release)):
        raise ManifestError(f"{file}: not the signature of {signer!r} over this {_MANIFEST}; {cure}")
    return release
