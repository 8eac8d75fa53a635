"""The former name of `python -m familial.evaluate.ood`, for one version."""

from __future__ import annotations

import sys

from familial.evaluate.ood import main
from wire.arguments import former_command

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(former_command("familial.shift", "familial.evaluate.ood", main))
