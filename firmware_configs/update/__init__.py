"""The A/B update of a device: a second root file system is written, tried, and kept only when it publishes."""
