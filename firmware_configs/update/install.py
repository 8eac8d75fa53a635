"""Installs a bundle: RAUC verifies it and writes the other slot; then the slot is fitted and goes on trial.

    bundle --rauc: signature, board--> mounted --accept: release, floor, files--> rauc: the other slot, hash by hash
           --> fit --> record: on trial --> nvbootctrl --> (reboot) --> trial.py

RAUC is told not to activate what it has written: `rauc install` alone leaves a slot that nothing boots. RAUC calls us
twice, as its pre-install handler (`accept`) and as its bootloader (`backend`).
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from firmware_configs.update.fit import fit
from firmware_configs.update.machine import OTHER, Machine
from firmware_configs.update.published import where
from firmware_configs.update.record import Record
from firmware_configs.update.release import read_bundle
from firmware_configs.update.slots import check_redundancy, current_slot, look
from firmware_configs.update.trial import try_slot
from wire.errors import UpdateError
from wire.files import write_whole

__all__ = ["accept", "backend", "install"]

log = logging.getLogger("veilsight.update")
_INSTALL_S = 7200.0
_REFUSED = "refused"  # why `accept` has said no


def install(machine: Machine, bundle: Path) -> str:
    """Install a bundle into the slot that does not run, and put it on trial.

    Returns:
        What to do next.

    Raises:
        UpdateError: It is refused, or a step failed; the running slot stays the one that boots.
    """
    with _alone(machine):
        slot = OTHER[_ready(machine)]
        if not bundle.is_file():
            raise UpdateError(f"{bundle} is no file; give the bundle's path")
        replace(Record.load(machine), next_release=0, next_floor=0).save(machine)
        _write(machine, bundle)
        record = Record.load(machine)
        if not record.next_release or not record.is_bad(slot):
            raise UpdateError(
                "RAUC did not call veilsight-update before it wrote; /etc/rauc/system.conf must name it as pre-install "
                "handler and as bootloader-custom-backend: take the one of an image that was made with --ab"
            )
        fit(machine, slot)
        try_slot(machine, slot, record)
        return (
            f"release {record.next_release} is in slot {slot}, which goes on trial at the next boot: systemctl reboot"
        )


def _write(machine: Machine, bundle: Path) -> None:
    """Let RAUC write the slot. Raises UpdateError, with our own words where it was us who refused."""
    refused = machine.folder / _REFUSED
    refused.unlink(missing_ok=True)
    machine.before("rauc")
    try:
        machine.run(["rauc", "install", str(bundle.resolve())], _INSTALL_S)
    except UpdateError as error:
        if refused.exists():
            raise UpdateError(refused.read_text()) from error
        raise


def accept(machine: Machine, environment: Mapping[str, str]) -> str:
    """Do what RAUC's pre-install handler does: refuse the bundle, or remember what is about to be written.

    Args:
        machine: The device.
        environment: As RAUC gives it: RAUC_BUNDLE_MOUNT_POINT and, of the one image, RAUC_IMAGE_DIGEST_1.

    Raises:
        UpdateError: The bundle is refused; nothing of it was written.
    """
    try:
        return _accept(machine, environment)
    except UpdateError as error:
        write_whole(machine.folder / _REFUSED, str(error))  # RAUC tells only that we refused
        raise


def _accept(machine: Machine, environment: Mapping[str, str]) -> str:
    place, digest = environment.get("RAUC_BUNDLE_MOUNT_POINT"), environment.get("RAUC_IMAGE_DIGEST_1")
    if not place or not digest or environment.get("RAUC_IMAGE_DIGEST_2"):
        raise UpdateError("a bundle has one image, for the root file system; RAUC names none or several")
    found, record, slot = read_bundle(Path(place), digest), Record.load(machine), OTHER[_ready(machine)]
    record.refuse_old(found.release, found.floor, "the bundle")
    size = _size(machine.partitions[slot])
    if found.size > size:
        raise UpdateError(f"the image has {found.size} bytes, slot {slot} has {size}; make a smaller image")
    replace(record, next_release=found.release, next_floor=found.floor).save(machine)
    return f"release {found.release} may be written to slot {slot}"


def backend(machine: Machine, words: Sequence[str]) -> str:
    """Answer RAUC as its bootloader, of which it asks get-primary, get-current, get-state, set-state and set-primary.

    Raises:
        UpdateError: It asks for what is not its business, or the firmware cannot be read.
    """
    match [*words]:
        case ["get-current"]:
            return current_slot(machine)
        case ["get-primary"]:
            return look(machine).active
        case ["get-state", ("A" | "B") as slot]:
            good = not Record.load(machine).is_bad(slot) and look(machine).status[slot] == "normal"
            return "good" if good else "bad"
        case ["set-state", ("A" | "B") as slot, "bad"]:
            record = Record.load(machine)
            if slot == current_slot(machine) or record.trial:
                raise UpdateError(f"slot {slot} is running or on trial; veilsight-update rollback leaves it")
            record.writing(slot).save(machine)
            return ""
        case ["set-state", ("A" | "B"), "good"]:
            return ""  # only what has published is good: veilsight-update confirm
        case ["set-primary", ("A" | "B") as slot]:
            raise UpdateError(f"slot {slot} is booted after a trial alone: veilsight-update install, or rollback")
    raise UpdateError(f"backend {' '.join(words)}: not a question of RAUC's")


def _ready(machine: Machine) -> str:
    """The running slot of a device that can be updated now. Raises UpdateError."""
    on = machine.run(["findmnt", "--noheadings", "--output", "TARGET", "--target", str(machine.folder)]).strip()
    if Path(on) != machine.folder:
        raise UpdateError(
            f"{machine.folder} is no partition of its own, so an update would lose what it remembers; flash an image "
            "that was made with --ab"
        )
    where(machine)
    record, table = Record.load(machine), look(machine)
    if record.trial:
        raise UpdateError(f"slot {record.trial} is on trial; wait until it is kept, or: veilsight-update rollback")
    if table.current != table.active:
        raise UpdateError(f"slot {table.current} runs, and the next boot takes {table.active}; reboot first")
    check_redundancy(machine)
    mounted = machine.run(["findmnt", "--noheadings", "--output", "SOURCE", str(machine.root)]).strip()
    if Path(mounted).resolve() != machine.partitions[table.current].resolve():
        raise UpdateError(
            f"the firmware says that slot {table.current} runs, but / is {mounted}; its extlinux.conf names another "
            "slot's root file system: flash the device"
        )
    return table.current


def _size(device: Path) -> int:
    """Bytes of a partition, or of a file in its place."""
    try:
        with device.open("rb") as file:
            return file.seek(0, os.SEEK_END)
    except OSError as error:
        raise UpdateError(f"{device}: {error.strerror}; flash the device") from error


@contextmanager
def _alone(machine: Machine) -> Iterator[None]:
    """Be the only installer. Raises UpdateError where there is one."""
    try:
        file = os.open(machine.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UpdateError(f"{machine.folder}: {error.strerror}; run this as root") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UpdateError("another update is being installed; wait for it") from error
    finally:
        os.close(file)
