"""The cloud's process: verified messages in, events read by the cloud member, verdicts and alerts out."""
