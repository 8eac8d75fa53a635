"""What is proved on the graphs before any engine is made: their structure, then the trusted core (verify_graph)."""
