"""Camera, file or rendered scene -> frames with their times."""
