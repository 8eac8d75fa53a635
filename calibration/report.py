"""The former name of `python -m calibration.audit.report`, for one version."""

from __future__ import annotations

import sys

from calibration.audit.report import main
from wire.arguments import former_command

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(former_command("calibration.report", "calibration.audit.report", main))
