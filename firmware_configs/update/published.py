"""How many releases the broker has accepted from the running gates, as each gate's own local page says.

    /etc/veilsight/edge.toml, cameras/NAME.toml --> a page a camera
    http://127.0.0.1:PORT/health --bounded JSON--> Published

Nothing is asked of a gate that it does not show there anyway, and nothing leaves the device. A release was accepted
(PUBACK), or it waits, or the page counts it as refused, too long, dropped or expired: what was released, less what
waits or is so counted, was accepted. A broker of MQTT 3.1.1 acknowledges what its access list throws away, and does not
say so.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import Any

from edge_runtime.box import others
from edge_runtime.config import load_config
from firmware_configs.update.machine import Machine
from wire.bounded_json import read_json
from wire.errors import ConfigError, UpdateError

__all__ = ["Published", "published", "where"]

_PATIENCE_S = 5.0
_MOST = 1 << 18  # bytes of the page
_LOST = (("publisher", "refused"), ("publisher", "too_long"), ("publisher", "dropped"))
_DROPPED = (("outbox", "dropped"), ("outbox", "expired"))


@dataclass(frozen=True, slots=True)
class Published:
    """What the gate shows.

    Attributes:
        accepted: Releases that the broker has accepted, at least; since the gate's start.
        seen: Releases that were not noise alone, since the gate's start: the eye answered in time.
        connected: Whether the broker is connected.
    """

    accepted: int
    seen: int
    connected: bool

    def enough(self, wanted: int) -> bool:
        """Whether `wanted` releases of a camera that is seen have arrived."""
        return self.connected and min(self.accepted, self.seen) >= wanted


def where(machine: Machine) -> dict[str, tuple[str, int]]:
    """Camera -> host and port of its local page, for every configuration of the box. Raises UpdateError for none."""
    found = dict[str, tuple[str, int]]()
    for file in (machine.config, *others(machine.config)):
        try:
            config = load_config(file)
        except ConfigError as error:
            raise UpdateError(str(error)) from error
        host, _, port = config.health_listen.rpartition(":")
        page = ("127.0.0.1", int(port) if port.isdecimal() else 0)
        if not page[1] or host not in ("", "127.0.0.1", "localhost") or page in found.values():
            raise UpdateError(
                f"{file}: [health] listen is {config.health_listen!r}; without a local page of its own nobody can tell "
                'whether an update publishes; write listen = ":8080", and another port for each camera'
            )
        found[f"{config.device_site}/{config.device_camera}"] = page
    return found


def published(host: str, port: int) -> Published | None:
    """Ask the page; None where nothing answers, or not in our form."""
    connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/health", headers={"Host": f"{host}:{port}"})
        answer = connection.getresponse()
        text = answer.read(_MOST + 1)
        return _counted(read_json(text, _MOST, depth=4, values=4096)) if answer.status == 200 else None
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _counted(page: dict[str, Any]) -> Published:
    """Read the figures. Raises KeyError, TypeError or ValueError where one is missing or is no number."""

    def figure(part: str, name: str) -> int:
        value = page[part][name]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{part} {name} is no number")
        return int(value)

    windows, alone = figure("loop", "windows"), figure("loop", "alone")
    lost = sum(figure(*name) for name in (*_LOST, *_DROPPED))
    accepted = windows - figure("outbox", "waiting") - lost
    return Published(max(0, accepted), max(0, windows - alone), page["publisher"]["connected"] is True)
