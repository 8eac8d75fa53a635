"""Fits a slot that was written to its place and its device: the kernel's root, and the files of this device alone.

    the running root --accounts, configuration, names, host keys--> the new root      extlinux.conf: root= of its slot

The image of an update is the same for every device, so it has no configuration, no secret and no account of a device.
It is mounted here with nosuid, nodev and noexec, and no link in it is followed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firmware_configs.update.machine import Machine
from wire.errors import UpdateError

__all__ = ["fit", "fit_root"]

_OWN = (
    "etc/veilsight",
    "etc/rauc",
    "etc/systemd/system/veilsight-*.d",
    "etc/systemd/system/veilsight.target.wants/veilsight-edge@*.service",
    "etc/systemd/system/rauc.service.d",
    "etc/systemd/system/var-lib-veilsight*.mount",
    "etc/hostname",
    "etc/hosts",
    "etc/ssh/veilsight_keys",
    "etc/systemd/timesyncd.conf.d",
    "etc/chrony/sources.d/veilsight.sources",
    "etc/machine-id",
    "etc/localtime",
    "etc/nv_boot_control.conf",
    "etc/ssh/ssh_host_*",
    "etc/NetworkManager/system-connections",
    "etc/netplan",
    "home/*/.ssh",
    "root/.ssh",
    "opt/veilsight/local",
)
"""What belongs to a device, below the root; the state folders are partitions of their own."""
_TABLES = ("passwd", "shadow", "group", "gshadow")
_ROOT = re.compile(r"\broot=\S+")
_EXTLINUX = "boot/extlinux/extlinux.conf"


def fit(machine: Machine, slot: str) -> None:
    """Mount the root file system in `slot`, fit it, and unmount it with everything on the disk. Raises UpdateError."""
    device = machine.partitions[slot]
    identity = machine.run(["blkid", "-s", "PARTUUID", "-o", "value", str(device)]).strip()
    if not re.fullmatch(r"[0-9a-fA-F-]{8,36}", identity):
        raise UpdateError(f"{device} has no PARTUUID ({identity[:40]!r}), which the kernel is told; flash the device")
    with _mounted(machine, device) as root:
        fit_root(machine.root, root, identity)


def fit_root(running: Path, root: Path, identity: str) -> None:
    """Fit the file system at `root`.

    Args:
        running: The root of the running system.
        root: Where the new one is mounted.
        identity: PARTUUID of its partition.

    Raises:
        UpdateError: It has no kernel configuration, a link where a folder is expected, or accounts that do not go
            together with the device's.
    """
    try:
        _point_kernel(root, identity)
        for table in _TABLES:
            _merge_accounts(running / "etc" / table, _inside(running, root, f"etc/{table}"))
        for pattern in _OWN:
            for source in sorted(running.glob(pattern)):
                _copy(source, _inside(running, root, source.relative_to(running).as_posix()))
    except OSError as error:
        raise UpdateError(f"{error.filename}: {error.strerror}; make the image again") from error


def _point_kernel(root: Path, identity: str) -> None:
    """Each line of extlinux.conf that names a root names that of its own slot."""
    file = _inside(root, root, _EXTLINUX)
    if not _is_plain(file):
        raise UpdateError(f"the image has no {_EXTLINUX}; make it from a root file system of the board's Jetson Linux")
    text, count = _ROOT.subn(f"root=PARTUUID={identity}", file.read_text())
    if not count:
        raise UpdateError(f"{_EXTLINUX} of the image names no root=; make it from the board's Jetson Linux")
    file.write_text(text)


def _merge_accounts(old: Path, new: Path) -> None:
    """Keep the device's accounts, with their numbers, and add those that only the image has.

    The state folders belong to numbers, so a number may not change its owner from one slot to the other.
    """
    if not _is_plain(new):
        raise UpdateError(f"{new} is no plain file; make the image from the board's Jetson Linux")
    lines = {line.partition(":")[0]: line for line in old.read_text().splitlines() if line}
    added = [line for line in new.read_text().splitlines() if line and line.partition(":")[0] not in lines]
    if old.name in ("passwd", "group"):
        owners = {line.split(":")[2]: name for name, line in lines.items()}
        for line in added:
            name, _, number = line.split(":")[:3]
            if number in owners:
                raise UpdateError(
                    f"the image gives number {number} to {name!r}, and here it belongs to {owners[number]!r}; "
                    "make the image from the same base as the device's"
                )
    new.write_text("".join(f"{line}\n" for line in (*lines.values(), *added)))  # keeps owner and mode


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _inside(running: Path, root: Path, name: str) -> Path:
    """A path in the new file system, to which no link leads; a missing folder is made as the running system has it."""
    path = root
    for depth, part in enumerate(parts := name.split("/")):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UpdateError(f"{path} in the image is no folder; make the image from the board's Jetson Linux")
        if not path.exists():
            path.mkdir()
            _own_as((running / "/".join(parts[:depth])).lstat(), path)
        path = path / part
    return path


def _copy(source: Path, target: Path) -> None:
    """Copy a file, a link or a folder, with owner and mode, over what is there."""
    found = source.lstat()
    is_folder = stat.S_ISDIR(found.st_mode)
    if not (is_folder or stat.S_ISLNK(found.st_mode) or stat.S_ISREG(found.st_mode)):
        return  # a socket or the like
    if target.is_symlink() or (target.exists() and not (is_folder and target.is_dir())):
        target.unlink()
    if stat.S_ISLNK(found.st_mode):
        target.symlink_to(os.readlink(source))
    elif is_folder:
        target.mkdir(exist_ok=True)
    else:
        shutil.copyfile(source, target)
    _own_as(found, target)
    for child in sorted(source.iterdir()) if is_folder else ():
        _copy(child, target / child.name)


def _own_as(found: os.stat_result, target: Path) -> None:
    os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    if not target.is_symlink():
        os.chmod(target, stat.S_IMODE(found.st_mode))


@contextmanager
def _mounted(machine: Machine, device: Path) -> Iterator[Path]:
    place = machine.folder / "slot"
    place.mkdir(exist_ok=True)
    machine.before("mount")
    machine.run(["mount", "-t", "ext4", "-o", "nosuid,nodev,noexec", str(device), str(place)])
    try:
        yield place
    finally:
        machine.run(["umount", str(place)])
        os.sync()
