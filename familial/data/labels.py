"""The labels: what a clip may be called, and the plain sentence of each.

To add a label: add it to `LABELS`, `CAPTIONS`, `NOUNS` and, if it is over in a moment, `SUDDEN`; let the renderer draw
it (familial/synth); say what it means in docs/data.md. What is missing, tests/unit/familial/test_familial_labels.py
names.
What else is known of a frame has its names in the renderer: `synth.tags.TAGS`, `synth.truth.ATTRIBUTES`.
"""

from __future__ import annotations

__all__ = ["CAPTIONS", "LABELS", "NOUNS", "SUDDEN", "noun", "plain_caption"]

LABELS = ("normal", "fall", "fight")
"""A family's labels by default. The first is the one without risk, in every family."""

SUDDEN = frozenset({"fall"})
"""Labels of what is over in a moment and leaves a body lying; the others last as long as they are annotated."""

CAPTIONS = {"normal": "nothing unusual happens", "fall": "a person falls", "fight": "two people fight"}
"""The sentence of a clip of which only the label is known."""

NOUNS = {"normal": "no risk", "fall": "a fall", "fight": "a fight"}
"""What stands behind "probably" in a sentence."""


def plain_caption(label: str) -> str:
    """The sentence of `label`; the label itself where it has none."""
    return CAPTIONS.get(label, label)


def noun(label: str) -> str:
    """What `label` is called within a sentence; the label itself where it has no noun."""
    return NOUNS.get(label, label.replace("_", " "))
