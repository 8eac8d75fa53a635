"""Training: losses, stages, the visible loop."""
