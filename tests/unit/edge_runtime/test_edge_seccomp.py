"""The filter of system calls, interpreted for both architectures, and its numbers against the kernel's headers."""

from __future__ import annotations

import os
import re
import socket
import struct
from pathlib import Path

import pytest

from edge_runtime.sandbox import kernel, seccomp, syscalls

HEADERS = {"x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}
MACHINES = {
    "x86_64": kernel.Machine(0, 0xC000003E, 317, 126),
    "aarch64": kernel.Machine(1, 0xC00000B7, 277, 91),
}
PID = 4321


def judged(machine: str, allowed: seccomp.Allowed, number: int, *arguments: int, audit: int | None = None) -> str:
    """What the filter answers to one system call: classic BPF, interpreted."""
    row = MACHINES[machine]
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, row.audit if audit is None else audit, 0, *words)
    lines, place, accumulator = seccomp.program(row, allowed, PID), 0, 0
    while True:
        code, true, false, constant = lines[place]
        place += 1
        if code == 0x06:
            names = {0x7FFF0000: "allow", 0x80000000: "kill", 0x50001: "EPERM", 0x50026: "ENOSYS"}
            return names[constant]
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, constant)[0]
        elif code == 0x54:
            accumulator &= constant
        else:
            holds = {0x15: accumulator == constant, 0x35: accumulator >= constant, 0x45: bool(accumulator & constant)}
            place += true if holds[code] else false


READER = seccomp.Allowed()
CAMERA = seccomp.Allowed((int(socket.AF_INET), int(socket.AF_INET6)), devices=True, shared_memory=True)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_judges_by_arguments_on_both_architectures(machine: str) -> None:
    """Each row: call, arguments, what a reader is answered, what an eye with a camera and a GPU is answered."""
    write, create = os.O_RDWR, os.O_RDWR | os.O_CREAT
    rows = [
        ("clone", (0x003D0F00,), "allow", "allow"),  # what pthread_create asks for
        ("clone", (0x01200011,), "EPERM", "EPERM"),  # what fork asks for
        ("openat", (0, 0, os.O_RDONLY | os.O_CLOEXEC), "allow", "allow"),
        ("openat", (0, 0, write), "EPERM", "allow"),
        ("openat", (0, 0, create), "EPERM", "EPERM"),
        ("openat", (0, 0, os.O_TMPFILE | os.O_RDWR), "EPERM", "EPERM"),
        ("mmap", (0, 4096, 3, 0x22), "allow", "allow"),
        ("mmap", (0, 4096, 3, 0x21), "EPERM", "allow"),
        ("mmap", (0, 4096, 1, 0x01), "allow", "allow"),
        ("kill", (PID, 9), "allow", "allow"),
        ("kill", (0, 9), "EPERM", "EPERM"),
        ("kill", (0xFFFFFFFF, 9), "EPERM", "EPERM"),
        ("tgkill", (PID, 1, 6), "allow", "allow"),
        ("tgkill", (1, 1, 6), "EPERM", "EPERM"),
        ("prlimit64", (0, 7), "allow", "allow"),
        ("prlimit64", (1, 7), "EPERM", "EPERM"),
        ("prctl", (15,), "allow", "allow"),
        ("prctl", (1,), "EPERM", "EPERM"),  # outlive the gate
        ("prctl", (4,), "EPERM", "EPERM"),
        ("fcntl", (3, 2), "allow", "allow"),
        ("fcntl", (3, 8), "EPERM", "EPERM"),
        ("ioctl", (3, 0x5421), "allow", "allow"),  # FIONBIO
        ("ioctl", (3, 0x5412), "EPERM", "EPERM"),
        ("socket", (2,), "EPERM", "allow"),
        ("socket", (1,), "EPERM", "EPERM"),
        ("socket", (16,), "EPERM", "EPERM"),
    ]
    column = MACHINES[machine].column
    for name, arguments, reader, camera in rows:
        number = syscalls.LIMITED[name][column]
        found = [judged(machine, allowed, number, *arguments) for allowed in (READER, CAMERA)]
        assert found == [reader, camera], (name, arguments)
    bind = syscalls.SOCKETS["bind"][column]
    local = seccomp.Allowed((int(socket.AF_UNIX),))
    assert [judged(machine, allowed, bind) for allowed in (READER, CAMERA, local)] == ["EPERM", "allow", "EPERM"]


NEVER = """
execve execveat fork vfork ptrace process_vm_readv process_vm_writev listen accept accept4 io_uring_setup bpf
perf_event_open userfaultfd keyctl add_key request_key mount umount2 unshare setns open_by_handle_at name_to_handle_at
pidfd_open pidfd_getfd pidfd_send_signal memfd_create personality tkill rt_sigqueueinfo rt_tgsigqueueinfo openat2
clone3 unlinkat renameat2 mkdirat linkat symlinkat mknodat truncate ftruncate fchmodat fchownat setxattr
sched_setaffinity sched_setscheduler setpriority kcmp kexec_load init_module reboot chroot pivot_root swapon
settimeofday clock_settime shmget msgget semget mq_open setuid setgid setresuid capset seccomp fanotify_init
inotify_add_watch flock quotactl landlock_create_ruleset socketpair process_madvise move_pages migrate_pages vmsplice
splice tee utimensat
"""


def numbers(machine: str) -> dict[str, int]:
    """Name -> number of every system call, from the kernel's headers."""
    header = Path(HEADERS[machine])
    if not header.is_file():
        pytest.skip(f"{header} is not installed")
    found = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    names = {name: int(number) for name, number in found}
    return names if "newfstatat" in names else {**names, "newfstatat": names["fstatat"]}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_the_kernels(machine: str) -> None:
    known, column = numbers(machine), MACHINES[machine].column
    for table in (syscalls.ALWAYS, syscalls.SOCKETS, syscalls.DEVICES, syscalls.LIMITED):
        assert {name: both[column] for name, both in table.items()} == {name: known.get(name, -1) for name in table}
    assert not set(syscalls.LIMITED) & {*syscalls.ALWAYS, *syscalls.SOCKETS, *syscalls.DEVICES}
    assert (known["seccomp"], known["capset"]) == (MACHINES[machine].seccomp, MACHINES[machine].capset)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_never_needed_is_never_allowed(machine: str) -> None:
    known = numbers(machine)
    for name in NEVER.split():
        if name in known:
            expected = "ENOSYS" if known[name] >= 424 else "EPERM"
            found = {judged(machine, allowed, known[name]) for allowed in (READER, CAMERA)}
            assert found == {expected}, name


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architectures_calls_end_the_process(machine: str) -> None:
    other = next(row.audit for name, row in MACHINES.items() if name != machine)
    for audit in (other, 0x40000003, 0x40000028):  # the last two: 32-bit x86 and ARM
        assert judged(machine, CAMERA, 0, audit=audit) == "kill"
    assert judged(machine, CAMERA, 0x40000000) == "EPERM"  # x32's read
