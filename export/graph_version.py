"""The version of the graphs that `trace.py` and `familial` make of a checkpoint; read without torch."""

from __future__ import annotations

__all__ = ["GRAPH_VERSION"]

GRAPH_VERSION = 3
"""Raise it whenever the same checkpoint gives other bytes of encode.onnx or decide.onnx than before, or a change
of the proof, parity or manifest needs a new build: `build_engine` then builds again instead of using an engine again.
`tests/unit/export/test_export_graph_version.py` pins the bytes of each version and says so when they change."""
