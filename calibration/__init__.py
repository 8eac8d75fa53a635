"""What is chosen and checked offline: the noise and its bounds, INT8 ranges, the audit that attacks an engine."""
