"""What the Linux kernel offers a process that wants to lock itself in; `edge_runtime/confine.py` puts it together."""
