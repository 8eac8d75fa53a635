"""What can be told from what leaves."""
