"""The former name of `python -m wire.protocol.command`, for one version."""

from __future__ import annotations

import sys

from wire.arguments import former_command
from wire.protocol.command import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(former_command("wire.command", "wire.protocol.command", main))
