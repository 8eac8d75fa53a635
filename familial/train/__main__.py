"""`python -m familial.train`."""

from __future__ import annotations

import sys

from familial.train.loop import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
