"""A signed JSON document: flat, small, and signed over the very bytes that come before its signature.

    {"schema": 2, "status": "online", ..., "signature": "<128 hex digits>"}
    signed: the context of kind, site and camera, then all up to the comma before "signature", then the closing brace

Whoever reads it needs no canonical JSON: cut the signature off, put the brace back, verify, then parse. A document that
came over the network is bounded in bytes, depth and digits before it is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from wire.bounded_json import read_json
from wire.errors import ConfigError, MessageError
from wire.protocol.keys import DeviceKey, PublicKey
from wire.protocol.topics import SCHEMA, signed_context

__all__ = ["MAX_DOCUMENT", "Document", "check_schema", "read_document", "seal_document"]

MAX_DOCUMENT = 1024
"""Upper bound on the bytes of a document; a longer one is refused unread."""

_MAX_FIELDS = 32
_SEALED = re.compile(rb'(\{.*), "signature": "([0-9a-f]{128})"\}', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was read. Believe none of its fields before `verify` has returned.

    Attributes:
        fields: Name -> text, number, bool or None; without the signature.
        body: What was signed, after the context.
        signature: 64 bytes.
    """

    fields: Mapping[str, Any]
    body: bytes
    signature: bytes

    def verify(self, kind: str, public: PublicKey, site: str, camera: str) -> None:
        """Return where `public` has signed it as `kind` of this camera. Raises MessageError."""
        try:
            context = signed_context(kind, site, camera)
        except ConfigError as error:
            raise MessageError("malformed", "it names no camera") from error
        if not public.verify(self.signature, context + self.body):
            raise MessageError("forged", f"not signed by {public} as {kind} of {site}/{camera}")


def seal_document(kind: str, fields: Mapping[str, Any], key: DeviceKey, site: str, camera: str) -> bytes:
    """Sign `fields`, which are flat; returns the payload. Raises MessageError where no reader would take it."""
    body = json.dumps({"schema": SCHEMA, **fields}).encode()
    signature = key.sign(signed_context(kind, site, camera) + body).hex()
    payload = body[:-1] + b', "signature": "' + signature.encode() + b'"}'
    read_document(payload)
    return payload


def read_document(payload: bytes, former: Collection[str] = ()) -> Document:
    """Read a document without believing it.

    Args:
        payload: The document as it came.
        former: Fields by which one of schema 1, which said no schema, is known.

    Raises:
        MessageError: It is too long, no document of ours, or of another schema.
    """
    if len(payload) > MAX_DOCUMENT:
        raise MessageError("oversized", f"{len(payload)} bytes, at most {MAX_DOCUMENT} are read")
    match = _SEALED.fullmatch(payload)
    body = match[1] + b"}" if match else payload
    fields = _parse(body)
    schema = fields.get("schema", 1 if former and fields.keys() >= set(former) else None)
    if type(schema) is not int:
        raise MessageError("malformed", "not a document of ours")
    check_schema(schema)
    if match is None:
        raise MessageError("malformed", "it has no signature at its end")
    return Document(fields, body, bytes.fromhex(match[2].decode()))


def check_schema(schema: int) -> None:
    """Raise a MessageError with the cure where `schema` is not ours."""
    if schema != SCHEMA:
        cure = "update the software that wrote it" if schema < SCHEMA else "update this software"
        raise MessageError("schema", f"schema {schema}, this software reads schema {SCHEMA}; {cure}")


def _parse(body: bytes) -> dict[str, Any]:
    """Parse a flat JSON object."""
    try:
        return read_json(body, MAX_DOCUMENT, depth=1, values=_MAX_FIELDS)
    except ValueError as error:
        raise MessageError("malformed", f"not a flat JSON object ({error})") from error
