"""The renderer: clips of people in scenes, with exact labels."""
