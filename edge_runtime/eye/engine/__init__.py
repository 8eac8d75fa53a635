"""One engine interface, an implementation per backend."""
