"""`python -m edge_runtime`: the gate, protected before anything else happens in it."""

from __future__ import annotations

import sys

from edge_runtime.app import main
from edge_runtime.confine import protect_gate
from wire.errors import PrivacyError

__all__: list[str] = []

if __name__ == "__main__":
    try:
        protect_gate()
    except PrivacyError as error:
        sys.exit(f"edge_runtime: {error}")
    sys.exit(main())
