"""A PostgreSQL of a test's own, where its programs are installed; the test skips elsewhere and says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from benchmarks.cloud import postgres
from benchmarks.cloud.postgres import Postgres
from wire.errors import StoreError

__all__ = ["Postgres", "running_postgres"]


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A PostgreSQL for the block; skips where it is not installed, or where root has no other user to run it as."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgres.running_postgres())
        except StoreError as error:
            if "is not installed" not in str(error) and "does not run as root" not in str(error):
                raise
            pytest.skip(str(error))
        yield server
