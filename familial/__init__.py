"""The family that edge and cloud share: tower, desensitizer, language backbone; data, training."""
