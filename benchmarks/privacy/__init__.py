"""Benchmarks of privacy: accuracy over certified bits, the adaptive level, side channels, bounds over time."""
