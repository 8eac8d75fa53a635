"""Camera -> engine -> noised feature tensor -> MQTT. Begin with `gate/loop.py`."""

import wire  # noqa: F401  # before anything that imports ONNX Runtime: see there
