"""What makes and charges a release: the loop, the ledger, the privacy level and the noise."""
