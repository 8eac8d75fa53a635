"""What the bridge must not forget."""
