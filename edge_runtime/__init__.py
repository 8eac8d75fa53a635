"""Camera -> engine -> noised feature tensor -> MQTT. Begin with `gate/loop.py`."""
