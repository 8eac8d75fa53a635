"""The boot slots as the firmware of a Jetson tells of them, and the switch between them, which looks whether it holds.

    nvbootctrl dump-slots-info, for bootloader and root file system --> Table: current, active, status of A and B
    activate: status 0xFF --> 0, no old switch left over, set-active-boot-slot --look again--> active, or UpdateError

What is known of nvbootctrl (JetPack 6 and 7), each from the source named:
- Bootloader and root file system switch together. [edk2-nvidia, L4TRootfsValidation.c: "always linked"]
- A slot that failed three times has RootfsStatusSlotX = 0xFF, no command of nvbootctrl clears it, and every later
  update of that slot comes back. [the same file; NVIDIA's forum 340715 and 239055; WendyOS-Builder pull request 41]
- Without RootfsRedundancyLevel = 1 a switch is taken, and ignored at boot. [WendyOS' rootfs-redundancy script]
- With BootChainFwStatus left over from an earlier switch, the device boots the same slot again.
  [worldcoin's orb-slot-ctrl, which removes it; edk2-nvidia removes it before its own switch]
- JetPack 4 prints other lines; there is "RootFS A/B is not enabled" too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from firmware_configs.update.machine import SLOTS, Machine
from wire.errors import UpdateError

__all__ = ["Table", "activate", "check_redundancy", "current_slot", "look"]

_GUID = "781e084c-a330-417c-b678-38e696380cb9"  # NVIDIA's public variables
_ATTRIBUTES = 7  # non-volatile, boot service and run-time access
_NORMAL, _BOTH = 0, 1  # RootfsStatusSlotX; RootfsRedundancyLevel of bootloader and root file system
_STATUS = re.compile(r"^slot: ([01]),\s+(?:retry_count: [0-9]+,\s+)?status: ([a-z]+)\s*$", re.MULTILINE)
_GET_FLAGS, _SET_FLAGS, _IMMUTABLE = 0x80086601, 0x40086602, 0x10  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL


@dataclass(frozen=True, slots=True)
class Table:
    """What the firmware says.

    Attributes:
        current: The slot that runs.
        active: The slot that the next boot takes.
        status: Slot -> "normal" or "unbootable".
    """

    current: str
    active: str
    status: dict[str, str]


def current_slot(machine: Machine) -> str:
    """The slot that runs, "A" or "B". Raises UpdateError."""
    said = machine.run(["nvbootctrl", "get-current-slot"]).strip()
    if said not in ("0", "1"):
        raise _strange("get-current-slot", said)
    return SLOTS[int(said)]


def look(machine: Machine) -> Table:
    """Read both tables.

    Raises:
        UpdateError: nvbootctrl fails or prints what we do not know, or the tables disagree.
    """
    boot, root = (_table(machine, kind) for kind in ("bootloader", "rootfs"))
    if (boot.current, boot.active) != (root.current, root.active):
        raise UpdateError(
            f"nvbootctrl: bootloader {boot.current}, next {boot.active}, but root file system {root.current}, next "
            f"{root.active}; they switch together: power the device off and on, and if they still differ, flash it"
        )
    status = {
        slot: "normal" if {boot.status[slot], root.status[slot]} == {"normal"} else "unbootable" for slot in SLOTS
    }
    return Table(root.current, root.active, status)


def check_redundancy(machine: Machine) -> None:
    """Raise UpdateError where the firmware would take a switch and ignore it at boot."""
    level = _read(machine, "RootfsRedundancyLevel")
    if level != _BOTH:
        raise UpdateError(
            f"UEFI's RootfsRedundancyLevel is {'not there' if level is None else level}, expected {_BOTH}: this device "
            "has one root file system for its firmware; flash it with an image that was made with --ab"
        )


def activate(machine: Machine, slot: str) -> None:
    """Let the next boot take `slot`.

    Raises:
        UpdateError: The firmware does not say afterwards that it will.
    """
    if _read(machine, f"RootfsStatusSlot{slot}") != _NORMAL:
        machine.before("status")
        _write(machine, f"RootfsStatusSlot{slot}", _NORMAL)
    machine.before("remove")
    _remove(machine, "BootChainFwStatus")
    machine.before("switch")
    machine.run(["nvbootctrl", "set-active-boot-slot", str(SLOTS.index(slot))])
    found = look(machine)
    if found.active != slot or found.status[slot] != "normal":
        raise UpdateError(
            f"nvbootctrl was told to boot slot {slot} and says: next {found.active}, slot {slot} "
            f"{found.status[slot]}; power the device off and on and try again; if it stays, flash the device"
        )


def _table(machine: Machine, kind: str) -> Table:
    text = machine.run(["nvbootctrl", "-t", kind, "dump-slots-info"])
    found = [re.search(rf"^{word} {kind} slot: ([AB])\s*$", text, re.MULTILINE) for word in ("Current", "Active")]
    status = {SLOTS[int(number)]: word for number, word in _STATUS.findall(text)}
    if not (found[0] and found[1] and status.keys() == set(SLOTS)):
        raise _strange(f"-t {kind} dump-slots-info", text)
    return Table(found[0][1], found[1][1], status)


def _strange(command: str, text: str) -> UpdateError:
    said = " ".join(text.split())[:200]
    return UpdateError(
        f"nvbootctrl {command} says {said!r}, which is not what JetPack 6 and 7 say of a device with two root file "
        "systems; update to one of these, or flash an image that was made with --ab"
    )


def _variable(machine: Machine, name: str) -> Path:
    return machine.efivars / f"{name}-{_GUID}"


def _read(machine: Machine, name: str) -> int | None:
    """The value of a variable of 4 bytes; None where it is not there."""
    try:
        content = _variable(machine, name).read_bytes()
        return int(struct.unpack("<II", content)[1])
    except FileNotFoundError:
        return None
    except (OSError, struct.error) as error:
        raise UpdateError(f"UEFI variable {name} cannot be read ({error}); flash the device") from error


def _write(machine: Machine, name: str, value: int) -> None:
    """Set a variable: the kernel wants attributes and value in one write."""
    path = _variable(machine, name)
    try:
        with _changeable(path):
            file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.write(file, struct.pack("<II", _ATTRIBUTES, value))
            finally:
                os.close(file)
    except OSError as error:
        raise UpdateError(f"UEFI variable {name} cannot be set ({error.strerror}); run this as root") from error


def _remove(machine: Machine, name: str) -> None:
    path = _variable(machine, name)
    try:
        with _changeable(path):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UpdateError(f"UEFI variable {name} cannot be removed ({error.strerror}); run this as root") from error


@contextlib.contextmanager
def _changeable(path: Path) -> Iterator[None]:
    """The kernel marks variables as immutable, so that nobody deletes one by mistake: take the mark off."""
    if path.exists():
        file = os.open(path, os.O_RDONLY)
        try:
            flags = struct.unpack("i", fcntl.ioctl(file, _GET_FLAGS, b"\0" * 4))[0]
            if flags & _IMMUTABLE:
                fcntl.ioctl(file, _SET_FLAGS, struct.pack("i", flags & ~_IMMUTABLE))
        finally:
            os.close(file)
    yield
