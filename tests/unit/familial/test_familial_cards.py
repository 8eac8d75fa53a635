"""The cards of the shipped checkpoints: Hugging Face reads their front matter, and it says what the text says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.support.services import ROOT

CHECKPOINTS = sorted(path.parent for path in ROOT.glob("checkpoints/*/config.json"))
KEYS = {"library_name", "pipeline_tag", "tags", "license", "license_link", "datasets", "model-index"}
NAMES = [path.name for path in CHECKPOINTS]


def parts(checkpoint: Path) -> tuple[dict[str, Any], str]:
    """Front matter and text of a checkpoint's card."""
    _, head, text = (checkpoint / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), text


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=NAMES)
def test_a_card_has_the_keys_that_the_hub_reads(checkpoint: Path) -> None:
    found, _ = parts(checkpoint)
    assert found.keys() >= KEYS
    assert (found["library_name"], found["pipeline_tag"]) == ("veilsight", "video-classification")
    link = found["license_link"]
    assert link.startswith("https://") or (checkpoint / link).is_file()
    assert found["license"] != "other" or found["license_name"]
    data = ModelCard.load(checkpoint / "README.md").data  # it checks the model-index
    assert data.model_name == checkpoint.name


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=NAMES)
def test_a_cards_numbers_stand_in_its_tables(checkpoint: Path) -> None:
    """A set's in the row of that set, those of all clips in the text."""
    _, text = parts(checkpoint)
    results = ModelCard.load(checkpoint / "README.md").data.eval_results
    assert {result.metric_type for result in results} == {"f1", "accuracy"}
    for result in results:
        row = "".join(line for line in text.splitlines() if line.startswith(f"| {result.dataset_type} | "))
        assert f"{result.metric_value:.3f}" in (row or text), (result.dataset_name, result.metric_name)


def test_a_checkpoint_of_real_clips_names_all_its_sets() -> None:
    found, text = parts(ROOT / "checkpoints" / "nano-research")
    rows = text.split("## Data and terms")[1].split("\n## ")[0].splitlines()
    table = [line.split("|")[1].strip() for line in rows if line.startswith("|")][2:]  # below head and rule
    assert set(found["datasets"]) - {"rendered"} == set(table)
    assert (found["license"], found["license_name"]) == ("other", "research-only")


def test_the_card_of_the_default_says_what_the_person_network_is_for() -> None:
    _, text = parts(ROOT / "checkpoints" / "nano")
    assert "fitness and fast movement, people 1 to 2 m" in text and "surveillance" in text
