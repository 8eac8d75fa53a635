"""Alerts over HTTP: config.py who is told, letters.py what, courier.py how."""
