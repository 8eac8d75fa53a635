"""The state of a device: a signed JSON document, retained by the broker.

    fields --seal_state--> payload --open_state(payload, public key, site, camera)--> State

`count` grows with every state of a start, so that an old one cannot be put over a newer one. The Last Will is signed
before the connection is made, and has count 0: it says no more than "offline, connection lost", and a broker can
publish it at any time. So a reader takes it for a hint, which the next live message overrides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wire.errors import MessageError
from wire.protocol.document import read_document, seal_document
from wire.protocol.keys import DeviceKey, PublicKey

__all__ = ["State", "open_state", "seal_state"]

_IDS = ("boot_id", "model_id")  # of 64 bits, which JSON's readers round: written as 16 hex digits
_ID, _HASH = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9a-f]{64}")
_KINDS: Mapping[str, type] = {
    "status": str,
    "reason": str,
    "boot_id": str,
    "count": int,
    "certificate": str,
    "blind": bool,
    "watching": bool,
}
_FORMER = ("status", "boot_id")


@dataclass(frozen=True, slots=True)
class State:
    """A state that was verified.

    Attributes:
        online: Whether the device says that it is.
        reason: Why it is offline.
        boot_id: Names the device's start.
        count: States of this start before this one, and one; 0 is the Last Will.
        certificate: sha256, hex, of the certificate that the device publishes.
        blind: A budget is spent, and releases are noise alone.
        watching: Whether the eye has answered; False: nothing is seen, whatever verdicts say.
        fields: All of them; ids as integers.
    """

    online: bool
    reason: str
    boot_id: int
    count: int
    certificate: str
    blind: bool
    watching: bool
    fields: Mapping[str, Any]


def seal_state(fields: Mapping[str, Any], key: DeviceKey, site: str, camera: str) -> bytes:
    """Sign the fields of `wire/protocol/topics.py`, ids as integers; returns the payload. Raises MessageError."""
    ids = {name: f"{fields[name]:016x}" for name in _IDS if name in fields}
    return seal_document("state", {**fields, **ids}, key, site, camera)


def open_state(payload: bytes, public: PublicKey, site: str, camera: str) -> State:
    """Validate and read the state of a camera's device. Raises MessageError."""
    document = read_document(payload, _FORMER)
    document.verify("state", public, site, camera)
    found = dict(document.fields)
    wrong = [name for name, kind in _KINDS.items() if type(found.get(name)) is not kind]
    if wrong:
        raise MessageError("malformed", f"{', '.join(wrong)} missing, or of another type")
    for name in _IDS:
        if name in found and not (type(found[name]) is str and _ID.fullmatch(found[name])):
            raise MessageError("malformed", f"{name} is not 16 hex digits")
    found |= {name: int(found[name], 16) for name in _IDS if name in found}
    if found["status"] not in ("online", "offline") or not found["reason"].isprintable():
        raise MessageError("values", "status is neither online nor offline, or reason is not printable")
    if not 0 <= found["count"] < 1 << 63 or not _HASH.fullmatch(found["certificate"]):
        raise MessageError("values", "count is negative or endless, or certificate is no hash")
    if found["count"] == 0 and found["status"] == "online":
        raise MessageError("values", "count is 0, which only the Last Will has")
    return State(
        online=found["status"] == "online",
        reason=found["reason"],
        boot_id=found["boot_id"],
        count=found["count"],
        certificate=found["certificate"],
        blind=found["blind"],
        watching=found["watching"],
        fields=found,
    )
