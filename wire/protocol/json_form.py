"""The JSON form of every message, beside protobuf: what a program gets that reads JSON alone.

    mosquitto_sub -t 'veilsight/v1/#' -q 1 -F '%t %x' | python -m wire.protocol.json_form --key site/camera=HEX

A line of JSON for each message: `topic`, `signed` (whether one of the given keys has signed it; null: no key was given
for it), and `message`. Ids of 64 bits are 16 hex digits, z is a list of numbers, fields have the names of
`veilsight.proto`. What is no message of ours, or is longer than any, gives `error` in place of `message`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from wire.bounded_json import read_json
from wire.errors import ConfigError, MessageError, VeilsightError
from wire.privacy.certificate import MAX_CERTIFICATE
from wire.protocol import veilsight_pb2 as pb
from wire.protocol.document import read_document
from wire.protocol.keys import PublicKey
from wire.protocol.message import MAX_PAYLOAD
from wire.protocol.topics import BRIDGES, TOPICS, parse_topic, signed_context

__all__ = ["PROTOBUF", "json_form", "main"]

PROTOBUF: Mapping[str, tuple[str, Callable[[], Message]]] = {
    "features": ("features", pb.Features),
    "verdict/edge": ("verdict", pb.Verdict),
    "verdict/cloud": ("verdict", pb.Verdict),
    "alert": ("alert", pb.Alert),
}
"""Topic -> what is signed (`kind`), and the body's type, of the topics whose messages are protobuf."""

_DEPTH, _VALUES = 8, 4000
_LONGEST_LINE = 2 * MAX_CERTIFICATE + 400


def json_form(topic: str, payload: bytes, keys: Mapping[str, PublicKey]) -> dict[str, Any]:
    """Return the JSON form of a message.

    Args:
        topic: As it came.
        payload: Likewise.
        keys: `site/camera` -> the device's key; "" -> the bridge's; those that are missing verify nothing.

    Raises:
        MessageError: It is no message of ours.
    """
    parsed = parse_topic(topic)
    if parsed is None:
        raise MessageError("malformed", f"{topic[:100]!r} is no topic of ours")
    site, camera, name = parsed
    writer = TOPICS[name].writer
    key = keys.get("" if writer == "cloud" or site == BRIDGES else f"{site}/{camera}")
    if name in PROTOBUF:
        message, signed = _protobuf(name, payload, key, site, camera)
    elif name == "certificate":
        message, signed = _certificate(payload), None  # the state names its hash
    else:
        message, signed = _document(name, payload, key if writer != "operator" else None, site, camera)
    return {"topic": topic, "signed": signed, "message": message}


def _protobuf(name: str, payload: bytes, key: PublicKey | None, site: str, camera: str) -> tuple[dict[str, Any], Any]:
    if len(payload) > MAX_PAYLOAD:
        raise MessageError("oversized", f"{len(payload)} bytes, at most {MAX_PAYLOAD} are read")
    kind, make = PROTOBUF[name]
    envelope, body = pb.Signed(), make()
    try:
        envelope.ParseFromString(payload)
        body.ParseFromString(envelope.body)
    except DecodeError as error:
        raise MessageError("malformed", "not a protobuf message of ours") from error
    context = signed_context(kind, site, camera)
    signed = None if key is None else key.verify(envelope.signature, context + envelope.body)
    return {field.name: _value(field, value) for field, value in body.ListFields()}, signed


def _value(field: Any, value: Any) -> Any:
    """A field's value as JSON."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        if len(value) % 2:
            raise MessageError("shape", "z has half a number")
        return np.frombuffer(value, "<i2").tolist()
    if field.type == FieldDescriptor.TYPE_FIXED64 and field.name.endswith("_id"):
        return f"{value:016x}"
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return _finite(list(value)) if not isinstance(value, float) else _finite([value])[0]
    return list(value) if not isinstance(value, (str, int, bool)) else value


def _finite(values: Sequence[float]) -> list[float]:
    """Numbers that JSON has. Raises MessageError."""
    if not np.isfinite(values).all():
        raise MessageError("values", "a number without end")
    return [round(float(value), 6) for value in values]


def _document(name: str, payload: bytes, key: PublicKey | None, site: str, camera: str) -> tuple[dict[str, Any], Any]:
    document = read_document(payload)
    if key is None:
        return dict(document.fields), None
    try:
        document.verify(name, key, site, camera)
    except MessageError:
        return dict(document.fields), False
    return dict(document.fields), True


def _certificate(payload: bytes) -> dict[str, Any]:
    try:
        return read_json(payload, MAX_CERTIFICATE, _DEPTH, _VALUES)
    except ValueError as error:
        raise MessageError("malformed", f"not a certificate ({error})") from error


def _keys(given: Sequence[str]) -> dict[str, PublicKey]:
    found = {}
    for each in given:
        name, equals, key = each.rpartition("=")
        if not equals or (name != "bridge" and name.count("/") != 1):
            raise ConfigError(f"--key is {each!r}; write site/camera=HEX, or bridge=HEX")
        found["" if name == "bridge" else name] = PublicKey.parse(key)
    return found


def _lines(source: TextIO, keys: Mapping[str, PublicKey], out: TextIO) -> None:
    while line := source.readline(_LONGEST_LINE):
        topic, _, text = line.strip().rpartition(" ")
        try:
            said = json_form(topic, bytes.fromhex(text), keys)
        except (MessageError, ValueError) as error:
            said = {"topic": topic[:200], "error": str(error)[:200]}
        print(json.dumps(said), file=out, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the JSON form of what `mosquitto_sub` prints; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m wire.protocol.json_form",
        description="Lines of `mosquitto_sub -F '%%t %%x'` on stdin, a line of JSON for each message on stdout.",
    )
    parser.add_argument(
        "--key", action="append", default=[], metavar="NAME=HEX", help="of a device (site/camera=HEX) or bridge=HEX"
    )
    options = parser.parse_args(argv)
    try:
        _lines(sys.stdin, _keys(options.key), sys.stdout)
    except VeilsightError as error:
        print(f"wire.protocol.json_form: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, BrokenPipeError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
