"""How right a member is, and what it does not know."""
