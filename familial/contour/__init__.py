"""The dynamic contour: an outline figure read from the noised codes of an event, with how sure it is."""
