"""What sees pictures: the window of a slot, the engine that encodes it, and the thread on which it runs."""
