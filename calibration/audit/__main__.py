"""`python -m calibration.audit`."""

from __future__ import annotations

import sys

from calibration.audit.auditor import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
