"""Confinement: what the untrusted processes give up by themselves, before anything hostile runs in them.

    eye, reader:  confine_child(...)  --> limits, descriptors, capabilities, Landlock, seccomp: for the process's life
    gate:         protect_gate()      --> its memory is closed to other processes of its user; a core of its own

On a device the systemd units confine the same processes a second time, from outside. Nothing here needs root or a
third-party library, and nothing is imported that starts a thread. Each confinement is a row of the report: it holds,
or it says why not. Two are required, and without them nothing runs: no new privileges, and the limits.

Not covered: what the processor's caches tell, bugs of the kernel and of device drivers, and, for a camera on the
network, to whom the eye sends (a unit's IPAddressAllow covers that).
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edge_runtime.priority import weigh_session, weighed_apart
from edge_runtime.sandbox import landlock, seccomp
from edge_runtime.sandbox.kernel import call, machine, prctl
from wire.errors import PrivacyError

__all__ = ["Holds", "clean_environment", "confine_child", "protect_gate", "report", "share_out_cores"]

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_GET_SECCOMP = 1, 4, 21
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 24, 38, 47
_CLEAR_ALL, _SIGKILL = 4, 9
_CAPABILITY_VERSION_3 = 0x20080522
_OPEN_FILES = 256
_MORE_TASKS = 512  # threads, over what the user has at the start
_GATE_NICE = -5

_VARIABLES = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "ORT_DISABLE_TELEMETRY")
_VARIABLE_FAMILIES = ("LC_", "PYTHON", "OMP_", "OPENBLAS_", "CUDA_", "NVIDIA_", "GST_", "OPENCV_")

_READABLE = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/ssl/openssl.cnf"),
    *("/proc/self", "/proc/sys/vm", "/proc/sys/crypto", "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"),
)
_READABLE_FOR_PROCESSORS = ("/proc/cpuinfo", "/sys/devices/system")  # which processors there are
_READABLE_FOR_NETWORK = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services"),
    *("/etc/ssl/certs", "/usr/share/ca-certificates"),
)
_READABLE_FOR_DEVICES = (
    *("/proc/driver", "/proc/devices", "/proc/modules", "/sys/devices", "/sys/bus", "/sys/class", "/sys/module"),
    *(
        "/proc/meminfo",
        "/sys/dev",
        "/etc/nv_tegra_release",
        "/usr/local/cuda",
        "/opt/nvidia",
        "/usr/share/glvnd",
        "/etc/glvnd",
    ),
)


@dataclass(frozen=True)
class Holds:
    """One confinement of one process, and whether it holds here."""

    name: str
    holds: bool
    why: str  # where it does not; "" where it does


def confine_child(
    readable: Sequence[Path],
    network: bool,
    memory_bytes: int,
    devices: Sequence[Path] = (),
    *,
    keep: Collection[int] = (),
    cores: Collection[int] = (),
    unix_sockets: bool = False,
    processors: bool = True,
) -> list[Holds]:
    """Confine this process for the rest of its life: the eye or the reader, before it opens anything hostile.

    Call it before a second thread exists, so before NumPy or OpenCV is imported; threads can be made afterwards.
    Libraries can be imported afterwards too.

    Args:
        readable: Files, and folders with all beneath, that it may read, besides Python and the system's libraries.
        network: Whether it may make connections, for a camera on the network; it never listens.
        memory_bytes: Bound of the memory that it may write to; 0: none, as CUDA needs.
        devices: Device nodes (camera, GPU) to open for reading and writing, or folders of them.
        keep: File descriptors that stay open; every other one is closed, and 0, 1, 2 become /dev/null.
        cores: Processor cores to run on, for good; none: those that it has.
        unix_sockets: Whether it may connect to local services; a CSI camera's Argus is one.
        processors: Whether it may read what processors there are; a native runtime of networks asks for it.

    Returns:
        Each confinement, and whether it holds.

    Raises:
        PrivacyError: No new privileges or the limits cannot be had, or there are other threads.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        raise PrivacyError("confine_child: the process has other threads, which would stay free; call it before them")
    found = [_no_new_privileges(), *_limits(memory_bytes)]
    steps: list[tuple[str, Callable[[], str]]] = [
        ("runs on the cores that it was given", lambda: _run_on(cores)),
        ("its environment is clean", _scrub_environment),
        ("no other file is open", lambda: _close_files(keep)),
        ("no capabilities", _drop_capabilities),
        ("dies with the gate", _die_with_parent),
        ("its memory is its own", _close_memory),
    ]
    found += [_tried(name, step) for name, step in steps]
    paths = _paths(readable, network, bool(devices), processors)
    found += _landlock(paths, [Path("/dev/null"), *devices], network)
    inet = (socket.AF_INET, socket.AF_INET6) if network else ()
    families = (*inet, *((socket.AF_UNIX,) if unix_sockets else ()))
    allowed = seccomp.Allowed(tuple(map(int, families)), bool(devices), not memory_bytes)
    filtered = _tried("system calls: its own threads and files alone", lambda: _filter(allowed))
    return [*found, filtered, *_openings(network, unix_sockets, filtered.why)]


def protect_gate() -> list[Holds]:
    """Protect this process, the gate, from others of its user; its later threads and children inherit what is theirs.

    Raises:
        PrivacyError: No new privileges, or no core file, cannot be had.
    """
    found = [_no_new_privileges(), _limit("no core file", resource.RLIMIT_CORE, 0)]
    own_unit = os.environ.get("LISTEN_PID") == str(os.getpid())
    steps = [
        ("its memory is its own", _close_memory),
        ("a core of its own", _own_core),
        ("priority over other processes", _priority),
        ("weighed apart from the eye's threads", lambda: weighed_apart(own_unit)),
    ]
    return [*found, *(_tried(name, step) for name, step in steps)]


@cache
def share_out_cores() -> tuple[set[int], set[int]]:
    """Share out the cores that this process may use when it first asks: (the gate's, the others').

    The gate gets the last one alone; with fewer than three, everybody gets all. A gate that was started on one of
    several cores, as its unit does, has it for itself.
    """
    cores = os.sched_getaffinity(0)
    if len(cores) == 1 and (os.cpu_count() or 1) > 2:
        return cores, set(range(os.cpu_count() or 1)) - cores
    gate = {max(cores)} if len(cores) > 2 else cores
    return gate, cores - gate or cores


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a child process needs of `environment`, and nothing that might be a secret."""
    wanted = {name: value for name, value in environment.items() if name.startswith(_VARIABLE_FAMILIES)}
    return wanted | {name: environment[name] for name in _VARIABLES if name in environment}


def report(holds: Sequence[Holds]) -> str:
    """Write an aligned table, one row a confinement: `yes`, or `NO` with the reason."""
    width = max((len(row.name) for row in holds), default=0)
    lines = (f"{row.name:<{width}}  {'yes' if row.holds else 'NO   ' + row.why}" for row in holds)
    return "\n".join(lines)


def _tried(name: str, step: Callable[[], str]) -> Holds:
    """Take a step that the process can live without; it returns why the confinement does not hold, or ""."""
    try:
        why = step()
    except (OSError, ValueError) as error:
        why = f"the kernel refuses it: {error}"
    return Holds(name, not why, why)


def _no_new_privileges() -> Holds:
    try:
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        raise PrivacyError(
            f"PR_SET_NO_NEW_PRIVS: the kernel refuses it ({error}); Linux 3.5 and later have it"
        ) from error
    return Holds("no new privileges", True, "")


def _limits(memory_bytes: int) -> list[Holds]:
    name = "bounded memory"
    found = [
        _limit("no file can be written", resource.RLIMIT_FSIZE, 0),
        _limit("no core file", resource.RLIMIT_CORE, 0),
        _limit("few open files", resource.RLIMIT_NOFILE, _OPEN_FILES),
        Holds(name, False, "no bound was asked for, since CUDA reserves more than it uses; a unit's MemoryMax is one"),
    ]
    if memory_bytes:  # RLIMIT_DATA counts what can be written to; what ONNX Runtime maps to read is free
        found[-1] = _limit(f"{name}: {memory_bytes >> 20} MiB", resource.RLIMIT_DATA, memory_bytes)
    if os.getuid():  # for root the kernel does not look at it
        found.append(_limit("bounded threads", resource.RLIMIT_NPROC, _tasks_of_user() + _MORE_TASKS))
    return found


def _limit(name: str, kind: int, most: int) -> Holds:
    """Lower a limit, and never raise one that is lower already."""
    had = resource.getrlimit(kind)[1]
    most = most if had == resource.RLIM_INFINITY else min(most, had)
    try:
        resource.setrlimit(kind, (most, most))
    except (OSError, ValueError) as error:
        raise PrivacyError(f"{name}: the kernel refuses the limit {most} ({error})") from error
    return Holds(name, True, "")


def _tasks_of_user() -> int:
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == os.getuid():
                count += len(os.listdir(process / "task"))
        except OSError:
            continue  # it has ended
    return count


def _run_on(cores: Collection[int]) -> str:
    if cores:
        os.sched_setaffinity(0, cores)
    return ""


def _scrub_environment() -> str:
    kept = clean_environment(os.environ)
    for name in os.environ.keys() - kept.keys():
        del os.environ[name]
    inherited = [entry.partition(b"=")[0].decode(errors="replace") for entry in _inherited_environment()]
    left = sorted(name for name in inherited if name not in kept)
    return f"it was started with {', '.join(left[:3])}; start it with clean_environment()" if left else ""


def _inherited_environment() -> list[bytes]:
    """What the process was started with: it stays in its memory, whatever `os.environ` says."""
    return [entry for entry in Path("/proc/self/environ").read_bytes().split(b"\0") if entry]


def _close_files(keep: Collection[int]) -> str:
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in keep:
            _close(descriptor)
    return ""


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        return  # the listing's own


def _drop_capabilities() -> str:
    here = machine()
    if here is None:
        return "this architecture is not known"
    for capability in range(64):
        try:
            prctl(_PR_CAPBSET_DROP, capability)
        except OSError:
            break  # beyond the last one; or without the right to drop them, and then there is none to regain
    prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    header, none = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    call(here.capset, *(ctypes.c_void_p(ctypes.addressof(words)) for words in (header, none)))
    status = Path("/proc/self/status").read_text().splitlines()
    held = [line for line in status if line.startswith(("CapInh", "CapPrm", "CapEff", "CapAmb")) and int(line[7:], 16)]
    return f"the kernel still counts {held[0]}" if held else ""


def _die_with_parent() -> str:
    if os.getppid() == 1:
        return "systemd or init started it, and the gate did not; its unit stops it with the gate"
    prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() == 1:
        os._exit(1)  # the gate died between the two
    return ""


def _close_memory() -> str:
    prctl(_PR_SET_DUMPABLE, 0)
    return ""


def _paths(readable: Iterable[Path], network: bool, devices: bool, processors: bool) -> list[Path]:
    """All that may be read: `readable`, Python, the two packages that run here, and what libraries want to know."""
    python = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, os.path.dirname(os.__file__)]
    installed = [entry for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    here = Path(__file__).resolve().parent
    ours = [here, here.parent / "wire"]
    libraries = [entry for entry in os.environ.get("LD_LIBRARY_PATH", "").split(":") if entry]
    asked = {_READABLE_FOR_NETWORK: network, _READABLE_FOR_DEVICES: devices, _READABLE_FOR_PROCESSORS: processors}
    fixed = [*_READABLE, *(path for paths, wanted in asked.items() if wanted for path in paths)]
    broad = {Path("/"), Path.home()}
    found = [Path(entry) for entry in (*python, *installed, *libraries, *fixed)]
    return [*readable, *ours, *(path for path in found if path.resolve() not in broad)]


def _landlock(readable: Sequence[Path], read_write: Sequence[Path], network: bool) -> list[Holds]:
    version, why = 0, "this kernel has no Landlock; Linux 5.13 and later may have it"
    try:
        version = landlock.restrict(readable, read_write, network) if landlock.abi() else 0
        if version and os.listdir("/"):
            version, why = 0, "the kernel accepted Landlock and does not enforce it"
    except PermissionError:
        pass  # enforced: the root folder cannot be listed any more
    except OSError as error:
        why = f"the kernel refuses Landlock: {error}"
    older = f"this kernel has Landlock's ABI {version}" if version else why
    files = Holds("reads only what it needs, writes no file", version > 0, "" if version else why)
    ports = Holds("no TCP port is bound" if network else "no TCP", version >= 4, "" if version >= 4 else f"{older}")
    others = "no signal and no abstract socket to others"
    return [files, ports, Holds(others, version >= 6, "" if version >= 6 else f"{older}")]


def _filter(allowed: seccomp.Allowed) -> str:
    here = machine()
    if here is None:
        return "this architecture is not known"
    seccomp.install(here, seccomp.program(here, allowed, os.getpid()))
    try:
        prctl(_PR_GET_SECCOMP)  # not on the list
    except PermissionError:
        return ""
    return "the kernel accepted the filter and does not enforce it"


def _openings(network: bool, unix_sockets: bool, unfiltered: str) -> list[Holds]:
    """What stands open because the camera needs it, or because there is no filter."""
    camera = "the camera is on the network, and this process may send anywhere; a unit's IPAddressAllow bounds it"
    service = "a CSI camera is reached through a local service"
    reasons = {
        "no network": camera if network else unfiltered,
        "no local services": service if unix_sockets else unfiltered,
    }
    return [Holds(name, not why, why) for name, why in reasons.items()]


def _own_core() -> str:
    gate, others = share_out_cores()
    if gate == others:
        return f"this machine gives it {len(gate)} core{'s' * (len(gate) > 1)}; it takes three to keep one free"
    os.sched_setaffinity(0, gate)
    return ""


def _priority() -> str:
    if os.getpriority(os.PRIO_PROCESS, 0) > _GATE_NICE:
        os.setpriority(os.PRIO_PROCESS, 0, _GATE_NICE)
    return weigh_session(os.getpid(), _GATE_NICE)
