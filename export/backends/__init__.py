"""Graphs -> something that runs, by the backend."""
