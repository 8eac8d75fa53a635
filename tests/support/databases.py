"""A PostgreSQL of a test's own, where its programs are installed; the test skips elsewhere and says so."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.services import PATIENCE_S, free_port

__all__ = ["Postgres", "running_postgres"]

_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


class Postgres:
    """One server on a loopback port, that a test may stop and start again."""

    def __init__(self, programs: Path, folder: Path, user: str) -> None:
        self._programs, self._folder, self._user = programs, folder, user
        self.port = free_port()
        self._made = 0

    def make(self) -> None:
        """Make the files and start."""
        self._run("initdb", "-D", str(self._folder / "data"), "-U", "veilsight", "--auth=trust", "-N")
        self.start()

    def new_database(self) -> str:
        """Make an empty database; its URL."""
        self._made += 1
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "veilsight", f"wards{self._made}")
        return f"postgresql+psycopg://veilsight@127.0.0.1:{self.port}/wards{self._made}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -h 127.0.0.1 -k {self._folder}"
        data, log = str(self._folder / "data"), str(self._folder / "log")
        self._run("pg_ctl", "start", "-w", "-t", f"{PATIENCE_S:.0f}", "-D", data, "-l", log, "-o", options)

    def stop(self, how: str = "immediate") -> None:
        """Stop it; "immediate" is as if it was killed."""
        self._run("pg_ctl", "stop", "-w", "-m", how, "-D", str(self._folder / "data"), must=False)

    def _run(self, program: str, *arguments: str, must: bool = True) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command,
            user=self._user or None,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0 or not must, f"{program}: {done.stderr!r}"


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A PostgreSQL for the block; skips where it is not installed, or where root has no other user to run it as."""
    if not _PLACES:
        pytest.skip("PostgreSQL is not installed (/usr/lib/postgresql)")
    user = "" if os.geteuid() else _another_user()
    folder = Path(tempfile.mkdtemp(prefix="veilsight-postgres-", dir="/tmp"))
    if user:
        shutil.chown(folder, user)
    server = Postgres(_PLACES[0], folder, user)
    try:
        server.make()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _another_user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    found = next((name for name in ("postgres", "nobody") if name in names), None)
    if found is None:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")
    return found
