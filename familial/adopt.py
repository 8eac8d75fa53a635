"""The former name of `python -m familial.model.adopt`, for one version."""

from __future__ import annotations

import sys

from familial.model.adopt import main
from wire.arguments import former_command

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(former_command("familial.adopt", "familial.model.adopt", main))
