"""Evaluation: metrics, intervals, calibration of scores, out-of-distribution detection."""
