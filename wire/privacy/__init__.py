"""What a release can reveal at most, and the noise that makes it so."""
