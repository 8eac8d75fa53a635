"""A profile, a board, a label or a tower that lacks a part of what belongs to it is named here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from familial.model.towers.registry import TOWERS
from familial.synth.actions.base import LABELS
from familial.synth.actions.catalogue import KINDS, SHARES
from firmware_configs.boards import BOARDS
from tests.support.services import ROOT
from wire.privacy.certificate import PROFILES
from wire.privacy.noise_table import NoiseTable

DOCS = ROOT / "docs"
CHECKPOINTS = sorted(path.parent for path in ROOT.glob("checkpoints/*/config.json"))


def pages_with(word: str) -> list[Path]:
    """The pages of docs/ that name `word` as code."""
    return [page for page in DOCS.glob("*.md") if page.name != "log.md" and f"`{word}`" in page.read_text()]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_is_in_the_pages(profile: str) -> None:
    assert pages_with(profile), f"say in docs/privacy.md what `{profile}` promises, and in docs/accuracy.md its cost"


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.name)
def test_shipped_weights_have_the_noise_of_every_profile(checkpoint: Path) -> None:
    noise = json.loads((checkpoint / "noise.json").read_text())
    have = {noise["profile"], *noise["levels"]}
    cure = f"write it with: python -m calibration.noise --checkpoint checkpoints/{checkpoint.name} --target PROFILE"
    assert have == set(PROFILES), f"{checkpoint.name} has noise for {sorted(have)}; {cure}"
    tables = NoiseTable.load_all(checkpoint / "noise_table.bin")
    assert len(tables) == len(have)


@pytest.mark.parametrize("board", [board.name for board in BOARDS])
def test_a_board_has_its_row_in_the_flash_page(board: str) -> None:
    row = rf"^\| *`{re.escape(board)}` *\|"
    assert re.search(row, (DOCS / "flash.md").read_text(), re.M), f"give `{board}` a row in docs/flash.md"


@pytest.mark.parametrize("label", LABELS)
def test_a_label_is_rendered_and_in_the_pages(label: str) -> None:
    assert len(SHARES) == len(LABELS), "give each label its share of the rendered clips in familial.synth.actions"
    assert label in KINDS.values(), f"write an action in familial.synth.actions that shows {label!r}"
    said = re.search(rf"\b{re.escape(label)}\b", (DOCS / "data.md").read_text())
    assert said, f"say in docs/data.md what {label!r} means and which sets have it"


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.name)
def test_shipped_weights_know_the_rendered_labels(checkpoint: Path) -> None:
    labels = json.loads((checkpoint / "config.json").read_text())["labels"]
    assert labels == [*LABELS], "a new label asks for weights that were trained on it"


@pytest.mark.parametrize("tower", TOWERS)
def test_a_tower_is_in_the_pages(tower: str) -> None:
    assert pages_with(tower), f"give the tower `{tower}` a row in the table of towers in docs/checkpoints.md"
