"""What the device costs."""
