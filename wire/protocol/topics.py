"""One table of everything that crosses the network: topic, QoS, retain, source of each field.

    veilsight/v1/{site}/{camera}/{name}

`Source` is the privacy statement of a field. A field that a device publishes may depend on the scene through Z alone:
noised data, whose processing reveals nothing more; WATCH is the one exception, and is counted. CONSTANT is fixed by
build and configuration, HARDWARE by the device and its network, COMMAND by its operator; CLOCK follows from the slot's
number (and from what the ledger held at the start). With the adaptive privacy level, what a release costs follows from
past z, and so does the slot from which a budget is spent; without it `flags` and `blind` are functions of the clock.
A disk on which nothing more can be charged counts as a spent budget, and no edge verdict is written while `watching`
does not hold.
What the broker did not get is sent later, the same bytes in the same order; when follows from the connection, the clock
and the number of messages that wait, and from nothing that they say (tests/unit/edge_runtime/test_edge_replay.py).
There are no other topics: tests compare the messages with this table. Where it is turned on, the bridge also describes
its cameras to Home Assistant, outside of them, in constants alone (cloud_bridge/home_assistant.py).

Site and camera are part of what is signed (`signed_context`), though not of the message: what is moved from one
camera's topic to another's is refused as forged.

To add a topic: a row here, a call that publishes it in its writer's package, a reader in another package or in
`examples/`, and a row in docs/subscribe.md. tests/unit/wire/test_wire_topics.py names what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from wire.errors import ConfigError

__all__ = ["BRIDGES", "PREFIX", "SCHEMA", "TOPICS", "Source", "TopicRow", "parse_topic", "signed_context", "topic"]

PREFIX = "veilsight/v1"

BRIDGES = "bridges"
"""In the place of a site, before the name of a bridge; no site may have this name."""

SCHEMA = 2
"""Of every signed message and document; others are refused, with the cure."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


class Source(Enum):
    """What a published field is a function of."""

    Z = "the noised tensor"
    CONSTANT = "build and configuration"
    HARDWARE = "the device and its network"
    CLOCK = "the release clock"
    COMMAND = "the operator's commands"
    WATCH = "whether the eye answered, as a rule says once an hour: at most one bit an hour, from a hostile eye alone"


@dataclass(frozen=True, slots=True)
class TopicRow:
    """One topic.

    Attributes:
        writer: "edge" (edge_runtime), "cloud" (cloud_bridge) or "operator" (wire/protocol/command.py).
        qos: MQTT quality of service.
        retain: Whether the broker keeps the last message for later subscribers.
        holds: What a message holds.
        fields: Field -> what it is a function of; "*" for all.
    """

    writer: str
    qos: int
    retain: bool
    holds: str
    fields: Mapping[str, Source]


_MESSAGE = {
    "schema": Source.CONSTANT,
    "boot_id": Source.HARDWARE,
    "model_id": Source.CONSTANT,
    "time_s": Source.HARDWARE,
}
_VERDICT = {
    **_MESSAGE,
    "first_slot": Source.CLOCK,
    "last_slot": Source.CLOCK,
    "member": Source.CONSTANT,
    "present": Source.HARDWARE,
    "labels": Source.CONSTANT,
    "probabilities": Source.Z,
    "sentence": Source.Z,
    "start_s": Source.CLOCK,
    "end_s": Source.CLOCK,
    "ood_p_value": Source.CONSTANT,  # absent, as are the next four: fields of the cloud's verdict alone
    "unsure": Source.CONSTANT,
    "attributes": Source.CONSTANT,
    "shares": Source.CONSTANT,
    "late": Source.CONSTANT,
}

TOPICS: Mapping[str, TopicRow] = {
    "features": TopicRow(
        "edge",
        1,
        False,
        "Features: one a slot, always the same size, scene or no scene",
        {**_MESSAGE, "slot": Source.CLOCK, "flags": Source.Z, "z": Source.Z, "level": Source.Z},
    ),
    "verdict/edge": TopicRow(
        "edge", 1, False, "Verdict of the edge member, one a slot while it watches, always the same size", _VERDICT
    ),
    "state": TopicRow(
        "edge",
        1,
        True,
        "Signed JSON (wire/protocol/state.py): online, or offline with the reason; the Last Will writes offline",
        {
            "schema": Source.CONSTANT,
            "count": Source.HARDWARE,  # of states before: one for each connection, and for each change of a field below
            "status": Source.HARDWARE,
            "reason": Source.HARDWARE,
            "boot_id": Source.HARDWARE,
            "model_id": Source.CONSTANT,
            "started_at": Source.HARDWARE,
            "slot_s": Source.CONSTANT,
            "public_key": Source.CONSTANT,
            "software": Source.CONSTANT,
            "certificate": Source.CONSTANT,
            "profile": Source.COMMAND,
            "blind": Source.Z,
            "watching": Source.WATCH,
            "signature": Source.HARDWARE,  # the device's key, over all of the above
        },
    ),
    "certificate": TopicRow(
        "edge",
        1,
        True,
        "JSON: the certificate of the most revealing profile that may be ordered",
        {"*": Source.CONSTANT},
    ),
    "command": TopicRow(
        "operator", 1, False, "JSON of wire/protocol/command.py: a signed order to change the profile", {}
    ),
    "verdict/cloud": TopicRow(
        "cloud",
        1,
        False,
        "Verdict of the cloud member, with a sentence",
        {**_VERDICT, "ood_p_value": Source.Z, "unsure": Source.Z, "shares": Source.Z, "late": Source.HARDWARE},
    ),
    "alert": TopicRow(
        "cloud",
        1,
        False,
        "Alert: a risk, or a camera that cannot be read as now, raised or cleared",
        {
            **_MESSAGE,
            "slot": Source.CLOCK,
            "raised": Source.Z,  # of the labels that name no risk: HARDWARE and WATCH
            "label": Source.Z,
            "probability": Source.Z,
            "sentence": Source.Z,
            "at_s": Source.CLOCK,
            "id": Source.Z,  # a hash of the camera, its key and the fields above
            "first_id": Source.Z,
            "severity": Source.Z,
            "device_time_s": Source.HARDWARE,
        },
    ),
    "alert/open": TopicRow(
        "cloud",
        1,
        True,
        "Signed JSON: all alerts that are open now, and by which ids to acknowledge them, for whoever subscribes later",
        {
            "schema": Source.CONSTANT,
            "time_s": Source.HARDWARE,
            "count": Source.Z,
            **dict.fromkeys(("open", "ids", "severities", "raised_s", "sentences"), Source.Z),
            "signature": Source.HARDWARE,
        },
    ),
    "contour": TopicRow(
        "cloud",
        0,
        False,
        "Signed JSON (wire/protocol/contour.py): an illustration from the noised code, one a release",
        {
            "schema": Source.CONSTANT,
            "boot_id": Source.HARDWARE,
            "slot": Source.CLOCK,
            "model_id": Source.CONSTANT,
            "time_s": Source.HARDWARE,
            "text": Source.CONSTANT,
            "figures": Source.CONSTANT,
            **dict.fromkeys(("upright", "bent", "lying", "fighting"), Source.Z),
            **dict.fromkeys(("nobody", "one", "several", "moving", "right"), Source.Z),
            **dict.fromkeys(("first", "second", "unsure"), Source.Z),
            "signature": Source.HARDWARE,
        },
    ),
    "bridge": TopicRow(
        "cloud",
        1,
        True,
        "Signed JSON of a bridge, under the site `bridges`: online, or offline with the reason (also the Last Will)",
        {
            "schema": Source.CONSTANT,
            "status": Source.HARDWARE,
            "reason": Source.HARDWARE,
            "count": Source.HARDWARE,
            "time_s": Source.HARDWARE,
            "cameras": Source.CONSTANT,
            "software": Source.CONSTANT,
            "public_key": Source.CONSTANT,
            "signature": Source.HARDWARE,
        },
    ),
}


def topic(site: str, camera: str, name: str) -> str:
    """Return the topic `name` (a key of TOPICS, or a filter) of a camera. Raises ConfigError for unusable names."""
    for field, value in (("site", site), ("camera", camera)):
        if not _NAME.fullmatch(value) and value != "+":
            raise ConfigError(
                f"{field} is {value!r}; use 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit"
            )
    return f"{PREFIX}/{site}/{camera}/{name}"


@lru_cache(maxsize=4096)
def signed_context(kind: str, site: str, camera: str) -> bytes:
    """Return what is signed before a body, so that a signature is valid for one kind of message of one camera alone.

    Raises ConfigError for unusable names. A name holds no zero byte, so the parts cannot be shifted.
    """
    if "+" in (site, camera):
        raise ConfigError(f"{site}/{camera} stands for many cameras; a message is signed for one")
    topic(site, camera, kind)
    return f"veilsight/v{SCHEMA}/{kind}\0{site}\0{camera}\0".encode()


def parse_topic(text: str) -> tuple[str, str, str] | None:
    """Split a topic of ours into (site, camera, name); None for any other."""
    head, _, rest = text.partition(f"{PREFIX}/")
    parts = rest.split("/", 2)
    if head or len(parts) != 3 or parts[2] not in TOPICS or not all(_NAME.fullmatch(part) for part in parts[:2]):
        return None
    return parts[0], parts[1], parts[2]
