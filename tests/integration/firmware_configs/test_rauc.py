"""Real bundles by the real rauc, installed into two slots that are files, with nvbootctrl faked by a script.

Skips where rauc, mksquashfs, dbus-daemon or openssl is missing, or where this process may not mount. What a device has
and this machine has not: dm-verity (bundles of RAUC's format "verity" are made and verified here, and not installed).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from firmware_configs.boards import board
from firmware_configs.two_slots import files
from firmware_configs.update.bundle import make
from firmware_configs.update.install import install
from firmware_configs.update.machine import Machine, run_command
from firmware_configs.update.record import Record
from firmware_configs.update.release import IMAGE
from firmware_configs.update.trial import boot
from tests.support.fake_jetson import FakeJetson
from tests.support.services import PATIENCE_S, ROOT
from tests.support.update_device import EDGE_TOML, make_root
from wire.errors import UpdateError

TOOLS = {"rauc": "rauc", "mksquashfs": "squashfs-tools", "dbus-daemon": "dbus", "openssl": "openssl"}
TOOLS |= {"mkfs.ext4": "e2fsprogs", "mount": "mount"}
ORIN = board("orin-nano")
SLOT_MB = 16
BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={bus}</listen><auth>EXTERNAL</auth><policy context="default">
<allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
"""


def missing() -> str:
    """Why this cannot run here; "" where it can."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lacking = sorted({package for tool, package in TOOLS.items() if shutil.which(tool, path=path) is None})
    if lacking:
        return f"{', '.join(lacking)} missing (apt-get install {' '.join(lacking)})"
    if os.geteuid() or not Path("/dev/loop-control").exists():
        return "mounting a bundle takes root and loop devices"
    return "" if "squashfs" in Path("/proc/filesystems").read_text() else "this kernel has no squashfs"


pytestmark = pytest.mark.skipif(bool(missing()), reason=f"NOT RUN, bundles by the real rauc: {missing()}")


def certificate(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """A certificate that signs itself, its key, and the keyring that believes it."""
    cert, key = folder / f"{name}.cert.pem", folder / f"{name}.key.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command = ["openssl", "req", "-x509", *curve, "-nodes", "-subj", f"/CN={name}"]
    command += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command, "-days", "3650"], capture_output=True, check=True, timeout=PATIENCE_S)
    return cert, key, cert


def make_image(folder: Path, name: str, mb: int = SLOT_MB) -> Path:
    """An ext4 root file system with a file that says which it is."""
    root = make_root(folder / f"{name}-root")
    (root / "etc/which").write_text(name)
    (root / "etc/much").write_bytes(os.urandom(mb << 19))
    image = folder / f"{name}.ext4"
    with image.open("wb") as file:
        file.truncate(mb << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", root, image], check=True, timeout=PATIENCE_S)
    return image


@dataclass
class Bench:
    """A device whose firmware is a script, and whose RAUC is the real one."""

    folder: Path
    machine: Machine
    jetson: FakeJetson
    signing: tuple[Path, Path, Path]

    def bundle(self, release: int, floor: int = 0, kind: str = "plain", **other: object) -> Path:
        """A bundle whose root says "release N"."""
        out = self.folder / f"{release}-{floor}-{kind}-{len(list(self.folder.iterdir()))}.raucb"
        image = make_image(self.folder, f"{out.stem}")
        signing = other.get("signing", self.signing)
        row = other.get("row", ORIN)
        make(row, image, out, release, floor, signing, kind)  # type: ignore[arg-type]
        return out

    def written(self, slot: str) -> str:
        """The slot's root file system, as text: its etc/which and its extlinux.conf."""
        device = str(self.machine.partitions[slot])

        def read(name: str) -> str:
            return run_command(["debugfs", "-R", f"cat {name}", device])

        return f"{read('/etc/which')}\n{read('/boot/extlinux/extlinux.conf')}\n{read('/etc/veilsight/edge.toml')}"

    @property
    def record(self) -> Record:
        return Record.load(self.machine)


def tools(folder: Path, jetson: Path) -> Path:
    """Commands that a device has and this machine has not, and RAUC's two handlers."""
    place = folder / "tools"
    place.mkdir()
    ours = f"{sys.executable} {folder}/updater.py"
    scripts = {
        "nvbootctrl": f'exec {sys.executable} {ROOT}/tests/support/fake_jetson.py {jetson} nvbootctrl "$@"',
        "blkid": "echo 2534d15b-e6fb-4265-b913-e042ab311f4f",
        "findmnt": f'case "$*" in *TARGET*) echo {folder}/state;; *) echo {folder}/slot-$(cat {folder}/runs);; esac',
        "systemctl": f"echo $* >>{folder}/systemctl.log",
        "rauc-backend": f'exec {ours} backend "$@"',
        "rauc-accept": f"exec {ours} accept",
    }
    for name, text in scripts.items():
        (place / name).write_text(f"#!/bin/sh\n{text}\n")
        (place / name).chmod(0o755)
    return place


UPDATER = """\
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from firmware_configs.update.__main__ import main
from tests.integration.firmware_configs.test_rauc import machine
sys.exit(main(sys.argv[1:], machine(Path({folder!r}))))
"""


def machine(folder: Path) -> Machine:
    """The device in `folder`."""
    slots = {slot: folder / f"slot-{slot}" for slot in "AB"}
    return Machine(folder / "state", folder / "firmware/efivars", folder / "edge.toml", folder / "root", slots)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    folder = tmp_path
    jetson = FakeJetson(folder / "firmware")
    (folder / "state").mkdir()
    (folder / "runs").write_text("A")
    (folder / "edge.toml").write_text(EDGE_TOML)
    (folder / "updater.py").write_text(UPDATER.format(root=str(ROOT), folder=str(folder)))
    root = make_root(folder / "root")
    (root / "etc/veilsight").mkdir()
    (root / "etc/veilsight/edge.toml").write_text("# this device's own\n")
    place = tools(folder, folder / "firmware")
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}:/usr/sbin:/sbin")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={folder}/bus")
    signing = certificate(folder, "ours")
    shutil.copy(make_image(folder, "flashed"), folder / "slot-A")
    with (folder / "slot-B").open("wb") as file:
        file.truncate(SLOT_MB << 20)
    config = files(ORIN, signing[0].read_bytes())["etc/rauc/system.conf"].data.decode()
    for old, new in {
        "/opt/veilsight/bin/": f"{place}/",
        "/dev/disk/by-partlabel/APP_b": f"{folder}/slot-B",
        "/dev/disk/by-partlabel/APP": f"{folder}/slot-A",
        "/etc/rauc/keyring.pem": str(signing[2]),
        "/var/lib/veilsight-update/": f"{folder}/state/",
        "/run/veilsight-rauc": f"{folder}/mounts",
    }.items():
        assert old in config
        config = config.replace(old, new)
    (folder / "system.conf").write_text(config)
    (folder / "bus.conf").write_text(BUS.format(bus=f"{folder}/bus"))
    bus = subprocess.Popen(["dbus-daemon", f"--config-file={folder}/bus.conf", "--nofork"], stderr=subprocess.DEVNULL)
    try:
        yield Bench(folder, machine(folder), jetson, signing)
    finally:
        bus.terminate()
        bus.wait(PATIENCE_S)


@dataclass
class Service:
    """`rauc service`, as systemd runs it on a device."""

    bench: Bench
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it and everything that it started, as a power cut would; unmount what it had mounted."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in (each for each in mounts if each.startswith(f"{self.bench.folder}/mounts")):
            subprocess.run(["umount", place], check=False)


def start(bench: Bench) -> Service:
    """Start it with the slot that the firmware says is running, as bin/rauc-start does."""
    slot = run_command([str(bench.folder / "tools/rauc-backend"), "get-current"]).strip()
    command = ["rauc", "-c", str(bench.folder / "system.conf"), "service", f"--override-boot-slot={slot}"]
    with (bench.folder / "rauc.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + PATIENCE_S
    asked = ["dbus-send", "--system", "--print-reply", "--dest=de.pengutronix.rauc", "/"]
    asked += ["org.freedesktop.DBus.Peer.Ping"]
    while subprocess.run(asked, capture_output=True, check=False).returncode and time.monotonic() < deadline:
        time.sleep(0.05)
    return Service(bench, process)


@pytest.fixture
def service(bench: Bench) -> Iterator[Service]:
    made = start(bench)
    try:
        yield made
    finally:
        made.kill()


def reboot(bench: Bench, cold: bool = False) -> str:
    """Let the fake firmware boot; the slot that it takes."""
    slot = bench.jetson.power_on(cold)
    (bench.folder / "runs").write_text(slot)
    return slot


def test_a_bundle_is_installed_and_goes_on_trial(bench: Bench, service: Service) -> None:
    before = (bench.folder / "slot-A").read_bytes()
    assert "slot B" in install(bench.machine, bench.bundle(7, floor=6))
    text = bench.written("B")
    assert text.startswith("7-6-plain") and "root=PARTUUID=2534d15b" in text and "# this device's own" in text
    assert (bench.folder / "slot-A").read_bytes() == before, "the running slot is not touched"
    assert (bench.record.trial, bench.record.release_b, bench.record.floor) == ("B", 7, 0)
    assert reboot(bench) == "B"
    assert "on trial: boot 1" in boot(bench.machine)


def test_rauc_alone_writes_what_nothing_boots(bench: Bench, service: Service) -> None:
    run_command(["rauc", "install", str(bench.bundle(7))], PATIENCE_S)
    assert bench.record.is_bad("B") and not bench.record.trial
    assert reboot(bench) == "A"
    status = subprocess.run(["rauc", "status", "mark-active", "other"], capture_output=True, text=True, check=False)
    assert status.returncode and reboot(bench) == "A"


def refused(bench: Bench, bundle: Path, words: str) -> None:
    """It is refused, and not a byte of a slot is written."""
    before = {slot: (bench.folder / f"slot-{slot}").read_bytes() for slot in "AB"}
    with pytest.raises(UpdateError, match=words):
        install(bench.machine, bundle)
    assert {slot: (bench.folder / f"slot-{slot}").read_bytes() for slot in "AB"} == before
    assert not bench.record.trial and not bench.record.is_bad("B")
    assert reboot(bench) == "A"
    bench.jetson.nvbootctrl(["verify"])


def test_what_is_not_signed_by_us_damaged_or_for_another_board_is_refused_unwritten(
    bench: Bench, service: Service
) -> None:
    good = bench.bundle(7)
    stranger = certificate(bench.folder, "stranger")
    refused(bench, bench.bundle(7, signing=stranger), "(?i)signature|certificate|verif")
    refused(bench, bench.bundle(7, row=board("orin-nx")), "(?i)compatible")
    refused(bench, bench.bundle(7, row=replace(ORIN, l4t="36.5.0")), "(?i)compatible")
    content = good.read_bytes()
    for number, damaged in enumerate(
        [content[:-100], content[: len(content) // 2], content[:5000] + b"\xff" + content[5001:], b"", os.urandom(9999)]
    ):
        file = bench.folder / f"damaged-{number}.raucb"
        file.write_bytes(damaged)
        refused(bench, file, "rauc install")


def packed(bench: Bench, name: str, change: str) -> Path:
    """A bundle that we signed ourselves, with something in it that ours never have."""
    content = bench.folder / f"{name}-content"
    made = bench.bundle(7)
    extract = ["rauc", "--keyring", str(bench.signing[2]), "extract", str(made), str(content)]
    subprocess.run(extract, check=True, capture_output=True)
    with (content / "manifest.raucm").open("a") as file:
        file.write("\n[bundle]\nformat=plain\n")
    if change == "hook":
        (content / "hook.sh").write_text(f"#!/bin/sh\ntouch {bench.folder}/hook-ran\n")
        (content / "hook.sh").chmod(stat.S_IRWXU)
        text = (content / "manifest.raucm").read_text()
        text = text.replace(f"filename={IMAGE}", f"filename={IMAGE}\nhooks=pre-install;post-install")
        (content / "manifest.raucm").write_text(text + "\n[hooks]\nfilename=hook.sh\n")
    elif change == "link":
        (content / "escape").symlink_to("/etc/passwd")
    out = bench.folder / f"{name}.raucb"
    cert, key, keyring = bench.signing
    command = ["rauc", f"--cert={cert}", f"--key={key}", f"--keyring={keyring}", "bundle", str(content), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return out


@pytest.mark.parametrize("change", ["hook", "link"])
def test_even_what_we_signed_brings_no_script_and_no_link(bench: Bench, service: Service, change: str) -> None:
    refused(bench, packed(bench, change, change), f"the bundle has .*({'hook.sh' if change == 'hook' else 'escape'})")
    assert not (bench.folder / "hook-ran").exists()


def test_a_withdrawn_release_is_refused_by_rauc_itself(bench: Bench, service: Service) -> None:
    replace(bench.record, floor=9).save(bench.machine)
    refused(bench, bench.bundle(8), "the bundle is release 8; releases below 9 are withdrawn; install release 9")
    with pytest.raises(UpdateError):
        run_command(["rauc", "install", str(bench.bundle(8))], PATIENCE_S)
    assert "releases below 9 are withdrawn" in (bench.folder / "rauc.log").read_text()
    install(bench.machine, bench.bundle(9))
    assert bench.record.trial == "B"


@pytest.mark.parametrize("handler", ["rauc-accept", "rauc-backend"])
def test_where_rauc_is_killed_as_by_a_power_cut_the_old_slot_boots(
    bench: Bench, service: Service, handler: str
) -> None:
    """Before the slot is marked as bad, and after: RAUC and all that it started are gone at once."""
    file = bench.folder / "tools" / handler
    usual = file.read_text()
    stop = 'kill -9 -$(ps -o pgid= $$ | tr -d " ")'
    file.write_text(usual.replace("exec ", "") + stop + "\n")
    with pytest.raises(UpdateError):
        install(bench.machine, bench.bundle(7))
    service.kill()
    assert reboot(bench, cold=True) == "A"
    assert "slot A" in boot(bench.machine)
    assert bench.record.is_bad("B") == (handler == "rauc-backend")
    file.write_text(usual)
    _the_next_one_is_installed(bench)


def test_where_the_write_breaks_off_half_way_the_old_slot_boots(bench: Bench, service: Service) -> None:
    slot, small = bench.folder / "slot-B", bench.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "none", small], check=True, timeout=PATIENCE_S)
    try:
        slot.unlink()
        with (small / "slot-B").open("wb") as file:
            file.truncate(SLOT_MB << 20)
        slot.symlink_to(small / "slot-B")
        with pytest.raises(UpdateError, match="(?i)no space"):
            install(bench.machine, bench.bundle(7))
        assert (small / "slot-B").read_bytes()[1080:1082] == b"\x53\xef", "a part of it was written"
        service.kill()
        assert bench.record.is_bad("B") and not bench.record.trial
        assert reboot(bench, cold=True) == "A"
        slot.unlink()
        with slot.open("wb") as file:
            file.truncate(SLOT_MB << 20)
        _the_next_one_is_installed(bench)
    finally:
        subprocess.run(["umount", small], check=False, timeout=PATIENCE_S)


def _the_next_one_is_installed(bench: Bench) -> None:
    again = start(bench)
    try:
        install(bench.machine, bench.bundle(8))
        assert reboot(bench) == "B"
    finally:
        again.kill()


def test_a_bundle_of_the_verity_format_is_made_and_verified(bench: Bench) -> None:
    bundle = bench.bundle(7, kind="verity")
    said = run_command(["rauc", f"--keyring={bench.signing[2]}", "info", str(bundle)])
    assert "veilsight-orin-nano-l4t-36.4.4" in said and "verity" in said
    with bundle.open("r+b") as file:
        file.seek(-200, os.SEEK_END)
        file.write(b"\xff" * 8)
    with pytest.raises(UpdateError):
        run_command(["rauc", f"--keyring={bench.signing[2]}", "info", str(bundle)])
