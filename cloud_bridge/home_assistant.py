"""Home Assistant finds the cameras by MQTT discovery: retained descriptions, and nothing new about a scene.

    cameras, labels --> {prefix}/binary_sensor/{id}/config   where Home Assistant reads what is published anyway:
                        state      connected, watching
                        alert/open any alert, and one entity for each risk

The bridge publishes the descriptions after every connection. What it has ever described is on record in its state
folder, before it is published: so what is turned off, or whose camera is gone, is taken back (an empty message).
Home Assistant verifies no signature: who may write to the broker may show there what he likes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wire import __version__
from wire.errors import ConfigError
from wire.files import read_trusted, write_durably
from wire.mqtt import Message
from wire.protocol.topics import BRIDGES, topic

__all__ = ["Discovery", "HomeAssistantConfig", "entities"]

_NAME = "home-assistant.json"
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST_ON_RECORD = 100_000
_ON = "{{{{ 'ON' if {} else 'OFF' }}}}"  # a template of Home Assistant's, made by str.format
_QOS = 1


@dataclass(frozen=True, slots=True)
class HomeAssistantConfig:
    """Section `[home_assistant]`.

    Attributes:
        enabled: Whether the cameras are described.
        prefix: Of Home Assistant's discovery topics.

    Raises:
        ConfigError: The prefix is none.
    """

    enabled: bool = False
    prefix: str = "homeassistant"

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ConfigError(
                f"prefix is {self.prefix!r}; write Home Assistant's discovery prefix: letters, digits, '_' and '-'"
            )


def entities(prefix: str, cameras: Iterable[tuple[str, str]], risks: Sequence[str], bridge: str) -> dict[str, bytes]:
    """Describe the entities of cameras.

    Args:
        prefix: Of the discovery topics.
        cameras: (site, camera) of each.
        risks: Labels that are risks.
        bridge: Name of the bridge in its own topic: what it says is unknown while it is away.

    Returns:
        Topic -> description, JSON.
    """
    away = {
        "availability_topic": topic(BRIDGES, bridge, "bridge"),
        "availability_template": "{{ 'online' if value_json.status == 'online' else 'offline' }}",
    }
    found = {}
    for site, camera in cameras:
        device = {"identifiers": [_id(site, camera)], "name": f"Veilsight {site}/{camera}", "manufacturer": "Veilsight"}
        state, alerts = topic(site, camera, "state"), topic(site, camera, "alert/open")
        online = "value_json.status == 'online'"
        watching = f"{online} and value_json.watching and not value_json.blind"
        rows: list[tuple[str, str, str, str, Mapping[str, str]]] = [
            ("connected", "connectivity", state, online, {"entity_category": "diagnostic"}),
            ("watching", "running", state, watching, {}),
            ("alert", "problem", alerts, "value_json.count > 0", {"json_attributes_topic": alerts, **away}),
        ]
        for risk in risks:
            rows.append((risk, "safety", alerts, f"{json.dumps(risk)} in value_json.open.split(', ')", away))
        for name, kind, where, holds, more in rows:
            number = _id(site, camera, name)
            document: dict[str, Any] = {
                "name": name,
                "unique_id": number,
                "object_id": number,
                "device_class": kind,
                "state_topic": where,
                "value_template": _ON.format(holds),
                "qos": _QOS,
                "device": device,
                "origin": {"name": "veilsight", "sw_version": __version__},
                **more,
            }
            found[f"{prefix}/binary_sensor/{number}/config"] = json.dumps(document, sort_keys=True).encode()
    return found


def _id(*names: str) -> str:
    """A name of letters, digits and "_" that no other names give: Home Assistant takes no others."""
    words = re.sub("[^a-z0-9]+", "_", "_".join(names).lower()).strip("_")[:48]
    return f"veilsight_{words}_{hashlib.sha256(chr(0).join(names).encode()).hexdigest()[:8]}"


class Discovery:
    """What is described now, and what was described before and is to be taken back."""

    def __init__(self, wanted: Mapping[str, bytes], folder: Path) -> None:
        """Put what will be described on record, before any of it is.

        Args:
            wanted: Topic -> description; none: discovery is turned off.
            folder: The bridge's state folder.

        Raises:
            ConfigError: The record cannot be read or written.
        """
        self._wanted, self._file = dict(wanted), folder / _NAME
        try:
            known = self._read()
            self._gone = sorted(known - self._wanted.keys())
            if known != known | self._wanted.keys():
                self._write(known | self._wanted.keys())
        except (OSError, ValueError) as error:
            cure = "make it readable; or remove it, and what Home Assistant keeps showing by hand"
            raise ConfigError(f"{self._file}: {error}; {cure}") from error

    def messages(self) -> list[Message]:
        """What is published after a connection: what is taken back, then what is described."""
        gone = [Message(where, b"", _QOS, True) for where in self._gone]
        return gone + [Message(where, payload, _QOS, True) for where, payload in self._wanted.items()]

    def delivered(self) -> None:
        """Forget what was taken back: the broker has it. Where the record cannot be written, it is taken back again."""
        if not self._gone:
            return
        try:
            self._write(self._wanted.keys())
        except OSError:
            return
        self._gone = []

    def _read(self) -> set[str]:
        try:
            found = json.loads(read_trusted(self._file))
        except FileNotFoundError:
            return set()
        if not isinstance(found, list) or len(found) > _MOST_ON_RECORD or not all(type(each) is str for each in found):
            raise ValueError("it is no list of topics")
        return {each for each in found if re.fullmatch(r"[A-Za-z0-9_-]+/binary_sensor/veilsight_\w+/config", each)}

    def _write(self, topics: Iterable[str]) -> None:
        write_durably(self._file, json.dumps(sorted(topics)).encode())
