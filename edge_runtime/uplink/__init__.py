"""What leaves the device, over MQTT."""
