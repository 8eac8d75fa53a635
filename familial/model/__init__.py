"""The family: towers, desensitizer, backbone, checkpoints."""
