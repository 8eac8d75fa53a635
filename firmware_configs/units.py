"""The systemd units of a device: which are enabled, and the drop-ins that its board and its cameras ask for.

    board row + edge.toml         -->  veilsight-eye.service.d/10-board.conf, 20-camera.conf, ...
    the units of the first camera -->  templates of the same units, for each further camera: veilsight-edge@NAME.service

A drop-in opens what this device needs beyond the units of its package, and nothing else. The first camera of a box has
the units without a name; a further one, configured in cameras/NAME.toml, has instances of templates. These are made
from the first camera's units, line by line, so that no camera is confined less than another.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from types import MappingProxyType

from edge_runtime.capture.address import backend_of, host_of
from firmware_configs.archive import Entry
from firmware_configs.boards import Board
from wire.errors import CameraError, ConfigError

__all__ = ["ENABLED", "FOLDER", "SUPERVISOR", "drop_ins", "instance", "template", "templates", "wanted"]

FOLDER = "lib/systemd/system"
SUPERVISOR = "veilsight.target"
"""What starts, stops and restarts the processes of all cameras."""

ENABLED = (
    SUPERVISOR,
    "veilsight-gate.service",
    "veilsight-power.service",
    "veilsight-csi.service",
    "veilsight-identity.service",
    "veilsight-update-boot.service",
    "veilsight-update-confirm.service",
    "veilsight-firewall.service",
    "veilsight-hostkeys.service",
)
"""Units that the boot starts; the gate's unit wants or requires the others."""

_CSI = """\
# A CSI camera: Argus listens on /tmp/argus_socket, which a private /tmp would hide.
[Service]
PrivateTmp=no
"""
_STREAM = """\
# A camera on the network: the eye reaches this address, and no other.
[Service]
PrivateNetwork=no
IPAddressAllow={address}
RestrictAddressFamilies=AF_INET AF_INET6
"""


_ONE = ("eye.service", "eye.socket", "reader.service", "reader.socket", "engine.service", "gate.service")
"""The units of one camera."""

_PLACES = (
    ("veilsight-gate.service", "veilsight-edge@%i.service"),
    *((f"veilsight-{name}", f"veilsight-{name.replace('.', '@%i.')}") for name in _ONE[:-1]),
    ("/etc/veilsight/edge.toml", "/etc/veilsight/cameras/%i.toml"),
    ("/run/veilsight/", "/run/veilsight/cameras/%i/"),
    ("--state /var/lib/veilsight-engine\n", "--state /var/lib/veilsight-engine/cameras/%i\n"),
    ("TimeoutStartSec=1800\n", "TimeoutStartSec=3600\n"),  # another camera's check may build the same files first
    ("StateDirectory=veilsight\n", "StateDirectory=veilsight/cameras/%i\n"),
    ("StateDirectory=veilsight-engine\n", "StateDirectory=veilsight-engine veilsight-engine/cameras/%i\n"),
    ("WorkingDirectory=/var/lib/veilsight\n", "WorkingDirectory=/var/lib/veilsight/cameras/%i\n"),
)
"""What is the first camera's alone -> the same of the camera %i."""


def template(unit: str) -> str:
    """The name of a further camera's unit: "veilsight-eye.service" -> "veilsight-eye@.service"; its gate's is edge@."""
    return dict(_PLACES)[unit].replace("%i", "")


def instance(unit: str, camera: str) -> str:
    """The name of a unit of the camera NAME; of the first one ("") as it is."""
    return template(unit).replace("@", f"@{camera}") if camera else unit


def templates(units: Mapping[str, Entry]) -> dict[str, Entry]:
    """Make the templates of further cameras from the units of the first one: path -> file."""
    made = {}
    for name in (f"veilsight-{each}" for each in _ONE):
        text = units[f"{FOLDER}/{name}"].data.decode()
        for old, new in _PLACES:
            text = text.replace(old, new)
        text = re.sub("(?m)^(Description=.*)$", r"\1, camera %i", text)
        made[f"{FOLDER}/{template(name)}"] = Entry(text.encode())
    return made


def wanted(camera: str) -> str:
    """The link below /etc by which the supervisor starts a further camera, as `systemctl enable` makes it."""
    return f"{SUPERVISOR}.wants/{instance('veilsight-gate.service', camera)}"


def drop_ins(row: Board, config: str, more: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Write the drop-ins of a device.

    Args:
        row: The board.
        config: Text of edge.toml.
        more: Name -> configuration of each further camera.

    Returns:
        "UNIT.d/NAME.conf" -> its text.

    Raises:
        ConfigError: A camera's stream names a host, not an address: a unit can allow addresses alone.
    """
    allow = "".join(f"DeviceAllow={device} rw\n" for device in row.gpu_devices)
    gpu = f"# The GPU of {row.name}, Jetson Linux {row.l4t}.\n[Service]\n{allow}"
    half = row.ram_gb * 512
    memory = "# Half of the board: building engine files takes more than running them.\n" + _memory(half)
    shared = f"# Half of the board, for {1 + len(more)} cameras.\n" + _memory(half // (1 + len(more)))
    found = {}
    for unit, text in (("veilsight-eye.service", shared if more else memory), ("veilsight-engine.service", memory)):
        for name in (unit, template(unit)) if more else (unit,):
            found[f"{name}.d/10-board.conf"] = gpu + text
    for camera, text in {"": config, **more}.items():
        if opened := _camera(str(tomllib.loads(text).get("camera", {}).get("source", ""))):
            found[f"{instance('veilsight-eye.service', camera)}.d/20-camera.conf"] = opened
    return found


def _memory(mib: int) -> str:
    return f"MemoryMax={mib // 1024}G\n" if mib % 1024 == 0 else f"MemoryMax={mib}M\n"


def _camera(source: str) -> str:
    """What a camera asks its eye's unit to open; "" for nothing."""
    kind = backend_of(source)
    if kind == "stream":
        return _STREAM.format(address=_address(source))
    return _CSI if kind == "gstreamer" else ""


def _address(source: str) -> str:
    """The IP address of a stream's camera."""
    try:
        host = host_of(source)
    except CameraError as error:
        raise ConfigError(str(error)) from error
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise ConfigError(
            f"[camera] source: {host!r} is no IP address; write the camera's address, since the eye's unit opens the "
            "network to addresses, not to names"
        ) from error
    if address.is_unspecified or address.is_multicast:
        raise ConfigError(f"[camera] source: {host} is not one camera's address; write the address that it sends from")
    return str(address)
