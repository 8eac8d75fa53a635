"""The pages say what is: their configuration files load, their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloud_bridge.config import BridgeConfig
from edge_runtime.config import load_config
from tests.support.services import ROOT

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("checkpoints/*/README.md")])


def block(name: str) -> str:
    """The TOML block of docs/configuration.md that begins with a comment of this name."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    return next(found for found in re.findall(r"```toml\n(.*?)```", text, re.S) if found.startswith(f"# {name}"))


def test_the_documented_edge_configuration_loads(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text(block("edge.toml"))
    config = load_config(tmp_path / "edge.toml")
    assert (config.device_site, config.broker_url) == ("ward-3", "mqtts://broker.example:8883")


def test_the_documented_bridge_configuration_loads(tmp_path: Path) -> None:
    for name in ("ca.pem", "checkpoints/nano/x", "build/engines/nano/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "bridge.toml").write_text(block("bridge.toml"))
    config = BridgeConfig.load(tmp_path / "bridge.toml")
    assert [camera.camera for camera in config.cameras] == ["corridor"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing
