"""Checkpoint -> ONNX graphs -> proof -> engines. Only trace.py and parity.py import torch."""

import wire  # noqa: F401  # before anything that imports ONNX Runtime: see there
