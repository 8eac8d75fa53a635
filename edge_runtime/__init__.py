"""Camera -> engine -> noised feature tensor -> MQTT. Begin with `loop.py`; it fits on a screen."""
