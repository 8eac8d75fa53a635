"""The durable state of the bridge."""
