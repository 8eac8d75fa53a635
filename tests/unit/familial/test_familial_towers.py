"""Every tower keeps the interface, and a tower that lacks its registry row, its docs row or its test is named here."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import familial.model.towers as package
from familial.model.config import FamilyConfig
from familial.model.towers.base import Tower
from familial.model.towers.registry import TOWERS, make_tower, tower_class
from tests.support.family_factory import small_config
from tests.support.qwen_factory import qwen_family_config
from wire.errors import CheckpointError
from wire.people.packed import VALUES
from wire.people.tracks import TRACKS

ROOT = Path(__file__).resolve().parents[3]
SMALL: dict[str, FamilyConfig] = {
    "snippets": small_config(),
    "fused": replace(small_config(), tower="fused", people_width=16),
    "qwen": qwen_family_config(),
}
"""A config of each tower that a test can compute with."""


def written_towers() -> list[type[Tower]]:
    """Every public subclass of Tower in the package."""
    modules = [
        importlib.import_module(f"{package.__name__}.{each.name}") for each in pkgutil.iter_modules(package.__path__)
    ]
    found = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return [each for each in found if issubclass(each, Tower) and each is not Tower and each.__name__[0] != "_"]


def missing_steps(tower: type[Tower]) -> list[str]:
    """What is still to be done for `tower`, step by step."""
    names = [name for name in TOWERS if tower_class(name) is tower]
    if not names:
        return [f"{tower.__name__}: add a row to TOWERS in familial/model/towers/registry.py"]
    (name,) = names
    pages = [page.read_text() for page in (ROOT / "docs").glob("*.md")]
    steps = []
    if not any(f"| `{name}` |" in page for page in pages):
        steps.append(f"{name}: add a row `| \\`{name}\\` | ...` to the table of towers in docs/checkpoints.md")
    if name not in SMALL:
        steps.append(f"{name}: add a small config to SMALL in tests/unit/familial/test_familial_towers.py")
    return steps


def test_every_tower_is_registered_documented_and_tested() -> None:
    steps = [step for tower in written_towers() for step in missing_steps(tower)]
    assert not steps, "\n".join(steps)


def test_a_tower_without_a_registry_row_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TOWERS, "qwen")
    assert missing_steps(tower_class("snippets")) == []
    with pytest.raises(CheckpointError, match=r"tower is 'qwen'; known are \['fused', 'snippets'\]"):
        make_tower(SMALL["qwen"])
    (step,) = [step for tower in written_towers() for step in missing_steps(tower)]
    assert step == "QwenTower: add a row to TOWERS in familial/model/towers/registry.py"


def test_a_tower_without_docs_or_a_small_config_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    row = TOWERS["qwen"]
    monkeypatch.delitem(TOWERS, "qwen")
    monkeypatch.setitem(TOWERS, "nowhere", row)
    docs, small = missing_steps(tower_class("nowhere"))
    assert "docs/checkpoints.md" in docs and "SMALL" in small


def people_of(tower: Tower, batch: int, windows: int, frames: int) -> torch.Tensor | None:
    """Tracks of any numbers that fit, for a tower that sees people: int32 (batch, windows, frames, TRACKS, VALUES)."""
    shape = (batch, windows, frames, TRACKS, VALUES)
    return torch.randint(-6144, 10240, shape, dtype=torch.int32) if tower.sees_people else None


@pytest.mark.parametrize("name", sorted(TOWERS))
@torch.no_grad()
def test_a_tower_keeps_the_interface(name: str) -> None:
    """Its width is what it says; a sequence gives what its windows give, and so does the form for export."""
    torch.manual_seed(0)
    config, count = SMALL[name], 3
    window = config.window
    tower = make_tower(config).eval()
    frames = torch.randint(1, 256, (2, window.frames + count - 1, window.height, window.width), dtype=torch.uint8)
    index = torch.arange(count)[:, None] + torch.arange(window.frames)
    people = people_of(tower, 2, count, window.frames)
    seen = [] if people is None else [people.flatten(0, 1)]
    features = tower(frames[:, index].flatten(0, 1), *seen).reshape(2, count, -1)
    assert features.shape[2] == tower.features and bool(torch.isfinite(features).all())
    torch.testing.assert_close(tower.sequence(frames, index, people), features, atol=1e-3, rtol=1e-4)
    exported = tower.for_export()
    assert not exported.training
    first = [] if people is None else [people[:, 0]]
    torch.testing.assert_close(exported(frames[:, index[0]], *first), features[:, 0], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(TOWERS))
@torch.no_grad()
def test_black_frames_give_finite_features(name: str) -> None:
    config = SMALL[name]
    black = torch.zeros(1, config.window.frames, config.window.height, config.window.width, dtype=torch.uint8)
    tower = make_tower(config).eval()
    nobody = [torch.zeros(1, config.window.frames, TRACKS, VALUES, dtype=torch.int32)] if tower.sees_people else []
    assert bool(torch.isfinite(tower(black, *nobody)).all())


def test_an_unknown_tower_is_refused_with_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match="tower is 'radar'; known are"):
        make_tower(replace(SMALL["snippets"], tower="radar"))


def test_a_window_that_snippets_do_not_fill_is_refused() -> None:
    config = SMALL["snippets"]
    with pytest.raises(CheckpointError, match="is 61, which snippets do not fill"):
        make_tower(replace(config, window=replace(config.window, context_frames=53)))
