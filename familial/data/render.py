"""The former name of `python -m familial.synth.clip`, for one version."""

from __future__ import annotations

import sys

from familial.synth.clip import main
from wire.arguments import former_command

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(former_command("familial.data.render", "familial.synth.clip", main))
