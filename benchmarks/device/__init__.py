"""Benchmarks of the device: time, size, memory and network traffic."""
