"""The files that describe an engine folder, a device's engine files and a checkpoint."""
