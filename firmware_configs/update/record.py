"""What the device remembers of its updates, on a partition that no update writes: the floor, the slots, the trial.

    veilsight-update/record.json: counts with a checksum, replaced whole and durably (wire/files.py)

While a slot is on trial, `target` is that slot and `back` the one to go back to; both are 0 otherwise. The shell script
`update-back`, which must work where our Python does not, reads `back` out of this very file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace

from firmware_configs.update.machine import SLOTS, Machine
from wire.errors import UpdateError
from wire.files import load_counts, make_folder, save_counts

__all__ = ["OUTCOMES", "Record"]

_OWNER = "veilsight-update"
OUTCOMES = (
    "none yet",
    "is on trial",
    "published, and is kept",
    "was never booted: the firmware did not switch (install again, then power the device off and on, without reboot)",
    "was left by the firmware, or its power went, before it had published enough",
    "did not publish enough in time",
    "was taken back by hand",
)
"""How the last update ended: `Record.outcome` is an index into these."""
_NONE, _TRIAL, _KEPT, _NEVER, _LEFT, _SILENT, _BY_HAND = range(len(OUTCOMES))


@dataclass(frozen=True)
class Record:
    """The record.

    Attributes:
        floor: No release below it may run; grows only when a release is kept.
        release_a: Release in slot A; 0: unknown, as after flashing.
        release_b: Likewise.
        bad_a: 1: slot A is being written, or its release failed; 0: it may be booted.
        bad_b: Likewise.
        target: The slot on trial, 1 for A and 2 for B; 0: none.
        back: The slot to go back to, likewise.
        attempts: How often the slot on trial was booted.
        next_release: Of the bundle that is being installed, or that is on trial; 0: none.
        next_floor: The floor that it brings.
        outcome: How the last trial ended, an index into OUTCOMES.
    """

    floor: int = 0
    release_a: int = 0
    release_b: int = 0
    bad_a: int = 0
    bad_b: int = 0
    target: int = 0
    back: int = 0
    attempts: int = 0
    next_release: int = 0
    next_floor: int = 0
    outcome: int = _NONE

    @classmethod
    def load(cls, machine: Machine) -> Record:
        """Read it; a device that was never updated has none. Raises UpdateError where it is damaged."""
        file = machine.folder / "record.json"
        try:
            counts, owner = load_counts(file, [each.name for each in fields(cls)])
            if owner != _OWNER:
                raise ValueError("it is another program's")
            record = cls(**counts)
            if not (record.target <= 2 and record.back <= 2 and record.outcome < len(OUTCOMES)):
                raise ValueError("a value is out of range")
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError) as error:
            raise UpdateError(
                f"{file}: unreadable ({error}), so the lowest release that may run here is unknown; if you know that "
                "the running release is the newest, remove the file"
            ) from error
        return record

    def save(self, machine: Machine) -> None:
        """Write it durably. Raises UpdateError."""
        machine.before("record")
        file = machine.folder / "record.json"
        try:
            make_folder(machine.folder)
            save_counts(file, asdict(self), _OWNER)
        except OSError as error:
            raise UpdateError(f"{file}: {error.strerror}; free space on that partition, or run this as root") from error

    def release(self, slot: str) -> int:
        """The release in `slot`."""
        return self.release_a if slot == "A" else self.release_b

    def is_bad(self, slot: str) -> bool:
        """Whether `slot` must not be booted."""
        return bool(self.bad_a if slot == "A" else self.bad_b)

    def may_run(self, slot: str) -> bool:
        """Whether `slot` was written whole, has not failed, and is not withdrawn; one of an unknown release is 0."""
        return not self.is_bad(slot) and self.release(slot) >= self.floor

    @property
    def trial(self) -> str:
        """The slot on trial; "" for none."""
        return SLOTS[self.target - 1] if self.target else ""

    def refuse_old(self, release: int, floor: int, what: str) -> None:
        """Raise UpdateError where `release`, which brings `floor`, is withdrawn; `what` names it in the message."""
        lowest = max(self.floor, floor)
        if release < lowest:
            raise UpdateError(
                f"{what} is release {release or 'unknown'}; releases below {lowest} are withdrawn; install release "
                f"{lowest} or newer"
            )

    # --- each gives the next record

    def writing(self, slot: str) -> Record:
        """`slot` is written from now on: what it held is gone."""
        return self._with(slot, release=0, bad=1)

    def trying(self, slot: str, back: str) -> Record:
        """`slot`, written whole with `next_release`, goes on trial."""
        ready = self._with(slot, release=self.next_release, bad=0)
        places = {"target": SLOTS.index(slot) + 1, "back": SLOTS.index(back) + 1}
        return replace(ready, **places, attempts=0, outcome=_TRIAL)

    def kept(self) -> Record:
        """The slot on trial is the device's from now on."""
        floor = max(self.floor, self.next_floor)
        return replace(self._ended(), floor=floor, outcome=_KEPT)

    def given_up(self) -> Record:
        """The slot on trial is not booted again."""
        bad = self._with(self.trial, self.release(self.trial), bad=1)
        told = self.outcome if self.outcome != _TRIAL else _LEFT if self.attempts else _NEVER
        return replace(bad._ended(), outcome=told)

    def leaving(self, by_hand: bool) -> Record:
        """The slot on trial is about to be left; the other slot ends the trial."""
        return replace(self, outcome=_BY_HAND if by_hand else _SILENT)

    def _ended(self) -> Record:
        return replace(self, target=0, back=0, attempts=0, next_release=0, next_floor=0)

    def _with(self, slot: str, release: int, bad: int) -> Record:
        letter = slot.lower()
        return replace(self, **{f"release_{letter}": release, f"bad_{letter}": bad})
