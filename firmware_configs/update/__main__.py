"""The device's command: `veilsight-update install FILE`, status, confirm, rollback; and what systemd and RAUC call.

veilsight-update install FILE.raucb [--reboot]   rollback   status [--json]       by an operator, as root
veilsight-update boot   confirm                                                  by systemd, at every boot
veilsight-update accept   backend ...                                            by RAUC
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from firmware_configs.update.install import accept, backend, install
from firmware_configs.update.machine import SLOTS, Machine
from firmware_configs.update.record import OUTCOMES, Record
from firmware_configs.update.slots import look
from firmware_configs.update.trial import DEADLINE_S, WANTED, boot, confirm, roll_back
from wire.errors import UpdateError

__all__ = ["main", "status"]


def status(machine: Machine) -> dict[str, object]:
    """What an operator wants to know. Raises UpdateError."""
    record, table = Record.load(machine), look(machine)
    return {
        "slot": table.current,
        "next boot": table.active,
        "on trial": record.trial,
        "floor": record.floor,
        "last update": OUTCOMES[record.outcome],
        **{
            f"slot {slot}": f"release {record.release(slot) or 'unknown'}, {table.status[slot]}"
            + (", must not be booted" if record.is_bad(slot) else "")
            for slot in SLOTS
        },
        "record": asdict(record),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="veilsight-update", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("install", help="write a bundle to the other slot and try it at the next boot")
    one.add_argument("bundle", type=Path)
    one.add_argument("--reboot", action="store_true", help="and boot it")
    one = commands.add_parser("status", help="say which slot runs, which boots next, and how the last update ended")
    one.add_argument("--json", action="store_true", help="for a program")
    commands.add_parser("rollback", help="go to the other slot at the next boot, on trial")
    commands.add_parser("boot", help="for systemd, at every boot: count a trial, refuse a withdrawn release")
    one = commands.add_parser("confirm", help="for systemd: keep the slot on trial once it publishes")
    one.add_argument("--releases", type=int, default=WANTED, help="that the broker must accept (default: %(default)s)")
    one.add_argument("--deadline", type=float, default=DEADLINE_S, help="seconds for it (default: %(default)g)")
    commands.add_parser("accept", help="for RAUC: the pre-install handler")
    one = commands.add_parser("backend", help="for RAUC: its bootloader")
    one.add_argument("words", nargs=argparse.REMAINDER)
    return parser


def _run(machine: Machine, args: argparse.Namespace) -> str:
    match args.command:
        case "install":
            said = install(machine, args.bundle)
            if args.reboot:
                machine.run(["systemctl", "reboot"])
            return said
        case "status":
            found = status(machine)
            if args.json:
                return json.dumps(found)
            return "\n".join(f"{name:12} {value or '-'}" for name, value in found.items() if name != "record")
        case "rollback":
            return roll_back(machine)
        case "boot":
            return boot(machine)
        case "confirm":
            return confirm(machine, args.releases, args.deadline)
        case "accept":
            return accept(machine, os.environ)
    return backend(machine, args.words)


def main(argv: Sequence[str] | None = None, machine: Machine | None = None) -> int:
    """Run the command and return its exit status: 0, or 2 with one line on stderr."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        said = _run(machine or Machine(), args)
    except UpdateError as error:
        print(f"veilsight-update: {error}", file=sys.stderr)
        return 2
    if said:
        print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
