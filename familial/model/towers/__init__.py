"""Frames of one window -> features, by several towers behind one interface."""
