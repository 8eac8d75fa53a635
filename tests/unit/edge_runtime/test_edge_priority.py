"""Priorities count where the kernel weighs groups of processes: sessions, or control groups with a share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime import confine, priority
from edge_runtime.gate.children import spawned
from edge_runtime.priority import weigh_session


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for /proc/sys and /sys/fs/cgroup."""
    (tmp_path / "enabled").write_text("1\n")
    (tmp_path / "cgroup").mkdir()
    monkeypatch.setattr(priority, "_SWITCH", tmp_path / "enabled")
    monkeypatch.setattr(priority, "_CONTROL_GROUPS", tmp_path / "cgroup")
    return tmp_path


@pytest.fixture
def session() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own."""
    made = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    yield made
    made.kill()
    made.wait()
    if made.stdin:
        made.stdin.close()


def group(process: int) -> str:
    """The group's nice value, as the kernel says it; skips where this kernel has no autogroups."""
    try:
        found = Path(f"/proc/{process}/autogroup").read_text().split()
    except FileNotFoundError:
        found = []
    if not found:
        pytest.skip("this kernel has no autogroups")
    return found[-1]


def test_a_session_of_its_own_gets_the_priority(session: subprocess.Popen[bytes]) -> None:
    group(session.pid)
    said = weigh_session(session.pid, 5)
    if said or Path("/proc/sys/kernel/sched_autogroup_enabled").read_text().strip() != "1":
        pytest.skip(f"sessions are not weighed here, or not now: {said}")
    assert group(session.pid) in ("5", "0")  # 0: a control group has the share here
    assert weigh_session(session.pid, 5) == ""


def test_a_session_with_others_in_it_is_left_alone_and_told(kernel: Path) -> None:
    before = group(os.getpid())
    if os.getsid(0) == os.getpid() or not priority._in_no_share(os.getpid()):
        pytest.skip("this process has a session or a share of its own")
    nice = 3 if before != "3" else 4
    assert "autogroup" in weigh_session(os.getpid(), nice)
    assert group(os.getpid()) == before


def test_where_sessions_are_not_weighed_nothing_is_said(kernel: Path) -> None:
    (kernel / "enabled").write_text("0\n")
    assert weigh_session(os.getpid(), 3) == ""
    (kernel / "enabled").unlink()
    assert weigh_session(os.getpid(), 3) == ""


def test_a_control_group_with_a_share_counts_in_place_of_the_session(
    kernel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kernel / "cgroup/system.slice/gate.service").mkdir(parents=True)
    monkeypatch.setattr(Path, "read_text", lambda path: "0::/system.slice/gate.service\n")
    assert priority._in_no_share(1)
    (kernel / "cgroup/system.slice/cpu.weight").touch()
    assert not priority._in_no_share(1)
    monkeypatch.setattr(Path, "read_text", lambda path: "3:cpu,cpuacct:/\n0::/system.slice/gate.service\n")
    assert priority._in_no_share(1)
    monkeypatch.setattr(Path, "read_text", lambda path: "3:cpu,cpuacct:/docker/1\n0::/\n")
    assert not priority._in_no_share(1)


@pytest.mark.parametrize(
    ("switch", "share", "unit", "why"),
    [
        ("1", False, False, ""),
        ("0", False, False, "thread by thread"),
        ("1", True, False, "one control group"),  # a container: sessions inside it are not weighed
        ("0", True, True, ""),
    ],
)
def test_it_is_told_whether_the_eyes_threads_count_one_by_one(
    kernel: Path, monkeypatch: pytest.MonkeyPatch, switch: str, share: bool, unit: bool, why: str
) -> None:
    (kernel / "enabled").write_text(switch)
    monkeypatch.setattr(priority, "_in_no_share", lambda process: not share)
    said = priority.weighed_apart(unit)
    assert why in said and bool(said) == bool(why)


def test_the_gate_says_that_its_priority_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "weigh_session", lambda process, nice: f"not {nice} for {process}")
    monkeypatch.setattr(os, "setpriority", lambda kind, process, nice: None)
    assert confine._priority() == f"not -5 for {os.getpid()}"


def test_a_spawned_child_has_its_priority_as_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    weighed = list[tuple[int, int]]()
    monkeypatch.setattr("edge_runtime.gate.children.weigh_session", lambda *given: weighed.append(given))
    running = spawned("reader")()
    running.end()
    running.wait()
    running.link.close()
    ((process, nice),) = weighed
    assert process > 1 and nice == os.getpriority(os.PRIO_PROCESS, 0)
