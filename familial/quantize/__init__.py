"""Quantisation of the cloud member: the matrices of the blocks behind the edge's exit as integers of 2 to 8 bits."""
