"""What an operator does with the store: delete, export, and see who did what. It may run while the bridge does.

    python -m cloud_bridge.store --config bridge.toml --export verdicts --out verdicts.parquet --since 2026-11-01
    python -m cloud_bridge.store --config bridge.toml --delete --camera ward-3/corridor
    python -m cloud_bridge.store --config bridge.toml --audit

Its exit code is 0, or 2 with the reason on stderr.
"""

from __future__ import annotations

import argparse
import getpass
import math
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from cloud_bridge.config import BridgeConfig
from cloud_bridge.store import tables
from cloud_bridge.store.database import open_engine, reading, writing
from cloud_bridge.store.export import EXPORTS, export
from cloud_bridge.store.retention import delete, write_audit
from wire.errors import ConfigError, VeilsightError

__all__ = ["main"]

_ALL = "all"


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the options say; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        config = BridgeConfig.load(options.config)
        since_s, until_s = _moment(options.since, "--since", 0.0), _moment(options.until, "--until", math.inf)
        _check(options)
        engine = open_engine(config.store, Path(config.state.dir))
        _act(options, engine, since_s, until_s)
        engine.dispose()
    except VeilsightError as error:
        print(f"cloud_bridge.store: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cloud_bridge.store", description="Delete from the bridge's store, export it, see its audit log."
    )
    parser.add_argument("--config", default="bridge.toml", help="the bridge's TOML file (default: bridge.toml)")
    does = parser.add_mutually_exclusive_group(required=True)
    does.add_argument("--delete", action="store_true", help="delete everything of --camera, or of a span of it")
    does.add_argument("--export", choices=[*EXPORTS], help="write these to --out")
    does.add_argument("--audit", action="store_true", help="print who deleted or exported what, the newest last")
    parser.add_argument("--camera", default="", help=f"site/camera, or {_ALL!r}; --delete needs it")
    parser.add_argument("--since", default="", metavar="TIME", help="ISO 8601, UTC unless it says else")
    parser.add_argument("--until", default="", metavar="TIME", help="as --since; this moment is left out")
    parser.add_argument("--out", type=Path, metavar="FILE", help="FILE.parquet or FILE.csv")
    return parser


def _check(options: argparse.Namespace) -> None:
    if options.delete and not options.camera:
        raise ConfigError(f"--delete needs --camera; write site/camera, or {_ALL!r} for all of them")
    if options.export and options.out is None:
        raise ConfigError("--export needs --out; give FILE.parquet or FILE.csv")


def _act(options: argparse.Namespace, engine: Engine, since_s: float, until_s: float) -> None:
    camera = "" if options.camera == _ALL else options.camera
    if options.delete:
        counts = delete(engine, _who(), camera, since_s, until_s)
        print("deleted: " + ", ".join(f"{kind} {count}" for kind, count in counts.items()))
    elif options.export:
        count = export(engine, options.export, options.out, camera, since_s, until_s)
        with writing(engine) as connection:
            write_audit(connection, _who(), "export", f"{options.export} of {camera or 'all cameras'}: {count}")
        print(f"{options.out}: {count} {options.export}")
    else:
        _print_audit(engine, since_s, until_s)


def _print_audit(engine: Engine, since_s: float, until_s: float) -> None:
    when = tables.audit.c.at_s
    query = sa.select(tables.audit).where(when >= since_s).order_by(when)
    query = query.where(when < until_s) if until_s < math.inf else query
    with reading(engine) as connection:
        for row in connection.execute(query):
            moment = datetime.fromtimestamp(row.at_s, timezone.utc).isoformat(timespec="seconds")
            print(f"{moment}  {row.who}  {row.what}  {row.detail}")


def _moment(text: str, option: str, default: float) -> float:
    """A time as seconds since 1970."""
    if not text:
        return default
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{option} is {text!r}; write a time such as 2026-11-28T14:00") from error


def _who() -> str:
    """Whose account runs this command."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user on this machine, as in a container
        return f"user {os.getuid()}"


if __name__ == "__main__":
    sys.exit(main())
