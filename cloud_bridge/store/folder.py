"""The state folder: one bridge at a time, and nothing in it of a bridge from before the store."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wire.errors import ConfigError
from wire.files import make_folder

__all__ = ["one_at_a_time", "own_folder"]


@contextmanager
def own_folder(folder: Path, shared: bool = False) -> Iterator[None]:
    """Keep other bridges out of a state folder for the block.

    Args:
        folder: The state folder.
        shared: Let in others who share it as well: the processes of several shards, which the store keeps apart.

    Raises:
        ConfigError: Another bridge is in it, it cannot be written, or it has a journal of before the store.
    """
    file = folder / "bridge.lock"
    try:
        make_folder(folder)
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; make [state] dir writable") from error
    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, b"%d" % os.getpid())
        _refuse_a_journal(folder / "journal.json")
        yield
    except BlockingIOError as error:
        owner = os.read(lock, 20).decode(errors="replace")
        raise ConfigError(
            f"[state] dir {folder} is in use by another bridge (process {owner}); stop that one, or give each bridge "
            "its own [state] dir and its own cameras, or every one a [run] shard: two on one state would read every "
            "message twice"
        ) from error
    finally:
        os.close(lock)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let processes that share a state folder pass the block one after the other. Raises ConfigError."""
    file = folder / "start.lock"
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; make [state] dir writable") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _refuse_a_journal(journal: Path) -> None:
    """A journal knows what was read; without it, recordings would be read as new under the same keys."""
    if os.path.lexists(journal):
        raise ConfigError(
            f"{journal} is of a bridge from before the store. One of version 0.1 can be deleted: its devices' messages "
            "are refused anyway. Otherwise give every device a new key and register it (docs/bridge.md), then delete it"
        )
