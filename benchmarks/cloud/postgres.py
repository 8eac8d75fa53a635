"""A PostgreSQL server of a run's own, where the distribution's programs are installed. It can be killed and started."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.broker import held_ports
from wire.errors import StoreError

__all__ = ["Postgres", "running_postgres"]

_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
_PATIENCE_S = 300.0


class Postgres:
    """One server on a loopback port, that may be stopped and started again."""

    def __init__(self, programs: Path, folder: Path, user: str, port: int) -> None:
        self._programs, self._folder, self._user, self.port = programs, folder, user, port
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
        self._run("pg_ctl", "start", "-w", "-t", f"{_PATIENCE_S:.0f}", "-D", data, "-l", log, "-o", options)

    def stop(self, how: str = "immediate") -> None:
        """Stop it; "immediate" is as if it was killed."""
        self._run("pg_ctl", "stop", "-w", "-m", how, "-D", str(self._folder / "data"), must=False)

    def kill(self) -> None:
        """Kill the server's first process, and wait until those that it has started are gone, too."""
        number = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        group = _descendants(number)
        os.kill(number, signal.SIGKILL)
        deadline = time.monotonic() + _PATIENCE_S
        while any(Path(f"/proc/{each}").exists() for each in group) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _run(self, program: str, *arguments: str, must: bool = True) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command,
            user=self._user or None,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_PATIENCE_S,
            check=False,
        )
        if must and done.returncode:
            raise StoreError(f"{program}: {done.stderr.decode(errors='replace')[-400:]}")


def _descendants(number: int) -> list[int]:
    """The processes that a process has started and that still run."""
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{number}/task/{number}/children").read_text().split()]
    return []


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A PostgreSQL for the block. Raises StoreError where it is not installed, or root has no other user to run it."""
    if not _PLACES:
        raise StoreError("PostgreSQL is not installed (/usr/lib/postgresql); apt-get install postgresql")
    user = "" if os.geteuid() else _another_user()
    folder = Path(tempfile.mkdtemp(prefix="veilsight-postgres-", dir="/tmp"))
    if user:
        shutil.chown(folder, user)
    with held_ports(1) as (port,):
        server = Postgres(_PLACES[0], folder, user, port)
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
        raise StoreError("PostgreSQL does not run as root, and there is no user postgres or nobody")
    return found
