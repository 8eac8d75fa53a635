"""The former name of `python -m familial.data.public_sets`, for one version."""

from __future__ import annotations

import sys

from familial.data.public_sets import main
from wire.arguments import former_command

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(former_command("familial.data.sets", "familial.data.public_sets", main))
