"""The engine interface (base), one module for each backend (onnx, tensorrt), and the choice between them (registry)."""
