#!/usr/bin/env python3
"""A Jetson's firmware and `nvbootctrl`, in files: as NVIDIA's edk2-nvidia has them, and with the faults people report.

    jetson = FakeJetson(folder); jetson.fault = "ignores"; jetson.power_on() -> "A"
    fake_jetson.py FOLDER nvbootctrl set-active-boot-slot 1      the same, as a command on PATH

The register that counts boots (`SR_RF`) keeps its value over a reboot and loses it with the power, as there. After
L4TRootfsValidation.c: a boot lowers the count of its slot; at 0 the slot is marked 0xFF and the other one is booted.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["FAULTS", "FakeJetson"]

GUID = "781e084c-a330-417c-b678-38e696380cb9"
MOST = 3  # RootfsRetryCountMax
FAULTS = {
    "": "none",
    "ignores": "set-active-boot-slot succeeds and changes nothing",
    "unarmed": "it succeeds and says so, and the next boot takes the old slot",
    "stuck": "a slot at 0xFF stays there, whatever is written",
    "version": "it prints what JetPack 4 printed",
    "single": "RootFS A/B is not enabled",
    "apart": "bootloader and root file system differ",
    "fails": "every command ends with an error",
}
JETPACK_4 = """\
Current bootloader slot: A
magic:0x43424e00,             version: 5             features: 3             num_slots: 2
slot: 0,             priority: 15,             suffix: _a,             retry_count: 7,             boot_successful: 1
slot: 1,             priority: 14,             suffix: _b,             retry_count: 7,             boot_successful: 1
"""


class FakeJetson:
    """The firmware's variables, its register, and what its tool answers.

    Attributes:
        efivars: The folder of the variables.
        fault: A key of FAULTS.
    """

    def __init__(self, folder: Path) -> None:
        self.efivars, self._notes = folder / "efivars", folder / "firmware.json"
        if not self._notes.exists():
            self.efivars.mkdir(parents=True)
            self._keep({"fault": "", "register": {}, "calls": []})
            for name, value in (("StatusSlotA", 0), ("StatusSlotB", 0), ("RedundancyLevel", 1)):
                self.set(f"Rootfs{name}", value)
            self.set("BootChainFwCurrent", 0)

    @property
    def fault(self) -> str:
        return str(json.loads(self._notes.read_text())["fault"])

    @fault.setter
    def fault(self, name: str) -> None:
        assert name in FAULTS
        self._keep({**json.loads(self._notes.read_text()), "fault": name})

    @property
    def register(self) -> dict[str, int]:
        """How often each slot may still be booted; empty once the power was gone."""
        return dict(json.loads(self._notes.read_text())["register"])

    @register.setter
    def register(self, value: dict[str, int]) -> None:
        self._keep({**json.loads(self._notes.read_text()), "register": value})

    def _keep(self, notes: dict[str, object]) -> None:
        self._notes.write_text(json.dumps(notes))

    def get(self, name: str) -> int | None:
        """The value of a variable; None where it is not there."""
        file = self.efivars / f"{name}-{GUID}"
        return int(struct.unpack("<II", file.read_bytes())[1]) if file.exists() else None

    def set(self, name: str, value: int | None) -> None:
        """Set a variable, or delete it."""
        file = self.efivars / f"{name}-{GUID}"
        if value is None:
            file.unlink(missing_ok=True)
        else:
            file.write_bytes(struct.pack("<II", 7, value))

    # --- the firmware

    def power_on(self, cold: bool = False) -> str:
        """Boot; returns the slot that is booted. cold: after the power was gone."""
        if cold:
            self.register = {}
        for _ in range(4):  # a switch resets the machine and begins anew
            slot = self._take_switch()
            if self._validate(slot):
                return slot
        raise AssertionError("the firmware boots its recovery: no slot is bootable")

    def _take_switch(self) -> str:
        wanted, status = self.get("BootChainFwNext"), self.get("BootChainFwStatus")
        armed = self.fault != "unarmed" and self.get("RootfsRedundancyLevel") == 1
        if armed and status is None and wanted not in (None, self.get("BootChainFwCurrent")):
            self.set("BootChainFwCurrent", wanted)
            self.set("BootChainFwStatus", 0)
        self.set("BootChainFwNext", None)
        return "AB"[self.get("BootChainFwCurrent") or 0]

    def _validate(self, slot: str) -> bool:
        """Count the boot; False where the slot is given up and the machine reset."""
        left = self.register or {each: 0 if self.get(f"RootfsStatusSlot{each}") == 0xFF else MOST for each in "AB"}
        if left[slot]:
            self.register = {**left, slot: left[slot] - 1}
            return True
        self.set(f"RootfsStatusSlot{slot}", 0xFF)
        other = "BA"["AB".index(slot)]
        assert left[other], "no slot is bootable"
        self.set("BootChainFwCurrent", "AB".index(other))  # by way of BootChainFwNext and a reset
        self.set("BootChainFwStatus", None)
        self.register = {}
        return False

    # --- its tool

    def nvbootctrl(self, words: Sequence[str]) -> tuple[int, str]:
        """Exit status and output of `nvbootctrl WORDS`."""
        kind = "bootloader"
        words = [*words]
        if words[:1] == ["-t"]:
            kind, words = words[1], words[2:]
        if self.fault == "fails":
            return 1, "Error: read variable BootChainFwCurrent failed!"
        current = self.get("BootChainFwCurrent") or 0
        if words == ["get-current-slot"]:
            return 0, f"{current}\n"
        if words == ["dump-slots-info"]:
            return 0, self._table(kind, current)
        if words == ["verify"]:
            self.register = {each: MOST if each == "AB"[current] else left for each, left in self.register.items()}
            return 0, "Info: variable BootChainFwStatus is not found.\n"
        if words[:1] == ["set-active-boot-slot"] and words[1:] in (["0"], ["1"]):
            if self.fault != "ignores":
                self.set("BootChainFwNext", int(words[1]))
            return 0, ""
        return 1, "Usage: nvbootctrl [-t <target>] <command>\n"

    def _table(self, kind: str, current: int) -> str:
        if self.fault == "single" and kind == "rootfs":
            return "RootFS A/B is not enabled\n"
        if self.fault == "version":
            return JETPACK_4
        pending = self.get("BootChainFwNext")
        active = current if pending is None else pending
        if self.fault == "apart" and kind == "rootfs":
            active = 1 - active
        lines = ["Current version: 36.4.4", "Capsule update status: 0"] if kind == "bootloader" else []
        lines += [f"Current {kind} slot: {'AB'[current]}", f"Active {kind} slot: {'AB'[active]}", "num_slots: 2"]
        for number, slot in enumerate("AB"):
            failed = self.get(f"RootfsStatusSlot{slot}") == 0xFF or (self.fault == "stuck" and slot == "B")
            status = "unbootable" if failed and kind == "rootfs" else "normal"
            count = f"             retry_count: {0 if failed else MOST}," if kind == "rootfs" else ""
            lines.append(f"slot: {number},{count}             status: {status}")
        return "\n".join(lines) + "\n"


if __name__ == "__main__":
    code, said = FakeJetson(Path(sys.argv[1])).nvbootctrl(sys.argv[3:])
    print(said, end="", file=sys.stderr if code else sys.stdout)
    sys.exit(code)
