"""Top floor. The whole loop as a user runs it: the demo, and what is measured against peers and floors."""
