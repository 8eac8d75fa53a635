"""Confinement: what a hostile eye tries fails, what it needs works, and every row of the report is true."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import confine
from edge_runtime.confine import Holds, clean_environment, confine_child, protect_gate, report, share_out_cores
from edge_runtime.sandbox import kernel, landlock
from tests.support.engine_factory import make_engine
from tests.support.forbidden import ATTEMPTS, MODES
from tests.support.services import PATIENCE_S, ROOT
from wire.errors import PrivacyError

LANDLOCK = landlock.abi()
TAKEN_AWAY = {"no landlock": "landlock", "no seccomp": "seccomp"}

needs_seccomp = pytest.mark.skipif(
    kernel.machine() is None or "Seccomp:" not in Path("/proc/self/status").read_text(),
    reason="this kernel or this architecture has no seccomp filter of ours",
)
needs_landlock = pytest.mark.skipif(LANDLOCK < 6, reason=f"this kernel has Landlock's ABI {LANDLOCK}; these need 6")


@dataclass
class Child:
    """A Python program in a process of its own, and our end of the socket that it was given."""

    process: subprocess.Popen[bytes]
    socket: socket.socket

    def record(self) -> bytes:
        """The next record that it sends; b"" when it has ended."""
        self.socket.settimeout(PATIENCE_S)
        return self.socket.recv(1 << 16)


@pytest.fixture
def start() -> Iterator[Any]:
    """Start `python ARGUMENTS... ` with {socket} replaced by the descriptor of its socket."""
    children: list[Child] = []

    def run(*arguments: str, **options: Any) -> Child:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, *(text.replace("{socket}", str(theirs.fileno())) for text in arguments)]
        environment = clean_environment(os.environ) | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        options = {"cwd": ROOT, "env": environment, "pass_fds": [theirs.fileno()], **options}
        children.append(Child(subprocess.Popen(command, **options), ours))
        theirs.close()
        return children[-1]

    yield run
    for child in children:
        child.socket.close()
        child.process.kill()
        child.process.communicate(timeout=PATIENCE_S)  # closes its pipes


@pytest.fixture
def place(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What the attempts want to reach: a process, a file that is private, and listeners of all kinds."""
    (tmp_path / "kept").write_text("key")
    (tmp_path / "kept").chmod(0o600)
    abstract = f"veilsight-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_UNIX) as named,
        subprocess.Popen(["sleep", str(PATIENCE_S)]) as victim,
    ):
        local.bind(str(tmp_path / "socket"))
        named.bind("\0" + abstract)
        local.listen()
        named.listen()
        yield {
            "folder": str(tmp_path),
            "victim": victim.pid,
            "tcp": tcp.getsockname()[1],
            "unix": str(tmp_path / "socket"),
            "abstract": abstract,
        }
        assert victim.poll() is None, "an attempt ended a process that is not its own"
        victim.kill()


def tried(start: Any, place: dict[str, Any], mode: str) -> dict[str, Any]:
    """The record of one run of all attempts; what arrives before it was sent by an attempt."""
    child = start("-m", "tests.support.forbidden", mode, "{socket}", json.dumps(place))
    record = child.record()
    while record == b"descriptor":
        record = child.record()
    found: dict[str, Any] = json.loads(record)
    return found


@needs_seccomp
@pytest.mark.parametrize("mode", MODES)
def test_what_is_forbidden_fails_and_succeeds_unconfined(mode: str, start: Any, place: dict[str, Any]) -> None:
    """Confined, nothing is done. With one confinement taken away, just that is done which no other one refuses."""
    if mode in ("confined", "no seccomp") and LANDLOCK < 6:
        pytest.skip(f"this kernel has Landlock's ABI {LANDLOCK}; these need 6")
    record = tried(start, place, mode)
    found = record["found"]
    assert found.pop("thread") == "made"
    done = {name for name, outcome in found.items() if outcome == "done"}
    if mode == "free":
        refused_here = {"io_uring", "a namespace", "ptrace"} if os.getuid() else set()  # by other rules of the machine
        assert ATTEMPTS.keys() - done <= refused_here, found
        return
    # Without capabilities root reads nobody's memory; any other user reads that of his own processes.
    powerless = {TAKEN_AWAY.get(mode), *(["capabilities"] if os.getuid() else [])}
    expected = {name for name, (_, by) in ATTEMPTS.items() if by <= powerless}
    assert done == expected, found
    assert bool(expected) == (mode != "confined")
    rows = {name: (holds, why) for name, holds, why in record["holds"]}
    reason = {"no landlock": "Linux 5.13", "no seccomp": "taken away by the test"}
    not_held = [why for holds, why in rows.values() if not holds]
    assert bool(not_held) == (mode != "confined"), rows
    assert all(reason[mode] in why for why in not_held), rows


LOOKS = """
import json, socket, sys
from pathlib import Path
from edge_runtime.confine import confine_child
gate = socket.socket(fileno=int(sys.argv[1]))
if sys.argv[2] != "free":
    confine_child([], False, 1 << 30, keep=[gate.fileno()], processors=sys.argv[2] == "eye")
def can_read(name):
    try:
        return bool(Path(name).read_bytes())
    except PermissionError:
        return False
places = ("stat", "meminfo", "loadavg", "cpuinfo", "1/stat")
found = {name: can_read(f"/proc/{name}") for name in places}
found["processors"] = can_read("/sys/devices/system/cpu/online")
gate.send(json.dumps(found).encode())
"""


@pytest.mark.skipif(not LANDLOCK, reason="this kernel has no Landlock")
@pytest.mark.parametrize("name", ["free", "eye", "reader"])
def test_what_others_do_on_the_machine_cannot_be_read(name: str, start: Any) -> None:
    """Neither child reads the machine's load; the reader does not read what processors there are, either."""
    found = json.loads(start("-c", LOOKS, "{socket}", name).record())
    processors = {"cpuinfo": name != "reader", "processors": name != "reader"}
    assert found == {**dict.fromkeys(("stat", "meminfo", "loadavg", "1/stat"), name == "free"), **processors}


WORKS = """
import json, socket, sys, threading
from pathlib import Path
from edge_runtime.confine import confine_child
engine, film, gate = Path(sys.argv[1]), sys.argv[2], socket.socket(fileno=int(sys.argv[3]))
confine_child([engine, Path(film)], False, 1 << 30, keep=[gate.fileno()])
import cv2, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
session = onnxruntime.InferenceSession((engine / "encode.onnx").read_bytes(), options)
kinds = {"tensor(uint8)": "uint8", "tensor(int32)": "int32"}
zeros = {value.name: numpy.zeros(value.shape, kinds[value.type]) for value in session.get_inputs()}
code = session.run(None, zeros)[0]
film = cv2.VideoCapture(film, cv2.CAP_FFMPEG)
picture = film.read()[1]
threads = len(list(Path("/proc/self/task").iterdir()))
print("to standard output")
sys.stderr.write("to standard error")
gate.send(json.dumps([list(code.shape), list(picture.shape), threads]).encode())
"""


@needs_seccomp
def test_an_engine_encodes_and_a_film_is_decoded_after_confinement(start: Any, tmp_path: Path) -> None:
    """The libraries are imported, and make their threads, after confinement; what is printed goes nowhere."""
    import cv2
    import numpy as np

    manifest = make_engine(tmp_path / "engine", size=16)
    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 8.0, (64, 48))
    for _ in range(8):
        film.write(np.zeros((48, 64, 3), np.uint8))
    film.release()
    arguments = [str(tmp_path / "engine"), str(tmp_path / "film.avi"), "{socket}"]
    child = start("-c", WORKS, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    record = child.record()
    said = child.process.communicate(timeout=PATIENCE_S)[0]
    assert record, f"the confined process ended with {child.process.returncode}"
    code, picture, threads = json.loads(record)
    assert np.prod(code) == manifest.n
    assert picture == [48, 64, 3]
    assert threads > 1
    assert said == b""


INHERITS = """
import json, os, socket, sys
from pathlib import Path
from edge_runtime.confine import confine_child
from edge_runtime.sandbox.kernel import prctl
gate = socket.socket(fileno=int(sys.argv[1]))
other = os.open(sys.argv[2], os.O_RDONLY)
core = {max(os.sched_getaffinity(0))}
holds = confine_child([], False, 256 << 20, keep=[gate.fileno()], cores=core)
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
facts = {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs", "Seccomp")}
open_now = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd") if int(number) > 2]
targets = {os.readlink(link) for link in open_now if os.path.lexists(link)}
facts["others"] = [target for target in targets if not target.startswith(("socket:", "/proc/"))]
facts["standard"] = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
facts["dumpable"], facts["parent death"] = prctl(3), any(row.holds and "dies" in row.name for row in holds)
facts["environment"], facts["core"] = "SECRET" in os.environ, os.sched_getaffinity(0) == core
facts["clean"] = [row.why for row in holds if "environment" in row.name]
gate.send(json.dumps(facts).encode())
"""


@needs_seccomp
@pytest.mark.parametrize("secret", [False, True])
def test_nothing_is_left_of_what_it_was_started_with(secret: bool, start: Any, tmp_path: Path) -> None:
    """Descriptors, capabilities, variables, the right to be read; a secret that it was started with is reported."""
    (tmp_path / "open").write_text("")
    environment = clean_environment(os.environ) | {"PYTHONPATH": str(ROOT)} | ({"SECRET": "s"} if secret else {})
    found = json.loads(start("-c", INHERITS, "{socket}", str(tmp_path / "open"), env=environment).record())
    (clean,) = found.pop("clean")
    assert ("SECRET" in clean) == secret == bool(clean)
    assert found == {
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapAmb"), 0),
        "NoNewPrivs": 1,
        "Seccomp": 2,
        "others": [],
        "standard": ["/dev/null"] * 3,
        "dumpable": 0,
        "parent death": True,
        "environment": False,
        "core": True,
    }


NETWORK = """
import json, socket, sys
from edge_runtime.confine import confine_child
gate, found = socket.socket(fileno=int(sys.argv[1])), {}
confine_child([], True, 1 << 30, keep=[gate.fileno()])
def attempt(name, step):
    try:
        step()
        found[name] = "done"
    except OSError as error:
        found[name] = type(error).__name__
def listen():
    made = socket.socket()
    made.listen()
attempt("TCP", lambda: socket.create_connection(("localhost", int(sys.argv[2]))).close())
attempt("UDP", lambda: socket.socket(type=socket.SOCK_DGRAM).bind(("127.0.0.1", 0)))
attempt("listen", listen)
attempt("Unix", lambda: socket.socket(socket.AF_UNIX))
attempt("raw", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
gate.send(json.dumps(found).encode())
"""


@needs_seccomp
def test_a_camera_on_the_network_is_reached_and_nobody_is_listened_to(start: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = json.loads(start("-c", NETWORK, "{socket}", str(server.getsockname()[1])).record())
    refused = dict.fromkeys(("listen", "Unix", "raw"), "PermissionError")
    assert found == {"TCP": "done", "UDP": "done", **refused}


ENDS = """
import os, socket, sys
from edge_runtime.confine import confine_child
gate = socket.socket(fileno=int(sys.argv[1]))
if sys.argv[2] == "confined":
    confine_child([], False, 256 << 20, keep=[gate.fileno()])
gate.send(b"ready")
exec(sys.argv[3])
gate.send(b"done")
"""
EATS = "eaten = []\nfor _ in range(16):\n    eaten.append(bytes(32 << 20))"
RUNS_A_PROGRAM = "os.execv('/bin/sh', ['sh', '-c', 'exit 7'])"


@needs_seccomp
@pytest.mark.parametrize(("attempt", "free_code"), [(EATS, 0), (RUNS_A_PROGRAM, 7)], ids=["memory", "exec"])
def test_it_ends_alone(attempt: str, free_code: int, start: Any) -> None:
    free = start("-c", ENDS, "{socket}", "free", attempt)
    assert free.process.wait(PATIENCE_S) == free_code
    child = start("-c", ENDS, "{socket}", "confined", attempt)
    assert child.record() == b"ready"
    assert child.record() == b""
    assert child.process.wait(PATIENCE_S) == 1  # MemoryError, PermissionError


DUMPS = "import os, resource\nresource.setrlimit(resource.RLIMIT_CORE, (1 << 28, 1 << 28))"


def test_no_core_file_is_written(start: Any, tmp_path: Path) -> None:
    """A process that is killed by a fault leaves a core file where the limit allows it, and none confined."""
    free = start("-c", f"{DUMPS}\nos.abort()", cwd=tmp_path)
    free.process.wait(PATIENCE_S)
    if not [*tmp_path.iterdir()]:
        pytest.skip("this machine writes core files nowhere, or to a collector")
    for file in tmp_path.iterdir():
        file.unlink()
    child = start("-c", ENDS, "{socket}", "confined", "os.abort()", cwd=tmp_path)
    assert child.process.wait(PATIENCE_S) == -signal.SIGABRT
    assert not [*tmp_path.iterdir()]


PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], pass_fds=[int(sys.argv[2])])
os.close(int(sys.argv[2]))
sys.stdin.read()
"""
WAITS = """
import socket, sys, time
from edge_runtime.confine import confine_child
gate = socket.socket(fileno=int(sys.argv[1]))
holds = confine_child([], False, 0, keep=[gate.fileno()])
gate.send(str([row.why for row in holds if not row.holds]).encode())
time.sleep(3600)
"""


def test_it_dies_with_the_process_that_started_it(start: Any) -> None:
    parent = start("-c", PARENT, WAITS, "{socket}", stdin=subprocess.PIPE)
    ready = parent.record()
    assert b"CUDA" in ready, "without a bound of memory, the row says why"
    parent.process.kill()
    assert parent.record() == b"", "its end of the socket is still open"


GATE = """
import os, socket, sys
from edge_runtime import confine
from edge_runtime.sandbox.kernel import prctl
gate = socket.socket(fileno=int(sys.argv[1]))
if os.getuid() == 0:
    os.setresuid(65534, 65534, 65534)
    prctl(4, 1)
if sys.argv[2] == "protected":
    confine.protect_gate()
    assert prctl(39) == 1
gate.send(b"ready")
gate.recv(1)
"""
SPY = """
import os, socket, sys
spy, memory = socket.socket(fileno=int(sys.argv[1])), f"/proc/{sys.argv[2]}/mem"
if os.getuid() == 0:
    os.setresuid(65534, 65534, 65534)
try:
    open(memory, "rb")
    spy.send(b"read")
except PermissionError:
    spy.send(b"refused")
"""


@pytest.mark.parametrize("protected", [False, True])
def test_a_process_of_the_same_user_cannot_read_the_gates_memory(protected: bool, start: Any) -> None:
    gate = start("-c", GATE, "{socket}", "protected" if protected else "free")
    assert gate.record() == b"ready"
    seen = start("-c", SPY, "{socket}", str(gate.process.pid)).record()
    gate.socket.send(b".")
    if not protected and seen == b"refused":
        pytest.skip("this kernel lets nobody read another process's memory (Yama)")
    assert seen == (b"refused" if protected else b"read")


def test_other_threads_would_stay_free_so_it_is_refused() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(PrivacyError, match="other threads.*before them"):
            confine_child([], False, 0)
    finally:
        stop.set()
        thread.join()


def refuse(*_: object) -> None:
    raise OSError(errno.EINVAL, "an old kernel")


@pytest.mark.parametrize("function", [protect_gate, lambda: confine_child([], False, 0)], ids=["gate", "child"])
def test_without_no_new_privileges_nothing_runs(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "prctl", refuse)
    monkeypatch.setattr(os, "listdir", lambda path: ["1"])
    with pytest.raises(PrivacyError, match="PR_SET_NO_NEW_PRIVS.*an old kernel"):
        function()


@pytest.mark.parametrize("function", [protect_gate, lambda: confine_child([], False, 0)], ids=["gate", "child"])
def test_without_its_limits_nothing_runs(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "prctl", lambda *_: 0)
    monkeypatch.setattr(os, "listdir", lambda path: ["1"])
    monkeypatch.setattr(resource, "setrlimit", refuse)
    with pytest.raises(PrivacyError, match="the kernel refuses the limit 0"):
        function()


def test_the_environment_keeps_no_secret() -> None:
    given = {"PATH": "/bin", "PYTHONPATH": ".", "OMP_NUM_THREADS": "1", "CUDA_CACHE_PATH": "/c", "LC_ALL": "C"}
    assert clean_environment({**given, "AWS_SECRET": "s", "BROKER_PASSWORD": "p", "HOME": "/root"}) == given


@pytest.mark.parametrize(
    ("cores", "count", "gate", "others"),
    [
        ({0}, 1, {0}, {0}),
        ({0, 1}, 2, {0, 1}, {0, 1}),
        ({1}, 2, {1}, {1}),
        ({1, 2, 5, 7}, 8, {7}, {1, 2, 5}),
        ({3}, 6, {3}, {0, 1, 2, 4, 5}),  # as its unit starts it
    ],
)
def test_the_gate_has_a_core_of_its_own_where_there_are_three(
    cores: set[int], count: int, gate: set[int], others: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[set[int]] = []
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, given: moved.append(given))
    share_out_cores.cache_clear()
    try:
        assert share_out_cores() == (gate, others)
        assert bool(confine._own_core()) == (gate == others)
        assert moved == ([] if gate == others else [gate])
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: gate)
        assert share_out_cores() == (gate, others), "asked again on its own core, the gate shares out the same"
    finally:
        share_out_cores.cache_clear()


def test_the_report_is_a_table_in_plain_words() -> None:
    rows = [Holds("no TCP", True, ""), Holds("no core file", False, "an old kernel")]
    assert report(rows) == "no TCP        yes\nno core file  NO   an old kernel"
    assert report([]) == ""
