"""What an image has in addition for A/B updates: two root file systems, and what lies outside of both.

    board row + update certificate --> RAUC's system.conf and keyring, mounts of the state folders   (into the overlay)
                                       partitions.xml, the flash command                             (into the plan)

An update replaces a root file system whole. So each folder that must outlive it is a partition of its own: what the
units call their state, and what the updater remembers. `check` refuses an image for which that does not hold.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from string import Template

from firmware_configs.archive import Entry
from firmware_configs.boards import Board
from firmware_configs.update.bundle import compatible
from wire.errors import ConfigError

__all__ = ["STATE", "Partition", "check", "files", "flash_command", "partitions"]


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition outside the slots.

    Attributes:
        label: Its name in the partition table.
        number: Its place there; NVIDIA's layouts take 1 to 16.
        folder: Where it is mounted.
        mib: Its size.
    """

    label: str
    number: int
    folder: str
    mib: int


STATE = (
    Partition("veilsight", 17, "/var/lib/veilsight", 1024),  # key, ledger, outbox
    Partition("veilsight_engine", 18, "/var/lib/veilsight-engine", 4096),  # engine files, and the last engine's release
    Partition("veilsight_update", 19, "/var/lib/veilsight-update", 64),  # the floor, the trial
)
_OF_A_SLOT = frozenset({"/var/lib/veilsight-board"})
"""What a new slot begins without: which restarts the power mode has had, as nvpmodel's own choice in it."""
_MOUNT = Template("""\
# A partition that no update writes.
[Unit]
Description=Veilsight: $folder, outside the slots
Requires=veilsight-makefs@$label.service
After=veilsight-makefs@$label.service

[Mount]
What=/dev/disk/by-partlabel/$label
Where=$folder
Type=ext4
Options=nosuid,nodev,noexec,noatime,errors=remount-ro
TimeoutSec=120
""")
_RAUC = Template("""\
# RAUC verifies bundles and writes the slot that does not run; veilsight-update decides what is booted.
[system]
compatible=$compatible
bootloader=custom
bundle-formats=plain verity
statusfile=/var/lib/veilsight-update/rauc.status
mountprefix=/run/veilsight-rauc
activate-installed=false

[keyring]
path=/etc/rauc/keyring.pem

[handlers]
bootloader-custom-backend=/opt/veilsight/bin/rauc-backend
pre-install=/opt/veilsight/bin/rauc-accept

[slot.rootfs.0]
device=/dev/disk/by-partlabel/APP
type=ext4
bootname=A

[slot.rootfs.1]
device=/dev/disk/by-partlabel/APP_b
type=ext4
bootname=B
""")
_SERVICE = """\
# RAUC is told which slot runs.
[Service]
ExecStart=
ExecStart=/opt/veilsight/bin/rauc-start
"""
_XML = Template("""\
        <partition name="$label" id="$number" type="data">
            <allocation_policy> sequential </allocation_policy>
            <filesystem_type> basic </filesystem_type>
            <size> $bytes </size>
            <file_system_attribute> 0 </file_system_attribute>
            <allocation_attribute> 0x8 </allocation_attribute>
            <partition_type_guid> 0FC63DAF-8483-4772-8E79-3D69D8477DE4 </partition_type_guid>
            <percent_reserved> 0 </percent_reserved>
            <align_boundary> 16384 </align_boundary>
            <description> $folder, which no update writes </description>
        </partition>
""")


def files(row: Board, keyring: bytes) -> dict[str, Entry]:
    """The files of the overlay.

    Args:
        row: The board.
        keyring: Certificates whose bundles the device takes, PEM.

    Raises:
        ConfigError: The board has no layout for two slots, or `keyring` is no certificate, or has a private key.
    """
    if not row.layout_ab:
        raise ConfigError(
            f"--ab: no partition layout with two root file systems is known for {row.name}; leave --ab out, or add the "
            "layout of its Jetson Linux to firmware_configs/boards.py"
        )
    if b"-----BEGIN CERTIFICATE-----" not in keyring or b"PRIVATE KEY" in keyring:
        raise ConfigError("--ab: expected the certificates whose bundles the device takes, PEM, and no private key")
    found = {
        "etc/rauc/keyring.pem": Entry(keyring),
        "etc/rauc/system.conf": Entry(_RAUC.substitute(compatible=compatible(row)).encode()),
        "etc/systemd/system/rauc.service.d/10-slot.conf": Entry(_SERVICE.encode()),
    }
    for part in STATE:
        text = _MOUNT.substitute(label=part.label, folder=part.folder)
        found[f"etc/systemd/system/{_unit(part.folder)}"] = Entry(text.encode())
    return found


def partitions() -> str:
    """The partitions, in the words of NVIDIA's layouts."""
    return "".join(
        _XML.substitute(label=part.label, number=part.number, folder=part.folder, bytes=part.mib << 20)
        for part in STATE
    )


def flash_command(row: Board) -> tuple[str, ...]:
    """The board's flash command with two root file systems, each tried three times by the firmware."""
    layout = ("-c", row.layout_ab)
    at = row.flash.index("-c")
    changed = (*row.flash[:at], *layout, *row.flash[at + 2 :])
    return ("env", "ROOTFS_AB=1", "ROOTFS_RETRY_COUNT_MAX=3", f"./{changed[0]}", *changed[1:])


def check(config: str, units: Mapping[str, str], overlay: Iterable[str], camera: str = "") -> None:
    """Refuse an image of which an update would lose something.

    Args:
        config: Text of a camera's configuration.
        units: Name -> text of the units.
        overlay: Paths of the overlay.
        camera: Which; "" for the first one.

    Raises:
        ConfigError: A folder of a unit's state or of the configuration lies inside the slots, or the gate has no local
            page, without which no update could be kept.
    """
    document = tomllib.loads(config)
    wanted = {
        "[device] state_dir": document.get("device", {}).get("state_dir", ""),
        "[device] key": document.get("device", {}).get("key", ""),
        "[engine] cache": document.get("engine", {}).get("cache", ""),
    }
    for name, text in units.items():
        for folder in " ".join(re.findall(r"^StateDirectory=(.+)$", text, re.MULTILINE)).split():
            wanted[f"{name} StateDirectory {folder}"] = f"/var/lib/{folder}"
        for line in re.findall(r"^ReadWritePaths=(.*)$", text, re.MULTILINE):
            for path in line.split():
                if path.lstrip("-").startswith("/var/lib/veilsight"):
                    wanted[f"{name} ReadWritePaths"] = path.lstrip("-")
    mounted = {part.folder for part in STATE if f"etc/systemd/system/{_unit(part.folder)}" in overlay}
    where = f"camera {camera}: " if camera else ""
    kept = {*mounted, *_OF_A_SLOT}
    for what, path in wanted.items():
        if path and not any(PurePosixPath(path).is_relative_to(folder) for folder in kept):
            raise ConfigError(
                f"{where}{what} is {path!r}, which an update would replace; put it below one of "
                f"{', '.join(sorted(mounted))}"
            )
    if not document.get("health", {}).get("listen"):
        raise ConfigError(
            f'{where}[health] listen is missing; an update is kept by what the local page shows: listen = ":8080"'
        )


def _unit(folder: str) -> str:
    """The name of a folder's mount unit, as systemd-escape --path writes it."""
    return folder.strip("/").replace("-", "\\x2d").replace("/", "-") + ".mount"
