"""The code that handles pictures: the window of a slot, the engine that encodes it, and the thread it runs on."""
