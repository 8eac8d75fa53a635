"""Decoders: hidden states of the backbone -> what is said of an event: a verdict, attributes, a sentence."""
