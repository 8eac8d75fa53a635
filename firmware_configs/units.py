"""The systemd units of a device: which are enabled, and the drop-ins that its board and its camera ask for.

    board row + edge.toml  -->  veilsight-eye.service.d/10-board.conf, 20-camera.conf, ...

A drop-in opens what this device needs beyond the units of its package, and nothing else.
"""

from __future__ import annotations

import ipaddress
import tomllib

from edge_runtime.capture.address import backend_of, host_of
from firmware_configs.boards import Board
from wire.errors import CameraError, ConfigError

__all__ = ["ENABLED", "drop_ins"]

ENABLED = (
    "veilsight-gate.service",
    "veilsight-power.service",
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


def drop_ins(row: Board, config: str) -> dict[str, str]:
    """Write the drop-ins of a device.

    Args:
        row: The board.
        config: Text of edge.toml.

    Returns:
        "UNIT.d/NAME.conf" -> its text.

    Raises:
        ConfigError: The camera's stream names a host, not an address: a unit can allow addresses alone.
    """
    document = tomllib.loads(config)
    allow = "".join(f"DeviceAllow={device} rw\n" for device in row.gpu_devices)
    gpu = f"# The GPU of {row.name}, Jetson Linux {row.l4t}.\n[Service]\n{allow}"
    memory = f"# Half of the board: building engine files takes more than running them.\nMemoryMax={row.ram_gb // 2}G\n"
    found = {f"veilsight-{name}.service.d/10-board.conf": gpu + memory for name in ("eye", "engine")}
    source = str(document.get("camera", {}).get("source", ""))
    kind = backend_of(source)
    if kind == "stream":
        found["veilsight-eye.service.d/20-camera.conf"] = _STREAM.format(address=_address(source))
    elif kind == "gstreamer":
        found["veilsight-eye.service.d/20-camera.conf"] = _CSI
    return found


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
