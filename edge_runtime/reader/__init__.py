"""The reader: decides on what was published, in a process of its own that has no frames, noise, key or network."""
