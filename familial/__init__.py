"""First floor. The family: a vision tower, a desensitizer and a language backbone that edge and cloud share; its data and its training."""
