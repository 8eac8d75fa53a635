"""The family's networks: towers, desensitizer, backbone, decoders; its members and graphs; its checkpoints."""
