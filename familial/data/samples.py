"""The former name of `python -m familial.synth.samples`, for one version."""

from __future__ import annotations

import sys

from familial.synth.samples import main
from wire.arguments import former_command

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(former_command("familial.data.samples", "familial.synth.samples", main))
