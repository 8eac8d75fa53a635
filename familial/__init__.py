"""The family that edge and cloud share: its data, networks, training, evaluation, and the renderer of clips."""

import wire  # noqa: F401  # before anything that imports ONNX Runtime: see there
