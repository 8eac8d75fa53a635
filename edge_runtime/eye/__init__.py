"""Frames -> window -> engine."""
