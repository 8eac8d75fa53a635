"""Benchmarks of the model: accuracy, attributes, false alarms, delay, unknown scenes."""
