"""Opens the database: SQLite in the state folder, or PostgreSQL by its URL; and brings its tables up to date.

    [store] url = ""                              --> sqlite, <state dir>/store.sqlite, write-ahead log, synced commits
    [store] url = "postgresql+psycopg://host/db"  --> PostgreSQL, time-outs on everything

A migration is one transaction: one that is cut off leaves nothing behind. Tables that nobody can account for are
refused, never mended.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from cloud_bridge.store.tables import metadata
from wire.errors import ConfigError, StoreAway, StoreError
from wire.files import make_folder, read_trusted
from wire.settings import FilePath, Positive

__all__ = ["StoreConfig", "open_engine", "reading", "writing"]

_MIGRATIONS = Path(__file__).with_name("migrations")
_WAIT_S = 5  # for a connection, or for another process's transaction
_ANSWER_MS = 10_000  # for PostgreSQL's answer to a statement
_ONE_AT_A_TIME = 0x7665696C  # PostgreSQL's advisory lock of our migrations; any number that others do not use
_SQLITE_AWAY = ("BUSY", "LOCKED", "FULL", "IOERR", "READONLY", "CANTOPEN", "NOMEM", "PROTOCOL")
_POSTGRES = "postgresql+psycopg"
# Tables that came after the first version:
_SINCE = {"webhooks": "0002", "commands": "0003", "sentence_requests": "0004"}


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where the store is, and for how long it keeps what: the `[store]` section of the bridge's file.

    Attributes:
        url: Of a PostgreSQL database; "": SQLite in the state folder.
        password_file: File with the password for `url`; "": none.
        keep_releases_days: Releases are deleted after so many days,
        keep_verdicts_days: verdicts after so many,
        keep_alerts_days: alerts and their comments,
        keep_audit_days: and the record of who did what.

    Raises:
        ConfigError: The URL is of another kind, or has a password in it.
    """

    url: str = ""
    password_file: FilePath = ""
    keep_releases_days: Positive = 7.0
    keep_verdicts_days: Positive = 30.0
    keep_alerts_days: Positive = 365.0
    keep_audit_days: Positive = 1095.0

    def __post_init__(self) -> None:
        if not self.url:
            return
        cure = f'write "{_POSTGRES}://user@host/database", or "" for SQLite in the state folder'
        try:
            url = make_url(self.url)
        except (ArgumentError, ValueError) as error:
            raise ConfigError(f"url is no address of a database; {cure}") from error
        if url.drivername != _POSTGRES or not url.database:
            raise ConfigError(f"url is of {url.drivername!r}, database {url.database!r}; {cure}")
        if url.password is not None or "password" in url.query:
            raise ConfigError("url has a password in it; put it into a file of its own and name it in password_file")

    def address(self, folder: Path) -> URL:
        """The database's address. folder: the state folder. Raises ConfigError where the password cannot be read."""
        if not self.url:
            return URL.create("sqlite", database=str(folder.absolute() / "store.sqlite"))
        if not self.password_file:
            return make_url(self.url)
        try:
            password = read_trusted(Path(self.password_file)).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"[store] password_file {self.password_file}: {error}") from error
        return make_url(self.url).set(password=password)


def open_engine(config: StoreConfig, folder: Path) -> Engine:
    """Open the database and bring its tables up to date.

    Raises:
        ConfigError: The state folder cannot be written, or no database answers at the URL.
        StoreError: Its tables are of a later version, half made, or another program's.
    """
    address = config.address(folder)
    engine = _sqlite(address) if address.drivername == "sqlite" else _postgres(address)
    try:
        with writing(engine) as connection:
            _migrate(connection)
    except BaseException as error:
        engine.dispose()
        if not isinstance(error, StoreAway):
            raise
        shown = address.render_as_string(hide_password=True)
        raise ConfigError(f"[store] url {shown}: {error}; start the database, or correct the address") from error
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes. Raises StoreAway where the database does not take it, StoreError for all else."""
    with _told(), engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that sees one state of the store and keeps no writer waiting. Raises as `writing`."""
    with _told(), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def _told() -> Iterator[None]:
    """Name an error of the database in our own tree."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreAway("the database's connections are all in use") from error
    except DBAPIError as error:
        words = " ".join(str(error.orig).split())[:200]
        if error.connection_invalidated or _is_away(error):
            raise StoreAway(f"the database does not answer or cannot write ({words})") from error
        raise StoreError(f"the database refuses ({words}); this is a fault of ours, please report it") from error
    except SQLAlchemyError as error:
        raise StoreError(f"the database cannot be used ({error})") from error


def _is_away(error: DBAPIError) -> bool:
    """Whether the same may work later. SQLite calls every error operational, so its own name of it decides."""
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return str(name).split("_")[1] in _SQLITE_AWAY
    return isinstance(error, (InterfaceError, OperationalError))


# --- engines


def _sqlite(address: URL) -> Engine:
    file = Path(str(address.database))
    try:
        make_folder(file.parent)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        cure = "make [state] dir writable, and the file no symbolic link"
        raise ConfigError(f"{file}: {error.strerror}; {cure}") from error
    engine = sa.create_engine(address, connect_args={"timeout": _WAIT_S}, pool_timeout=_WAIT_S)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: Any) -> None:
    """A write-ahead log, so that readers and the writer do not wait for each other; commits are on the disk."""
    connection.isolation_level = None  # transactions are begun below, not by Python's module
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _postgres(address: URL) -> Engine:
    options = {
        "connect_timeout": _WAIT_S,
        "application_name": "veilsight bridge",
        "options": f"-c statement_timeout={_ANSWER_MS} -c idle_in_transaction_session_timeout={_ANSWER_MS}",
        "keepalives_idle": _WAIT_S,
        "tcp_user_timeout": _ANSWER_MS,
    }
    return sa.create_engine(address, connect_args=options, pool_timeout=_WAIT_S, pool_pre_ping=True)


# --- tables


def _migrate(connection: Connection) -> None:
    """Bring the tables up to date, in the caller's transaction; refuse those that are not ours as they should be."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(_MIGRATIONS).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    found = MigrationContext.configure(connection).get_current_heads()
    there = set(sa.inspect(connection).get_table_names()) & set(metadata.tables)
    later = {table for table, since in _SINCE.items() if found and found[0] < since}
    known = {each.revision for each in script.walk_revisions()}
    if not set(found) <= known:
        raise StoreError(f"the store has version {', '.join(found)}, ours is {script.get_current_head()}; update first")
    if there and (not found or there != set(metadata.tables) - later):
        raise StoreError(
            f"the store has the tables {', '.join(sorted(there))}, version {', '.join(found) or 'none'}: half a "
            "migration, or another program's; restore it from a backup, or name an empty database in [store] url"
        )
    environment = EnvironmentContext(config, script, fn=lambda revision, _: script._upgrade_revs("head", revision))
    with environment:
        environment.configure(connection=connection, transactional_ddl=True, target_metadata=metadata)
        environment.run_migrations()
