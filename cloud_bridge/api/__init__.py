"""The bridge's store over HTTP: who may ask, what they get, and what they may change."""
