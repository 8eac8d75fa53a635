"""Towers: the frames of one window -> features. `base` is the interface, `registry` has a row for each tower."""
