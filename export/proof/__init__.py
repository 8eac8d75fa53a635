"""What is proved on the graphs before any engine is made: structure, operators, no state (verify_graph)."""
