"""`python -m familial.evaluate`."""

from __future__ import annotations

import sys

from familial.evaluate.report import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
