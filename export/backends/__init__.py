"""The backends: how graphs become engine files (builder), and how they are run for tests (runners)."""
