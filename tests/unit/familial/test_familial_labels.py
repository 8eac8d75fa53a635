"""A label that lacks its sentence, its rendered clips or its row in the docs is named here."""

from __future__ import annotations

from pathlib import Path

from familial.data.labels import CAPTIONS, LABELS, NOUNS, SUDDEN, noun, plain_caption
from familial.model.config import nano
from familial.synth.clip import clip_label

ROOT = Path(__file__).resolve().parents[3]


def missing_steps(label: str) -> list[str]:
    """What is still to be done for `label`, as familial/data/labels.py lists it."""
    steps = []
    if label not in CAPTIONS:
        steps.append(f"{label}: add its plain sentence to CAPTIONS in familial/data/labels.py")
    if label not in NOUNS:
        steps.append(f"{label}: add what it is called to NOUNS in familial/data/labels.py")
    if label not in {clip_label(seed) for seed in range(300)}:
        steps.append(f"{label}: the renderer never draws it; add it to the labels and actions of familial/synth")
    if f"`{label}`" not in (ROOT / "docs" / "data.md").read_text():
        steps.append(f"{label}: say what it means in docs/data.md")
    return steps


def test_every_label_has_a_sentence_rendered_clips_and_docs() -> None:
    steps = [step for label in LABELS for step in missing_steps(label)]
    assert not steps, "\n".join(steps)
    assert set(LABELS) >= SUDDEN and LABELS[0] not in SUDDEN


def test_a_label_that_is_only_named_lacks_every_step() -> None:
    assert [step.split(":")[0] for step in missing_steps("collapse")] == ["collapse"] * 4
    assert plain_caption("collapse") == noun("collapse") == "collapse" and noun("lying_still") == "lying still"


def test_a_new_family_has_these_labels() -> None:
    assert nano(("<pad>", "<end>")).labels == LABELS
    assert {clip_label(seed) for seed in range(300)} == set(LABELS)
