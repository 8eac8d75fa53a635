"""What crosses a boundary: messages, manifest, certificate, topics, errors. Imports nothing else of the project."""

__all__ = ["__version__"]

__version__ = "0.2.0"
