"""Reinforcement learning of the sentence: groups of sampled sentences, a reward that the rendered truth verifies."""
