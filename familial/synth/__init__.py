"""Rendered clips: people in scenes, labelled for free."""
