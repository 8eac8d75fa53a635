"""One image for many devices: what each makes of its own at its first boot.

    --per-device  -->  etc/veilsight/per-device            base of the host name
                       [device] camera = "NAME-@MODULE@"   in each configuration; the gate refuses it as it is

At every boot, before the network, packages/units/opt/veilsight/bin/identity puts ten digits of a hash of the module's
serial number where @MODULE@ stands, and at the end of the host name. The device's key, its machine-id and its ssh host
keys are made on the device in any case. What would be the same secret on every device is refused.
"""

from __future__ import annotations

import re
import tomllib

from firmware_configs.archive import Entry
from firmware_configs.hardening import host_name
from wire.errors import ConfigError

__all__ = ["FILE", "MARK", "per_device_config", "per_device_file"]

FILE = "etc/veilsight/per-device"
MARK = "@MODULE@"
"""Stands for the digits; it is no part of a name that the gate takes."""

_DIGITS = 10
_MOST = 63  # of a host name's label, and of a camera's name
_CAMERA = re.compile(r"""(?m)^(?P<before>[ \t]*camera[ \t]*=[ \t]*)(?P<quote>["'])(?P<name>[^"'\n]*)(?P=quote)""")


def per_device_file(config: str) -> dict[str, Entry]:
    """The file of the overlay: the host name, before the digits of the module are added."""
    base = host_name(config)[: _MOST - 1 - _DIGITS].rstrip("-")
    return {FILE: Entry(f"{base}\n".encode())}


def per_device_config(config: str, where: str) -> str:
    """Return a configuration whose camera is named after the module as well.

    Args:
        config: Text of a camera's configuration.
        where: What it is called, for errors.

    Raises:
        ConfigError: It names a private key, which would be the same on every device, or the camera's name is too long,
            or is not written on a line of its own.
    """
    document = tomllib.loads(config)
    if document.get("broker", {}).get("key"):
        raise ConfigError(
            f"{where}: [broker] key would be the same private key on every device; give each device its own after its "
            "first boot, or use username and password_file, and leave cert and key out"
        )
    name = str(document["device"]["camera"])
    if len(name) > _MOST - 1 - _DIGITS:
        raise ConfigError(f"{where}: [device] camera has {len(name)} characters; --per-device leaves room for 52")
    wanted = {**document, "device": {**document["device"], "camera": f"{name}-{MARK}"}}
    for found in _CAMERA.finditer(config):
        if found["name"] != name:
            continue
        line = f"{found['before']}{found['quote']}{name}-{MARK}{found['quote']}"
        changed = config[: found.start()] + line + config[found.end() :]
        if tomllib.loads(changed) == wanted:
            return changed
    raise ConfigError(f'{where}: write camera = "{name}" on a line of its own, below [device]')
