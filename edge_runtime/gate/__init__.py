"""What decides about a release: the loop, the ledger that charges it, its privacy level and its noise."""
