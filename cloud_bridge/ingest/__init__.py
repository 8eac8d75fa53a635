"""MQTT -> verified releases -> events."""
