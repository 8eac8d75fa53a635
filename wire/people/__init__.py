"""What the person network finds, as numbers: the same for the device, for training and for the graphs."""
