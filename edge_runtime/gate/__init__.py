"""Charge, draw, add, release: the slot loop, the ledger and the noise."""
