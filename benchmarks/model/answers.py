"""The former name of `python -m benchmarks.attributes`, for one version."""

from __future__ import annotations

import sys

from benchmarks.model.attributes import COMMAND
from wire.arguments import former_command

__all__ = ["COMMAND"]

if __name__ == "__main__":
    sys.exit(former_command("benchmarks.answers", "benchmarks.attributes", COMMAND.main))
