"""The cloud's process: verified messages in, events read by the cloud member, verdicts and alerts out."""

import wire  # noqa: F401  # before anything that imports ONNX Runtime: see there
