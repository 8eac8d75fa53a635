"""Tests that measure time run while no other test does."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import turns
from tests.support.services import ROOT, until


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_FOLDER", tmp_path / "turns")


class Runner(threading.Thread):
    """One test that goes on until `end` is set."""

    def __init__(self, alone: bool) -> None:
        super().__init__(daemon=True)
        self.alone, self.began, self.end = alone, threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        with turns.turn(self.alone):
            self.began.set()
            self.end.wait(60)


def test_other_tests_run_beside_each_other() -> None:
    first, second = Runner(alone=False), Runner(alone=False)
    assert first.began.wait(60) and second.began.wait(60)
    for each in (first, second):
        each.end.set()


def test_who_is_alone_waits_for_those_before_and_those_after_for_it() -> None:
    before = Runner(alone=False)
    assert before.began.wait(60)
    alone = Runner(alone=True)
    until(waits_in_the_turnstile)
    after = Runner(alone=False)
    assert not alone.began.wait(0.2) and not after.began.is_set()
    before.end.set()
    assert alone.began.wait(60) and not after.began.wait(0.2)
    alone.end.set()
    assert after.began.wait(60)
    after.end.set()


def test_tests_that_a_test_runs_have_its_turn(tmp_path: Path) -> None:
    """All of a process, also while another test waits to be alone: they waited for it, and it for them."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    command += ["tests/unit/wire/test_wire_topics.py"]
    with held(tmp_path / f"veilsight-tests-{os.getuid()}" / "turnstile.lock"):
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and int(ended.stdout.rpartition(" passed")[0].split()[-1]) > 1, ended.stdout


@contextmanager
def held(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(mode=0o700)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def waits_in_the_turnstile() -> bool:
    with (turns._FOLDER / "turnstile.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_test_that_fails_gives_the_machine_back() -> None:
    with pytest.raises(ZeroDivisionError), turns.turn(alone=True):
        raise ZeroDivisionError
    with turns.turn(alone=True):
        pass
