"""The traced fp32 graph in another precision (convert): fp16 (half), int8 (quantise); its parts (network)."""
