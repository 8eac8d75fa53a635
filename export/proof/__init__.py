"""What is proved on the graphs before any engine is made."""
