"""Tries a slot: counts its boots, keeps it when it publishes, and goes back when it does not.

    boot:     no trial --> may this release run?       trial, other slot --> the trial is over       trial --> counted
    confirm:  N releases accepted --> kept             not in time --> the old slot, reboot

The record is written before what depends on it, so the power may go at any step: the slot that the firmware then boots
finds in the record what to do. Two nets lie below: the firmware counts boots that nobody called good (NVIDIA's service,
which calls them good, waits for `confirm`), and `update-back`, a shell script, runs where `boot` or `confirm` fails.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NoReturn

from firmware_configs.update.machine import OTHER, Machine
from firmware_configs.update.published import Published, published, where
from firmware_configs.update.record import OUTCOMES, Record
from firmware_configs.update.slots import activate, check_redundancy, current_slot, look
from wire.errors import UpdateError

__all__ = ["DEADLINE_S", "MOST_BOOTS", "WANTED", "boot", "confirm", "roll_back", "try_slot"]

log = logging.getLogger("veilsight.update")
WANTED = 60
"""Releases that the broker must have accepted from a new system: a minute of them."""
DEADLINE_S = 2700.0
"""How long it may take: the first start of an engine may build its files for 30 minutes."""
MOST_BOOTS = 3
_LOOK_S = 2.0


def try_slot(machine: Machine, slot: str, record: Record) -> None:
    """Put `slot`, which is written whole, on trial from the next boot on. Raises UpdateError; then nothing is tried."""
    trying = record.trying(slot, OTHER[slot])
    (machine.folder / "back-tries").unlink(missing_ok=True)  # the count of packages/units/.../update-back
    trying.save(machine)
    try:
        activate(machine, slot)
    except UpdateError:
        trying.given_up().save(machine)
        with contextlib.suppress(UpdateError):  # if it boots that slot nevertheless, `boot` leaves it
            activate(machine, OTHER[slot])
        raise


def boot(machine: Machine) -> str:
    """Do what an early unit does at every boot; returns a sentence for the journal.

    Raises:
        UpdateError: This slot may not run, or is left for the other one, or the firmware or the record cannot be read:
            nothing may publish.
    """
    record = Record.load(machine)
    if record == Record():
        return "this device was never updated"  # so nothing can be wrong with its slot
    current = current_slot(machine)
    if record.trial == current:
        return _count(machine, replace(record, attempts=record.attempts + 1), current)
    if record.trial:
        record = record.given_up()
        record.save(machine)
        log.error("the update %s", OUTCOMES[record.outcome])
    if record.may_run(current):
        if record.attempts:
            replace(record, attempts=0).save(machine)
        _stay(machine, current)
        told = f"the last update {OUTCOMES[record.outcome]}"
        return f"slot {current}, release {record.release(current) or 'unknown'}; {told}"
    _flee(machine, replace(record, attempts=record.attempts + 1), current)


def _stay(machine: Machine, current: str) -> None:
    """See that the next boot takes the slot that runs; it may publish all the same where that cannot be seen."""
    try:
        if look(machine).active != current:
            activate(machine, current)
    except UpdateError as error:
        log.error("%s", error)


def _count(machine: Machine, record: Record, current: str) -> str:
    """A boot of the slot on trial."""
    record.save(machine)
    if record.attempts > 2 * MOST_BOOTS:
        raise UpdateError(
            f"slot {current} failed its trial, and the firmware does not leave it; power the device off and on; if it "
            "still boots this slot, flash it"
        )
    if record.attempts > MOST_BOOTS:
        _leave(machine, record, by_hand=False)
        raise UpdateError(f"slot {current} was booted {MOST_BOOTS} times and has not published enough; going back")
    return f"slot {current}, release {record.release(current)}, on trial: boot {record.attempts} of {MOST_BOOTS}"


def _flee(machine: Machine, record: Record, current: str) -> NoReturn:
    """Leave a slot that may not run, for the other one where that may."""
    record.save(machine)
    other = OTHER[current]
    if not record.may_run(other) or look(machine).status[other] != "normal" or record.attempts > MOST_BOOTS:
        record.refuse_old(record.release(current), 0, f"slot {current}")
        raise UpdateError(
            f"slot {current} was not written whole or has failed, and slot {other} cannot be booted; install a bundle; "
            f"or, where the device was flashed since, remove {machine.folder / 'record.json'}"
        )
    activate(machine, other)
    machine.before("reboot")
    machine.run(["systemctl", "reboot"])
    raise UpdateError(f"slot {current}, release {record.release(current) or 'unknown'}, may not run; going to {other}")


def confirm(
    machine: Machine,
    wanted: int = WANTED,
    deadline_s: float = DEADLINE_S,
    ask: Callable[[str, int], Published | None] = published,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Keep the slot on trial once it has published; go back to the other one where it does not in time.

    Args:
        machine: The device.
        wanted: Releases that the broker must have accepted of each camera of the box.
        deadline_s: How long to wait for them.
        ask: Asks a gate's local page.
        sleep: Waits.

    Returns:
        A sentence for the journal.

    Raises:
        UpdateError: The record or the firmware cannot be read, or the way back cannot be taken.
    """
    record = Record.load(machine)
    if not record.trial or record.trial != current_slot(machine):
        return "nothing is on trial"
    places, began, seen = where(machine), time.monotonic(), dict[str, Published | None]()
    while time.monotonic() - began < deadline_s:
        seen = {camera: ask(*place) for camera, place in places.items()}
        if all(found is not None and found.enough(wanted) for found in seen.values()):
            kept = record.kept()
            kept.save(machine)
            return f"slot {record.trial} is kept: {_told(seen, 0)}; floor {kept.floor}"
        sleep(_LOOK_S)
    _leave(machine, record, by_hand=False)
    shown = _told(seen, wanted)
    return f"slot {record.trial} has not published {wanted} releases in {deadline_s:g} s ({shown}); going back"


def _told(seen: Mapping[str, Published | None], wanted: int) -> str:
    """What the pages of the cameras show that have not enough; of all, where nothing is wanted."""
    parts = []
    for camera, found in seen.items():
        if found is None:
            parts.append(f"{camera}: the gate's page did not answer")
        elif not wanted or not found.enough(wanted):
            parts.append(f"{camera}: {found.accepted} releases were accepted, {found.seen} not of noise alone")
    return "; ".join(parts) or "no page was asked"


def roll_back(machine: Machine) -> str:
    """Go to the other slot by hand: leave a trial, or put the other slot on trial. Raises UpdateError."""
    record, current = Record.load(machine), current_slot(machine)
    if record.trial == current:
        _leave(machine, record, by_hand=True)
        return f"going back to slot {OTHER[current]}"
    if record.trial:
        raise UpdateError(f"slot {record.trial} goes on trial at the next boot; reboot first")
    other = OTHER[current]
    if record.is_bad(other) or not record.release(other):
        state = "bad: half written, failed or withdrawn" if record.is_bad(other) else "of an unknown release"
        raise UpdateError(f"slot {other} is {state}; install a bundle instead")
    record.refuse_old(record.release(other), 0, f"slot {other}")
    check_redundancy(machine)
    try_slot(machine, other, replace(record, next_release=record.release(other), next_floor=record.floor))
    return f"slot {other}, release {record.release(other)}, goes on trial at the next boot"


def _leave(machine: Machine, record: Record, by_hand: bool) -> None:
    """Boot the other slot. The trial stays on record until that slot runs: it ends it."""
    record.leaving(by_hand).save(machine)
    activate(machine, OTHER[record.trial])
    machine.before("reboot")
    machine.run(["systemctl", "reboot"])
