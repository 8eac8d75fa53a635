"""The family that edge and cloud share: its data, networks, training, evaluation, and the renderer of clips."""
