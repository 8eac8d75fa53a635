"""The demo and the benchmarks: the whole loop as a user runs it, measured against peers and baselines.

`python -m benchmarks.NAME` finds NAME in any package below, so that a command keeps its name wherever its file lies.
"""

from pathlib import Path

import wire as _wire  # noqa: F401  # before anything that imports ONNX Runtime: see there

__all__: list[str] = []

__path__ += sorted(str(found.parent) for found in Path(__file__).parent.glob("*/__init__.py"))
