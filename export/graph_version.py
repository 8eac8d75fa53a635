"""The version of what `trace.py` and `familial` make of a checkpoint. Here so that it is read without torch."""

from __future__ import annotations

__all__ = ["GRAPH_VERSION"]

GRAPH_VERSION = 1
"""Raise it whenever the same checkpoint gives other bytes of encode.onnx or decide.onnx than before, or the proof,
parity or manifest asks for a new build: `build_engine` then builds again where it would have used an engine again.
`tests/unit/export/test_export_graph_version.py` pins the bytes of each version and says so when they change."""
