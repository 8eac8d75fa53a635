"""Traces of what the bridge does, for a collector of OpenTelemetry."""
