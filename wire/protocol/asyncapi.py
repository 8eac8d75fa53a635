"""Writes docs/asyncapi.json: every topic with its messages, as an AsyncAPI 3.0 document, from the table of topics.

TOPICS (who writes, QoS, retained, fields and what each is a function of) --.
veilsight.proto's descriptors (types) --------------------------------------+--> channels, operations, messages
_TYPES (types of the fields of JSON documents) -----------------------------'

python -m wire.protocol.asyncapi --write docs/asyncapi.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from wire import __version__
from wire.files import write_durably
from wire.protocol.contour import COUNTS, ILLUSTRATION, POSTURES
from wire.protocol.json_form import PROTOBUF
from wire.protocol.topics import PREFIX, TOPICS, TopicRow

__all__ = ["asyncapi", "main"]

_ID: Mapping[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
_HASH: Mapping[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_COUNT: Mapping[str, Any] = {"type": "integer", "minimum": 0}
_TEXT: Mapping[str, Any] = {"type": "string"}
_CHANCE: Mapping[str, Any] = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_OUTLINE: Mapping[str, Any] = {"type": "string", "contentEncoding": "base64"}
_TYPES: Mapping[str, Mapping[str, Any]] = {
    "schema": {"type": "integer"},
    "count": _COUNT,
    "status": {"enum": ["online", "offline"]},
    "reason": _TEXT,
    "boot_id": _ID,
    "model_id": _ID,
    "started_at": _COUNT,
    "slot_s": {"type": "number", "exclusiveMinimum": 0},
    "public_key": _HASH,
    "software": _TEXT,
    "certificate": _HASH,
    "profile": _TEXT,
    "blind": {"type": "boolean"},
    "watching": {"type": "boolean"},
    "time_s": {**_COUNT, "multipleOf": 60},
    **dict.fromkeys(("open", "ids", "severities", "raised_s", "sentences"), _TEXT),  # lists: docs/subscribe.md
    "cameras": _COUNT,
    "camera": _TEXT,
    "number": {"type": "integer", "minimum": 1},
    "signature": {"type": "string", "pattern": "^[0-9a-f]{128}$"},
    "slot": _COUNT,
    "text": {"const": ILLUSTRATION},
    "figures": _COUNT,
    "unsure": {"type": "boolean"},
    **dict.fromkeys((*POSTURES, *COUNTS, "moving", "right"), _CHANCE),
    "first": _OUTLINE,
    "second": _OUTLINE,
}
_COMMAND = ("schema", "camera", "number", "profile", "signature")  # an operator's: it says nothing of a scene
_INTEGERS = (FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_FIXED64)
_WRITERS = {"edge": "the device", "cloud": "the bridge", "operator": "the operator"}
_PROTOBUF = "application/vnd.google.protobuf"


def asyncapi() -> dict[str, Any]:
    """Make the document."""
    names = {name: name.replace("/", "_") for name in TOPICS}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Veilsight",
            "version": __version__,
            "description": "What devices, bridges and operators publish over MQTT. Signatures are Ed25519, as "
            "docs/subscribe.md says. `x-source` of a field says what it is a function of: no field that a device "
            "publishes depends on the scene but through the noised tensor. Messages of protobuf are described by their "
            "JSON form (python -m wire.protocol.json_form); on the wire they are Signed{body, signature} of "
            "wire/protocol/veilsight.proto. No message has a trace id, since everybody can make it: the first 32 hex "
            "digits of SHA-256 over site/camera/boot_id/slot, boot_id and slot in 16 hex digits each; of a verdict, "
            "the slot is last_slot.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {names[name]: _channel(name, row) for name, row in TOPICS.items()},
        "operations": {f"receive_{names[name]}": _operation(names[name], row) for name, row in TOPICS.items()},
        "components": {"messages": {names[name]: _message(name, row) for name, row in TOPICS.items()}},
    }


def _channel(name: str, row: TopicRow) -> dict[str, Any]:
    site = "`bridges`" if name == "bridge" else "The site, such as a ward."
    camera = "The bridge's name, from its public key." if name == "bridge" else "The camera's name in its site."
    key = name.replace("/", "_")
    return {
        "address": f"{PREFIX}/{{site}}/{{camera}}/{name}",
        "description": f"Written by {_WRITERS[row.writer]}. {row.holds}",
        "messages": {key: {"$ref": f"#/components/messages/{key}"}},
        "parameters": {"site": {"description": site}, "camera": {"description": camera}},
    }


def _operation(key: str, row: TopicRow) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{key}"},
        "messages": [{"$ref": f"#/channels/{key}/messages/{key}"}],
        "bindings": {"mqtt": {"qos": row.qos, "retain": row.retain, "bindingVersion": "0.2.0"}},
    }


def _message(name: str, row: TopicRow) -> dict[str, Any]:
    schema = _of_protobuf(name, row) if name in PROTOBUF else _of_json(name, row)
    kind = _PROTOBUF if name in PROTOBUF else "application/json"
    return {"name": name, "title": row.holds, "contentType": kind, "payload": schema}


def _of_protobuf(name: str, row: TopicRow) -> dict[str, Any]:
    """The schema of the JSON form of a protobuf message: of the fields that the topic has, as the table says."""
    fields = PROTOBUF[name][1]().DESCRIPTOR.fields
    found = {field.name: _with_source(_type(field), field.name, row) for field in fields if field.name in row.fields}
    always = [field.name for field in fields if field.name in row.fields and not field.is_repeated]
    optional = ("ood_p_value", "unsure", "late", "id", "first_id", "severity", "device_time_s", "sentence")
    needed = [each for each in always if each not in optional]
    return {"type": "object", "properties": found, "required": needed, "additionalProperties": False}


def _type(field: Any) -> dict[str, Any]:
    """The schema of a protobuf field in the JSON form."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "array", "items": {"type": "integer", "minimum": -(1 << 15), "maximum": (1 << 15) - 1}}
    if field.type == FieldDescriptor.TYPE_FIXED64 and field.name.endswith("_id"):
        return dict(_ID)
    one: dict[str, Any] = {"type": "number"}
    if field.type in _INTEGERS:
        one = dict(_COUNT)
    elif field.type == FieldDescriptor.TYPE_BOOL:
        one = {"type": "boolean"}
    elif field.type == FieldDescriptor.TYPE_STRING:
        one = {"type": "string"}
    return {"type": "array", "items": one} if field.is_repeated else one


def _of_json(name: str, row: TopicRow) -> dict[str, Any]:
    """The schema of a JSON document: the fields of the table, with their types."""
    if "*" in row.fields:
        return {"type": "object", "x-source": row.fields["*"].value, "required": ["version"]}
    fields = [*row.fields] or [*_COMMAND]
    found = {field: _with_source(dict(_TYPES.get(field, {})), field, row) for field in fields}
    return {"type": "object", "properties": found, "required": ["schema", "signature"], "additionalProperties": False}


def _with_source(schema: dict[str, Any], field: str, row: TopicRow) -> dict[str, Any]:
    return {**schema, "x-source": row.fields[field].value} if field in row.fields else schema


def main(argv: Sequence[str] | None = None) -> int:
    """Print the document, or write it; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m wire.protocol.asyncapi", description="The topics as an AsyncAPI 3.0 document."
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write it there (default: print it)")
    options = parser.parse_args(argv)
    text = json.dumps(asyncapi(), indent=1, ensure_ascii=False) + "\n"
    if options.write is None:
        print(text, end="")
        return 0
    try:
        write_durably(options.write, text.encode(), mode=0o644)
    except OSError as error:
        print(f"wire.protocol.asyncapi: {options.write}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
