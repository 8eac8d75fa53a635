"""Training: losses, stages, the loop."""
