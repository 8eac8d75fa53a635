"""The flash plan of a board, and flash.sh, which is made of it.

    board row --> steps: NVIDIA's files, ours over them, packages   --> flash.sh, flash_plan.json
                  then one of: one board | many boards | an encrypted root file system

Which of the three ends is taken, and with which of the integrator's keys, is said to flash.sh when it runs: keys are
no part of an image. Nothing is run here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from firmware_configs.boards import Board
from firmware_configs.two_slots import STATE
from firmware_configs.two_slots import flash_command as two_slots_flash

__all__ = ["Step", "encrypted_steps", "mass_steps", "plan", "quote", "script", "steps"]

_HERE = Path(__file__).resolve().parent
_QSPI = "-c bootloader/generic/cfg/flash_t234_qspi.xml"
_SIGNING = "${signing[@]}"  # -u, -v, --uefi-keys, --uefi-enc and their files, where they were given
_BLOCKS = ("ENCRYPTED", "MASS", "ONE")


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the flash plan and why it is there; `$names` are flash.sh's variables."""

    why: str
    run: tuple[str, ...]


def steps(row: Board, two_slots: bool = False) -> tuple[Step, ...]:
    """Return the flash plan, in order: board support package, root file system, drivers, our files, flash."""
    flash = _as_root(_command(row, two_slots, ()))
    return (*_prepared(row, two_slots), Step(f"flash; the root file system goes to {row.storage}", flash))


def mass_steps(row: Board, two_slots: bool = False) -> tuple[Step, ...]:
    """Return what stands in place of the last step where several boards are flashed at once.

    Source: NVIDIA's README_initrd_flash.txt, workflow 6: the images first, with one board, then all boards with them.
    """
    images = _as_root(_command(row, two_slots, ("--no-flash", "--massflash", "$massflash")))
    tool = _tool(row)
    # Since Jetson Linux 38 the tool asks for the board's name here too.
    name = (row.flash_config,) if int(row.release[0]) >= 38 else ()
    flash = (tool, "--flash-only", "--massflash", "$massflash", "--network", "usb0", "--showlogs", *name)
    return (
        Step("images for all boards, made with the first one", images),
        Step("all boards are in recovery mode", ("all_in_recovery", *row.recovery_usb)),
        Step(f"flash all of them; the root file system goes to {row.storage}", _as_root(flash)),
    )


def encrypted_steps(row: Board) -> tuple[Step, ...]:
    """Return what stands in place of the last step where the root file system is encrypted; () where none is known.

    Source: NVIDIA's developer guide, disk encryption, and README_initrd_flash.txt, workflow 10.
    """
    if not row.layout_encrypted:
        return ()
    tool, ready = _tool(row), Step("the board is in recovery mode", ("in_recovery", *row.recovery_usb))
    if row.layout_encrypted == "internal":
        flash = _insert(row.flash, (_SIGNING, "-i", "$disk_key"))
        return (Step(f"flash; the root file system on {row.storage} is encrypted", _encrypting(flash)),)
    over = ("--showlogs", "--network", "usb0")
    firmware = (tool, _SIGNING, "--no-flash", *over, "-p", _QSPI, row.flash_config, "internal")
    root: tuple[str, ...] = (tool, _SIGNING, "--no-flash", *over, "--external-device", row.storage, "-i", "$disk_key")
    root = (*root, "-c", row.layout_encrypted, "--external-only", "--append", row.flash_config, "external")
    return (
        Step("images of the boot firmware", _as_root(firmware)),
        ready,
        Step(f"an encrypted root file system for {row.storage}", _encrypting(root)),
        ready,
        Step("flash both", _as_root((tool, _SIGNING, *over, "--flash-only"))),
    )


def plan(row: Board, cameras: Sequence[str], model_id: str, packages: Sequence[str], two_slots: bool) -> str:
    """Return the document that a program reads, in place of flash.sh."""
    document = {
        "board": asdict(row),
        "cameras": [*cameras],
        "model_id": model_id,
        "packages": [*packages],
        "outside_the_slots": [asdict(part) for part in STATE] if two_slots else [],
        "steps": _listed(steps(row, two_slots)),
        "instead_of_the_last": {
            "--massflash": _listed(mass_steps(row, two_slots)),
            "--disk-key": [] if two_slots else _listed(encrypted_steps(row)),
        },
    }
    return json.dumps(document, indent=2) + "\n"


def script(row: Board, two_slots: bool, image: Mapping[str, bool]) -> str:
    """Return flash.sh.

    Args:
        row: The board.
        two_slots: It has two root file systems.
        image: What flash.sh must know of the image: "per_device", "csi".
    """
    *prepared, flash = steps(row, two_slots)
    encrypted = () if two_slots else encrypted_steps(row)
    blocks = {"ENCRYPTED": encrypted, "MASS": mass_steps(row, two_slots), "ONE": (flash,)}
    values = {
        "NAME": row.name,
        "MODULE": row.module,
        "L4T": row.l4t,
        "JETPACK": row.jetpack,
        "STORAGE": row.storage,
        "PER_DEVICE": _yes(image["per_device"]),
        "CSI": _yes(image["csi"]),
        "AB": _yes(two_slots),
        "ENCRYPTABLE": _yes(bool(encrypted_steps(row))),
        "HAS_EKS": _yes(bool(row.eks)),
        "KEY_LIST": _yes(int(row.release[0]) >= 38),  # [L] Thor's PKC is a list of keys in XML
        "STEPS": _lines(prepared),
        **{f"{name}_STEPS": _lines(blocks[name], "    ") for name in _BLOCKS},
    }
    text = (_HERE / "flash.sh.in").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def quote(word: str) -> str:
    """A word for bash: `$name` is a variable of the script, everything else is literal."""
    return f'"{word}"' if "$" in word else shlex.quote(word)


def _prepared(row: Board, two_slots: bool) -> tuple[Step, ...]:
    major, revision = row.release
    parts = Step("partitions that no update writes", ("add_partitions", row.layout_ab))
    keys = Step("OP-TEE's encrypted key blob, if one was given", ("maybe_put_eks", row.eks))
    return (
        Step("NVIDIA's board support package", ("tar", "xf", "$bsp", "-C", "$work")),
        Step("NVIDIA's root file system", ("as_root", "tar", "xpf", "$rootfs", "-C", "$l4t/rootfs")),
        Step("what the flashing tools need on this host", ("in_l4t", "as_root", "./tools/l4t_flash_prerequisites.sh")),
        Step("NVIDIA's drivers into it", ("in_l4t", "as_root", "./apply_binaries.sh", *row.apply_binaries)),
        Step(
            f"it is Jetson Linux {row.l4t}, which the engine and the units were written for",
            ("grep", "-F", f"R{major} (release), REVISION: {revision},", "$l4t/rootfs/etc/nv_tegra_release"),
        ),
        Step(
            "what belongs to this device over the root file system",
            ("as_root", "cp", "-rP", "--preserve=mode", "$here/overlay/.", "$l4t/rootfs/"),
        ),
        Step("our packages into it, by its own dpkg", ("install_packages",)),
        Step("a login user, if one was asked for", ("maybe_create_admin",)),
        Step("nothing in it that is one device's own", ("nothing_of_one_device",)),
        Step("the board is in recovery mode", ("in_recovery", *row.recovery_usb)),
        *([parts] if two_slots else []),
        *([keys] if row.eks else []),
    )


def _tool(row: Board) -> str:
    return f"./{row.flash[0]}"


def _command(row: Board, two_slots: bool, more: tuple[str, ...]) -> tuple[str, ...]:
    """The board's flash command, with the integrator's keys, and with `more` options."""
    if "--massflash" in more and "--network" not in row.flash:
        more = (*more, "--network", "usb0")
    if not two_slots:
        return _insert(row.flash, (_SIGNING, *more))
    command = two_slots_flash(row)
    at = command.index(_tool(row)) + 1
    return (*command[:at], _SIGNING, *more, *command[at:])


def _insert(flash: tuple[str, ...], words: tuple[str, ...]) -> tuple[str, ...]:
    return (f"./{flash[0]}", *words, *flash[1:])


def _as_root(command: tuple[str, ...]) -> tuple[str, ...]:
    return ("in_l4t", "as_root", *command)


def _encrypting(command: tuple[str, ...]) -> tuple[str, ...]:
    return _as_root(("env", "ROOTFS_ENC=1", *command))


def _lines(found: Sequence[Step], indent: str = "") -> str:
    lines = [f"{indent}step {shlex.quote(step.why)} {' '.join(map(quote, step.run))}" for step in found]
    return "\n".join(lines) or f"{indent}die 'there is no such plan for this board'"


def _listed(found: Sequence[Step]) -> list[dict[str, object]]:
    return [{"why": step.why, "run": [*step.run]} for step in found]


def _yes(value: bool) -> str:
    return "yes" if value else "no"
