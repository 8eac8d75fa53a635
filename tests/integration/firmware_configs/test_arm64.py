"""The very packages on arm64: dpkg installs them, a machine boots them, the gate's releases are verified outside.

.ci/arm64 prepares what this needs and runs it; the last line that it prints is one JSON document.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from firmware_configs.archive import Entry
from firmware_configs.boards import board
from firmware_configs.debian import main as build
from firmware_configs.image import EDGE_TOML, overlay
from tests.support.arm64_machine import HOST, Machine, Root, make_disk, unpacked_root
from tests.support.debian_factory import SIGNER, make_signed_engine
from tests.support.services import ROOT, Broker, Listener, find, until
from wire.artifact.manifest import EngineManifest
from wire.protocol.keys import PublicKey
from wire.protocol.message import open_features

pytestmark = pytest.mark.slow

PYTHON = "3.11"  # Debian 12's
BOOT_S = 600  # of an emulated machine, on a host that is five times slower
RELEASES = 8
# Tags of lintian that are true of any wheel, or of an add-on package, which belongs in /opt.
NOT_OURS = (
    *("dir-or-file-in-opt", "embedded-library", "library-not-linked-against-libc", "script-not-executable"),
    *("shared-library-lacks-prerequisites", "unstripped-binary-or-object", "unusual-interpreter"),
    "systemd-service-file-refers-to-unusual-wantedby-target",  # veilsight.target, of the same package
)
RECOMMENDED = ("/usr/sbin/nft", "/usr/bin/ssh-keygen")
"""Commands of packages that `veilsight-units` recommends; the smallest Debian has neither."""
REPORT = """\
[Unit]
After=veilsight-gate.service
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 /root/report.py
ExecStopPost=/usr/bin/systemctl --no-block poweroff
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyAMA0
"""


@dataclass(frozen=True)
class Proof:
    """What the machine was, what it said, and what came out of it."""

    root: Root
    packages: Path
    manifest: EngineManifest
    report: dict[str, Any]
    messages: list[bytes]
    states: list[dict[str, Any]]
    install_s: float
    first_s: float  # from power on to the first release


def provision(root: Root, port: int) -> None:
    """What an image lays over the root file system, for a made scene, and the test's own unit."""
    config = EDGE_TOML.replace('source = "0"', 'source = "synthetic://walk"')
    config = config.replace("mqtt://127.0.0.1:1883", f"mqtt://{HOST}:{port}")
    units = "etc/systemd/system"
    root.write(
        {
            **overlay(board("orin-nano"), config, SIGNER.public),
            "etc/machine-id": Entry(b"0123456789abcdef0123456789abcdef\n"),
            "root/report.py": Entry((ROOT / "tests/support/arm64_report.py").read_bytes()),
            f"{units}/report.service": Entry(REPORT.encode()),
            f"{units}/multi-user.target.wants/report.service": Entry(link=f"/{units}/report.service"),
        }
    )


def booted(disk: Path, listener: Listener) -> tuple[dict[str, Any], float]:
    """Boot until the machine switches itself off; its report, and s until the first release came."""
    started, first = time.monotonic(), 0.0
    with Machine(disk) as machine:
        until(lambda: listener.of("features") or machine.process.poll() is not None, BOOT_S)
        first = time.monotonic() - started
        until(lambda: machine.process.poll() is not None, BOOT_S)
    said = [line for line in machine.console if line.startswith("REPORT ")]
    assert said, "\n".join(machine.console[-60:])
    return json.loads(said[0].removeprefix("REPORT ")), first


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proof]:
    place = tmp_path_factory.mktemp("arm64")
    root = unpacked_root(place)
    folder = make_signed_engine(place / "engine")
    arguments = ["--python", PYTHON, "--engine", str(folder), "--signer", SIGNER.public.hex]
    assert build(["--out", str(place / "packages"), *arguments]) == 0
    broker = Broker(find("mosquitto"), place)
    provision(root, broker.port)
    started = time.monotonic()
    root.install(sorted((place / "packages").glob("*.deb")))
    install_s = time.monotonic() - started
    make_disk(root, place / "disk")
    broker.start()
    listener = Listener(broker.port)
    try:
        report, first_s = booted(place / "disk", listener)
    finally:
        listener.close()
        broker.stop()
        (place / "disk").unlink()
    states = [json.loads(payload) for payload in listener.of("state")]
    manifest = EngineManifest.load(folder)
    yield Proof(root, place / "packages", manifest, report, listener.of("features"), states, install_s, first_s)
    shutil.rmtree(root.path)


def test_releases_come_out_of_the_machine_and_are_signed_by_its_key(proof: Proof) -> None:
    """The key is compared with the one that the device itself shows, not with the broker's word."""
    key = PublicKey.parse(proof.report["key"])
    manifest = proof.manifest
    found = [open_features(each, key, "site", "camera", manifest.n, manifest.model_id) for each in proof.messages]
    assert len(found) >= RELEASES, proof.report["journal"]
    slots = [message.slot for message in found]
    assert slots == list(range(slots[0], slots[0] + len(slots))), "a release is missing"
    assert len({len(each) for each in proof.messages}) == 1
    assert proof.states[0]["status"] == "online"


def test_systemd_runs_the_three_processes_as_their_own_users_and_the_kernel_confines_them(proof: Proof) -> None:
    units = proof.report["units"]
    assert {unit["ActiveState"] for unit in units.values()} == {"active"}
    assert {unit["NRestarts"] for unit in units.values()} == {"0"}
    assert len({unit["Uid"] for unit in units.values()}) == 3
    for unit in units.values():
        assert (unit["CapEff"], unit["CapBnd"], unit["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
        assert unit["Seccomp"] == "2", "no filter of system calls"
    assert "landlock" in proof.report["security_modules"].split(",")


def test_what_the_untrusted_processes_give_up_by_themselves_holds_on_arm64(proof: Proof) -> None:
    """The rows of `--check`. Linux 6.1 has Landlock's ABI 2: TCP and signals are what the filter and systemd close."""
    said = proof.report["check"]
    eye, reader = said.partition("\neye\n")[2].partition("\nreader\n")[::2]
    for rows in (eye, reader):
        assert "reads only what it needs, writes no file" in rows, said
        for row in ("reads only what it needs, writes no file", "system calls: its own threads and files alone"):
            (line,) = (line for line in rows.splitlines() if line.startswith(row))
            assert line.split()[-1] == "yes", line


def test_systemd_on_the_machine_finds_no_fault_in_the_units(proof: Proof) -> None:
    assert proof.report["systemd"] == "252"
    lines = [line for line in proof.report["verify"].splitlines() if "veilsight" in line]
    absent = [f"Command {command} is not executable: No such file" for command in RECOMMENDED]
    assert not [line for line in lines if not any(each in line for each in absent)], proof.report["verify"]
    most = {"gate": 1.4, "eye": 1.0, "reader": 0.6, "engine": 0.9, "power": 1.1}
    found = {name: float(level) for name, level in proof.report["security"].items()}
    assert not {name: level for name, level in found.items() if level > most[name] + 0.5}, found


def test_every_file_on_the_disk_is_the_one_in_the_manifest(proof: Proof) -> None:
    proof.root.run("sh", "-c", "cat /usr/share/veilsight/*.sha256 | sha256sum --check --quiet --strict")
    assert proof.root.run("sh", "-c", "dpkg --verify veilsight-runtime veilsight-opencv veilsight-engine") == ""


def test_lintian_finds_nothing_that_is_ours(proof: Proof) -> None:
    packages = sorted(map(str, proof.packages.glob("*.deb")))
    command = [find("lintian"), "--fail-on=error,warning", "--suppress-tags", ",".join(NOT_OURS), *packages]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:]


def test_what_belongs_to_the_device_outlives_upgrade_remove_and_purge(proof: Proof) -> None:
    """Last, since nothing is installed afterwards: it tells what the machine weighs, too."""
    root = proof.root
    kept = {
        "var/lib/veilsight/device.key": "key",
        "var/lib/veilsight/ledger": "sum",
        "var/lib/veilsight/outbox/1": "message",
        "opt/veilsight/local/site-packages/pycuda.py": "compiled here",
    }
    root.write({path: Entry(text.encode(), 0o600) for path, text in kept.items()})
    root.write({"var/lib/veilsight-engine/x": Entry(b"made here")})
    edited = root.path / "etc/sysctl.d/90-veilsight.conf"
    edited.write_text(edited.read_text() + "# edited\n")
    config = (root.path / "etc/veilsight/edge.toml").read_text()
    installed = int(root.run("du", "-sk", "/opt/veilsight").split()[0])
    small = sorted(each for each in proof.packages.glob("*_all.deb"))

    for _ in range(2):
        root.install(small)  # an upgrade to the same version: twice, as a repair does
        assert edited.read_text().endswith("# edited\n")
        assert (root.path / "etc/systemd/system/veilsight.target.wants/veilsight-gate.service").is_symlink()
    names = ["veilsight-units", "veilsight-engine", "veilsight-opencv", "veilsight-runtime"]
    root.run("dpkg", "--remove", *names)
    assert edited.is_file(), "what an operator edited stays until it is purged"
    said = root.run("dpkg", "--purge", *names)
    again = root.run("dpkg", "--purge", *names)
    assert "purge deleted /var/lib/veilsight-engine" in said and "error" not in again
    assert {path: (root.path / path).read_text() for path in kept} == kept
    assert (root.path / "etc/veilsight/edge.toml").read_text() == config
    assert not edited.exists() and not (root.path / "var/lib/veilsight-engine").exists()
    left = [
        path.relative_to(root.path).as_posix() for path in (root.path / "opt/veilsight").rglob("*") if path.is_file()
    ]
    assert sorted(left) == ["opt/veilsight/apt.txt", "opt/veilsight/local/site-packages/pycuda.py"]
    print("\n" + json.dumps(figures(proof, installed)))


def figures(proof: Proof, installed_kb: int) -> dict[str, Any]:
    """Of the emulated machine: sizes are those of a device, times and releases are those of an emulator."""
    units = proof.report["units"]
    gate = units["gate"]
    waited_us = int(gate["ActiveEnterTimestampMonotonic"]) - int(gate["InactiveExitTimestampMonotonic"])
    return {
        "machine": f"qemu, cortex-a76, Linux {proof.report['kernel']}, systemd {proof.report['systemd']}",
        "packages_mb": round(sum(each.stat().st_size for each in proof.packages.glob("*.deb")) / 1e6, 1),
        "installed_mb": round(installed_kb / 1024, 1),
        "install_s": round(proof.install_s, 1),
        "power_on_to_first_release_s": round(proof.first_s, 1),
        "gate_start_s": round(waited_us / 1e6, 1),
        "pss_mb": {name: round(unit["pss_kb"] / 1024, 1) for name, unit in units.items()},
        "releases": len(proof.messages),
        "does_not_hold": [" ".join(line.split()) for line in proof.report["check"].splitlines() if "  NO  " in line],
    }
