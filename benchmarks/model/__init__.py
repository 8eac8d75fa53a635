"""How right the family is."""
