"""What the family learns from: made clips of motion, and manifests of recorded ones."""
