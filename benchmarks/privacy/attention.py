"""The former name of `python -m benchmarks.adaptive_level`, for one version."""

from __future__ import annotations

import sys

from benchmarks.privacy.adaptive_level import COMMAND
from wire.arguments import former_command

__all__ = ["COMMAND"]

if __name__ == "__main__":
    sys.exit(former_command("benchmarks.attention", "benchmarks.adaptive_level", COMMAND.main))
