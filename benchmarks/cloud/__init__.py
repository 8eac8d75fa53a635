"""What the bridge takes in, and what it makes of it, a second."""
