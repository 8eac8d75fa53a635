"""What crosses a boundary: messages, manifest, certificate, topics, errors. Imports nothing else of the project.

Each package of the project imports this one first. ONNX Runtime 1.29 and later reports to its maker over the network,
by default, and decides that when it is imported; so it is told not to here, before anything can import it.
"""

import os

__all__ = ["__version__"]

__version__ = "0.2.0"

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
