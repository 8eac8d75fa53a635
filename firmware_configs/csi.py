"""CSI cameras: what jetson-io calls their sensors, and the file that tells the device's first boot.

    --csi-sensor imx219-a  -->  etc/veilsight/csi.env   -->  veilsight-csi.service: config-by-hardware.py, once

A CSI sensor is known to the kernel by a device tree overlay alone. NVIDIA's jetson-io writes it into extlinux.conf on
the device itself, since it must find the device tree of that very module.
Source: the list that `config-by-hardware.py -l` shows on a P3768 with Jetson Linux 36.4, as owners quoted it. For other
boards no such list was found; a device whose jetson-io lacks the name says which names it has.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from types import MappingProxyType

from firmware_configs.archive import Entry
from firmware_configs.boards import Board
from wire.errors import ConfigError

__all__ = ["ENV", "SENSORS", "csi_files", "is_csi"]

ENV = "etc/veilsight/csi.env"
"""The file; without it nothing is done."""

SENSORS = MappingProxyType(
    {
        "imx219-a": "Camera IMX219-A",
        "imx219-c": "Camera IMX219-C",
        "imx219-dual": "Camera IMX219 Dual",
        "imx219-a-imx477-c": "Camera IMX219-A and IMX477-C",
        "imx477-a": "Camera IMX477-A",
        "imx477-c": "Camera IMX477-C",
        "imx477-dual": "Camera IMX477 Dual",
        "imx477-dual-4lane": "Camera IMX477 Dual 4 lane",
        "imx477-a-imx219-c": "Camera IMX477-A and IMX219-C",
    }
)
"""`--csi-sensor` -> the name in jetson-io: the sensor, and the connector (A or C) that it is plugged into."""
_CARRIER = "P3768"
_SENSOR = re.compile(r"imx[0-9]+(-[ac])?")  # one alone


def is_csi(config: str) -> bool:
    """Whether the camera of a configuration is a CSI camera."""
    return _source(config).startswith("csi://")


def csi_files(row: Board, configs: Sequence[str], sensor: str) -> dict[str, Entry]:
    """The file of the overlay that names the sensor; none where `sensor` is "".

    Args:
        row: The board.
        configs: Text of the configuration of each camera.
        sensor: One of SENSORS.

    Raises:
        ConfigError: The sensor is not known, no camera is a CSI camera, or a camera is one that the sensor does not
            have.
    """
    if not sensor:
        return {}
    if _CARRIER not in row.module:
        raise ConfigError(
            f"--csi-sensor: no names of jetson-io are known for {row.name}; install the entry of your sensor's maker, "
            "and leave --csi-sensor out"
        )
    if sensor not in SENSORS:
        raise ConfigError(
            f"--csi-sensor {sensor!r} is not a sensor we know; choose one of {', '.join(SENSORS)}; another one needs "
            "its maker's driver and entry in jetson-io"
        )
    numbers = [_source(config).partition("://")[2] or "0" for config in configs if is_csi(config)]
    if not numbers:
        raise ConfigError('--csi-sensor: no camera is a CSI camera; write [camera] source = "csi://0", or leave it out')
    have = ("0",) if _SENSOR.fullmatch(sensor) else ("0", "1")
    for number in numbers:
        if number not in have:
            raise ConfigError(
                f'[camera] source is "csi://{number}", and {sensor} has csi://{" and csi://".join(have)}; choose a '
                "sensor name of two, or another source"
            )
    return {ENV: Entry(f'VEILSIGHT_CSI="{SENSORS[sensor]}"\n'.encode(), 0o640)}


def _source(config: str) -> str:
    return str(tomllib.loads(config).get("camera", {}).get("source", ""))
