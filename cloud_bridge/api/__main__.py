"""Adds a token for the API, or takes one out. The token is printed once and kept nowhere.

    python -m cloud_bridge.api --tokens tokens.json --add nora --role nurse --sites ward-3,ward-4 --days 90
    python -m cloud_bridge.api --tokens tokens.json --remove nora

Its exit code is 0, or 2 with the reason on stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cloud_bridge.api.tokens import ROLES, add_token, remove_token
from wire.errors import VeilsightError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the options say; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cloud_bridge.api", description="Add a token for the bridge's API, or take one out."
    )
    parser.add_argument("--tokens", type=Path, required=True, metavar="FILE", help="as [api] tokens names it")
    does = parser.add_mutually_exclusive_group(required=True)
    does.add_argument("--add", metavar="NAME", help="print a new token for NAME")
    does.add_argument("--remove", metavar="NAME", help="end the token of NAME")
    parser.add_argument("--role", choices=ROLES, default="viewer", help="what it allows (default: viewer)")
    parser.add_argument("--sites", default="", help="whose cameras it shows, with commas; '*': all")
    parser.add_argument("--days", type=float, default=90.0, help="for which it is valid (default 90)")
    options = parser.parse_args(argv)
    try:
        if options.add is None:
            remove_token(options.tokens, options.remove)
        else:
            sites = [site.strip() for site in options.sites.split(",") if site.strip()]
            print(add_token(options.tokens, options.add, options.role, sites, options.days))
    except VeilsightError as error:
        print(f"cloud_bridge.api: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
