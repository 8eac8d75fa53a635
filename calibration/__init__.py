"""What is chosen from measurements and targets, offline: the noise and its certificate."""
