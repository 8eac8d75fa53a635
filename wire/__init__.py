"""Ground floor: what crosses a boundary (messages, manifest, certificate, topics, errors). Imports nothing of ours."""
