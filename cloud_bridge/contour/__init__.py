"""The dynamic contour in the cloud: which events get a figure, and its message."""
