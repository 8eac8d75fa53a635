"""A device with two slots that lives through updates: real updater, fake firmware, fake rauc, and power that may go.

    device = Device(tmp_path); device.install(2); device.live() -> "A" or "B", the slot in which it came to rest

What is in a slot: "good" publishes, "silent" comes up and publishes nothing, "panics" never comes up, "no python" comes
up and our Python does not, "half" was written when the power went.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from firmware_configs.update.install import accept, backend, install
from firmware_configs.update.machine import OTHER, Machine
from firmware_configs.update.published import Published
from firmware_configs.update.record import Record
from firmware_configs.update.release import IMAGE, NOTE, Release
from firmware_configs.update.trial import boot, confirm
from tests.support.fake_jetson import FakeJetson
from tests.support.services import PATIENCE_S, ROOT
from wire.errors import UpdateError

__all__ = ["EDGE_TOML", "Device", "PowerCut", "Reboot", "make_root"]

BACK = ROOT / "firmware_configs/packages/units/opt/veilsight/bin/update-back"
EDGE_TOML = """\
[device]
site = "site"
camera = "camera"
key = "/var/lib/veilsight/device.key"
state_dir = "/var/lib/veilsight"
[camera]
source = "0"
[engine]
folder = "/opt/veilsight/engine"
[broker]
url = "mqtt://127.0.0.1:1883"
[health]
listen = ":8080"
"""
ACCOUNTS = {
    "passwd": "root:x:0:0::/root:/bin/sh\nveilsight:x:971:971::/:/usr/sbin/nologin\n",
    "group": "root:x:0:\nveilsight:x:971:\n",
    "shadow": "root:*:1::::::\nveilsight:!:1::::::\n",
    "gshadow": "root:*::\nveilsight:!::\n",
}


class PowerCut(Exception):
    """The power went."""


class Reboot(Exception):
    """systemctl reboot."""


def make_root(root: Path) -> Path:
    """A small root file system of a Jetson, as a folder."""
    for name, text in ACCOUNTS.items():
        (root / "etc").mkdir(parents=True, exist_ok=True)
        (root / "etc" / name).write_text(text)
    (root / "boot/extlinux").mkdir(parents=True)
    (root / "boot/extlinux/extlinux.conf").write_text("LABEL primary\n  APPEND ${cbootargs} root=/dev/nvme0n1p1 rw\n")
    return root


class Device:
    """The device.

    Attributes:
        jetson: Its firmware.
        slots: What is in each slot.
        cut_at: The step before which the power goes; steps are counted from 0 in `steps`.
        boots: Slots that were booted, in order.
        served: Slots in which the gate was allowed to publish at the last boot.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.jetson = folder, FakeJetson(folder / "firmware")
        self.slots, self.cut_at, self.steps = {"A": "good", "B": "empty"}, -1, list[str]()
        self.boots, self.served, self._next = list[str](), "", "good"
        (folder / "state").mkdir()
        (folder / "edge.toml").write_text(EDGE_TOML)
        self.root = make_root(folder / "root")
        for slot in "AB":
            (folder / f"slot-{slot}").write_bytes(b"\0" * 4096)
        self.answer: Callable[[], Published | None] = lambda: Published(99, 99, True)
        self.at = self.jetson.power_on(cold=True)

    @property
    def machine(self) -> Machine:
        return Machine(
            folder=self.folder / "state",
            efivars=self.jetson.efivars,
            config=self.folder / "edge.toml",
            root=self.root,
            partitions={slot: self.folder / f"slot-{slot}" for slot in "AB"},
            run=self._run,
            before=self._before,
        )

    @property
    def record(self) -> Record:
        return Record.load(self.machine)

    def _before(self, step: str) -> None:
        if len(self.steps) == self.cut_at:
            self.cut_at = -1
            raise PowerCut(step)
        self.steps.append(step)

    # --- commands

    def _run(self, command: Sequence[str], _timeout_s: float = 0.0) -> str:
        name, words = command[0], [*command[1:]]
        if name == "nvbootctrl":
            code, said = self.jetson.nvbootctrl(words)
            if code:
                raise UpdateError(f"nvbootctrl failed ({code}): {said}")
            return said
        if name == "systemctl":
            raise Reboot
        answers = {
            "findmnt": str(self.machine.folder if "TARGET" in words else self.machine.partitions[self.at]),
            "blkid": "2534d15b-e6fb-4265-b913-e042ab311f4f",
            "mount": "",
            "umount": "",
        }
        return self._rauc(Path(words[1])) if name == "rauc" else answers[name]

    def _rauc(self, bundle: Path) -> str:
        """As `rauc install` goes: its handler, its bootloader, and the image; nothing is made active."""
        digest = hashlib.sha256((bundle.parent / "content" / IMAGE).read_bytes()).hexdigest()
        accept(self.machine, {"RAUC_BUNDLE_MOUNT_POINT": str(bundle.parent / "content"), "RAUC_IMAGE_DIGEST_1": digest})
        slot = OTHER[self.at]
        backend(self.machine, ["set-state", slot, "bad"])
        self._before("write")
        self.slots[slot] = "half"
        self._before("write the rest")
        self.slots[slot] = self._next
        place = self.machine.folder / "slot"
        if not place.exists():
            make_root(place)
        (place / "boot/extlinux/extlinux.conf").write_text("APPEND root=/dev/nvme0n1p1 rw\n")
        return ""

    def bundle(self, release: int, floor: int = 0) -> Path:
        """A bundle of an image of 4 bytes."""
        content = self.folder / f"bundle-{release}-{floor}" / "content"
        content.mkdir(parents=True, exist_ok=True)
        (content / IMAGE).write_bytes(b"root")
        note = Release(release, floor, 4, hashlib.sha256(b"root").hexdigest())
        (content / NOTE).write_text(note.to_json())
        file = content.parent / "update.raucb"
        file.write_bytes(b"a bundle")
        return file

    def install(self, release: int, floor: int = 0, holds: str = "good") -> str:
        """Install a release whose slot then holds `holds`; raises UpdateError, or PowerCut."""
        self._next = holds
        return install(self.machine, self.bundle(release, floor))

    # --- life

    def live(self, cold: bool = False, always_cold: bool = False, most: int = 40) -> str:
        """Boot, again and again, until a system stays up; returns its slot. cold: at first the power was gone."""
        for _ in range(most):
            self.at = self.jetson.power_on(cold)
            self.boots.append(self.at)
            try:
                self.served = ""
                if self._come_up(self.slots[self.at]):
                    return self.at
                cold = always_cold
            except PowerCut:
                cold = True
            except Reboot:
                cold = always_cold
        raise AssertionError(f"it reboots for ever: {self.boots}")

    def _come_up(self, system: str) -> bool:
        """One boot; False where the machine resets itself."""
        if system in ("panics", "half", "empty"):
            return False
        if system == "no python":
            return not self._back()
        try:
            boot(self.machine)
            self.served = self.at
            confirm(self.machine, 60, 0.05 if system == "silent" else PATIENCE_S, self._ask, lambda seconds: None)
        except UpdateError:
            self.served = ""
            return not self._back()
        self.jetson.nvbootctrl(["verify"])  # NVIDIA's service, which waits for `confirm`
        return True

    def _ask(self, host: str, port: int) -> Published | None:
        assert (host, port) == ("127.0.0.1", 8080)
        return Published(0, 0, True) if self.slots[self.at] == "silent" else self.answer()

    def _back(self) -> bool:
        """Run the shell script that systemd runs where our units fail; True where it reboots."""
        tools = self.folder / "tools"
        tools.mkdir(exist_ok=True)
        firmware = f"{sys.executable} {ROOT}/tests/support/fake_jetson.py {self.folder}/firmware"
        scripts = {"nvbootctrl": f'exec {firmware} nvbootctrl "$@"', "systemctl": f"touch {tools}/rebooted"}
        for name, text in scripts.items():
            (tools / name).write_text(f"#!/bin/sh\n{text}\n")
            (tools / name).chmod(0o755)
        names = {"VEILSIGHT_UPDATE_FOLDER": str(self.machine.folder), "VEILSIGHT_EFIVARS": str(self.jetson.efivars)}
        path = f"{tools}:{os.environ['PATH']}"
        command = ["sh", str(BACK)]
        subprocess.run(command, env={**names, "PATH": path}, capture_output=True, timeout=PATIENCE_S, check=False)
        asked = tools / "rebooted"
        found = asked.exists()
        asked.unlink(missing_ok=True)
        return found
