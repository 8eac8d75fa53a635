"""A Debian 12 machine for arm64: our packages in it by its own dpkg, then booted by qemu with Debian's kernel.

    build/arm64/root.tar (.ci/arm64 makes it) --Root: chroot, dpkg--> a tree --make_disk--> disk --Machine--> console

The machine emulates the processor, the kernel and systemd are real: Landlock, seccomp and the units' sandbox are what a
device has. Under qemu's user mode alone no eye starts: qemu has a thread of its own in each process, which
`edge_runtime/confine.py` refuses. Nothing in the product knows of either.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from firmware_configs.archive import Entry
from tests.support.services import ROOT

__all__ = ["HOST", "Machine", "Root", "make_disk", "unpacked_root"]

HOST = "10.0.2.2"
"""The address of this machine, as the emulated one sees it."""

_PLACE = ROOT / "build/arm64"
_MODULES = ("virtio", "virtio_ring", "virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net")
_DISK_MB = 1500
# /proc is mounted for one command alone: it is gone when that ends, however it ends.
_CHROOT = 'mount -t proc proc "$1/proc"; exec chroot "$@"'
# What the kernel runs first: the modules of disk and network, then systemd.
_INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
for module in {" ".join(_MODULES)}; do $b insmod /$module.ko; done
$b ip link set lo up
$b ip addr add 10.0.2.15/24 dev eth0
$b ip link set eth0 up
$b ip route add default via {HOST}
$b mount -t ext4 /dev/vda /new
exec $b switch_root /new /lib/systemd/systemd
"""


class Root:
    """The tree of a root file system, whose programs qemu's user mode runs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in it; what it prints, errors too."""
        result = subprocess.run(
            ["unshare", "--mount", "sh", "-euc", _CHROOT, "sh", str(self.path), *command],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert result.returncode == 0 or not check, f"{command} in the arm64 root: {result.stdout[-2000:]}"
        return result.stdout

    def write(self, files: Mapping[str, Entry]) -> None:
        """Write files as `cp` of an image's overlay does."""
        for name, entry in files.items():
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if entry.link:
                target.symlink_to(entry.link)
            else:
                target.write_bytes(entry.data)
                target.chmod(entry.mode)

    def install(self, packages: Sequence[Path]) -> str:
        """Install packages as flash.sh does; what dpkg says."""
        place = self.path / "opt/veilsight/packages"
        place.mkdir(parents=True)
        for package in packages:
            shutil.copy(package, place)
        said = self.run("sh", "-c", "dpkg --install /opt/veilsight/packages/*.deb")
        shutil.rmtree(place)
        return said


def unpacked_root(place: Path) -> Root:
    """Unpack the cached root below `place`; skips the test where .ci/arm64 has not made it."""
    reasons = {
        "build/arm64 is not made: run .ci/arm64": not (_PLACE / "boot/ready").is_file(),
        "chroot and dpkg need root": os.geteuid() != 0,
        "qemu-system-aarch64 is missing: run .ci/arm64": shutil.which("qemu-system-aarch64") is None,
        "programs for arm64 do not run here: run .ci/arm64": not _runs_arm64(),
    }
    for reason, missing in reasons.items():
        if missing:
            pytest.skip(f"the packages on arm64: {reason}")
    path = place / "root"
    path.mkdir()
    subprocess.run(["tar", "xf", _PLACE / "root.tar", "-C", path], check=True)
    return Root(path)


def _runs_arm64() -> bool:
    return platform.machine() == "aarch64" or Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists()


def make_disk(root: Root, path: Path) -> None:
    """Write the tree to an ext4 file system in the file `path`."""
    with path.open("wb") as file:
        file.truncate(_DISK_MB << 20)
    command = ["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", "-d", str(root.path), str(path)]
    subprocess.run(command, check=True, env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"})


class Machine:
    """An emulated machine with four cores, from its start until it switches itself off."""

    def __init__(self, disk: Path, more: Sequence[str] = ()) -> None:
        self.console: list[str] = []
        initrd = disk.with_suffix(".cpio")
        initrd.write_bytes(_initrd())
        command = ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a76", "-smp", "4", "-m", "2048"]
        command += ["-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"]
        command += ["-kernel", str(_PLACE / "boot/vmlinuz"), "-initrd", str(initrd)]
        command += ["-append", "console=ttyAMA0 panic=1 quiet"]
        command += ["-drive", f"if=none,id=disk,file={disk},format=raw,cache=unsafe"]
        command += ["-device", "virtio-blk-device,drive=disk"]
        command += ["-netdev", "user,id=net", "-device", "virtio-net-device,netdev=net", *more]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.console.extend(line.rstrip() for line in self.process.stdout)

    def finished(self) -> None:
        """Wait for the last lines of a machine that has switched itself off."""
        self._reader.join()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _initrd() -> bytes:
    """A cpio archive ("newc") with what runs before systemd."""
    files = {"init": _INIT.encode(), "bin/busybox": (_PLACE / "boot/busybox").read_bytes()}
    files |= {f"{name}.ko": (_PLACE / f"boot/{name}.ko").read_bytes() for name in _MODULES}
    members = [(name, 0o40755, b"") for name in ("bin", "dev", "new")]
    members += [(name, 0o100755, data) for name, data in files.items()]
    made = bytearray()
    for number, (name, mode, data) in enumerate([*members, ("TRAILER!!!", 0, b"")], 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        made += b"070701" + b"".join(b"%08x" % value for value in fields) + name.encode() + b"\0"
        made += b"\0" * (-len(made) % 4) + data
        made += b"\0" * (-len(made) % 4)
    return bytes(made)
