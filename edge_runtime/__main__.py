"""`python -m edge_runtime`."""

from __future__ import annotations

import sys

from edge_runtime.app import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
