"""Checkpoint -> ONNX graphs -> proof -> engines. Only trace.py and parity.py import torch."""
