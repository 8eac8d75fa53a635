"""Work done offline: choosing the noise and the INT8 ranges, printing bounds, and the audit that attacks an engine."""

import wire  # noqa: F401  # before anything that imports ONNX Runtime: see there
