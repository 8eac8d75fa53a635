"""The former name of `python -m export.proof.verify_graph`, for one version."""

from __future__ import annotations

import sys

from export.proof.verify_graph import main
from wire.arguments import former_command

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(former_command("export.verify_graph", "export.proof.verify_graph", main))
