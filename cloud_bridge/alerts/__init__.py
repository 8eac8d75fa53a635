"""Probabilities -> alerts: the rule that raises and clears them, and which of a camera's are raised."""
