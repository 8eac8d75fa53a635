"""The pages say what is: their configuration files load, their links lead somewhere, and they are short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloud_bridge.config import BridgeConfig
from edge_runtime.config import load_config
from tests.support.pages import PAGES, files_named_in
from tests.support.services import ROOT

LINE, WORDS = 120, 1500


def block(name: str) -> str:
    """The TOML block of docs/configuration.md that begins with a comment of this name."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    blocks: list[str] = re.findall(r"```toml\n(.*?)```", text, re.S)
    return next(found for found in blocks if found.startswith(f"# {name}"))


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


def anchors(page: Path) -> set[str]:
    """What links into a page may name, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ +(.*?) *$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """The links of a page to a file that is not there, or to a heading that its page does not have."""
    found = []
    for link in re.findall(r"\]\(([^)\s]+)", page.read_text()):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if "://" in link:
            continue
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
class TestPage:
    """What holds of every page but the log."""

    def test_links_lead_somewhere(self, page: Path) -> None:
        assert not dead_links(page)

    def test_the_files_it_names_are_there(self, page: Path) -> None:
        gone = sorted(str(path.relative_to(ROOT)) for path in files_named_in(page.read_text()) if not path.exists())
        assert not gone

    def test_no_line_is_too_long(self, page: Path) -> None:
        long = [number for number, line in enumerate(page.read_text().splitlines(), 1) if len(line) > LINE]
        assert not long, f"more than {LINE} characters in lines {long}: wrap them; make a list of a wide table"

    def test_it_is_read_in_minutes(self, page: Path) -> None:
        count = len(page.read_text().split())
        assert count <= WORDS, f"{count} words, {WORDS} at most: move what only some readers need to a page of its own"


# --- the pages for those who sign -------------------------------------------------------------------------------------

ASSURANCE = ROOT / "docs" / "assurance"
BLANK = "`____`"


def words_of(page: Path) -> str:
    """The page's text with every run of spaces and line breaks as one space."""
    return re.sub(r"\s+", " ", page.read_text())


def test_whoever_signs_finds_every_page() -> None:
    overview = (ASSURANCE / "README.md").read_text()
    pages = {path.name for path in ASSURANCE.glob("*.md")} - {"README.md"}
    assert pages == {"dpia.md", "eu-ai-act.md", "iso-iec-27559.md", "nist-sp-800-226.md"}
    assert all(f"]({name})" in overview for name in pages)


@pytest.mark.parametrize("name", ["dpia.md", "eu-ai-act.md", "iso-iec-27559.md"])
def test_a_template_has_blanks_and_names_its_public_text(name: str) -> None:
    text = (ASSURANCE / name).read_text()
    assert text.count(BLANK) >= 10 and "\nSource: [" in text


@pytest.mark.parametrize(
    "heading", ["(a) What is done", "(b) Necessity", "(c) Risks", "(d) Measures", "Rights", "What remains"]
)
def test_the_assessment_has_every_part_that_the_law_asks_for(heading: str) -> None:
    assert f"\n## {heading}" in (ASSURANCE / "dpia.md").read_text()


def test_those_who_sign_are_told_the_worst_first() -> None:
    """What must not be missed: residents, personal data, and that epsilon is weak."""
    assert "Residents are not hidden" in words_of(ASSURANCE / "README.md")
    assert "residents are not hidden" in words_of(ASSURANCE / "nist-sp-800-226.md").lower()
    assert "Assume that the releases are personal data" in words_of(ASSURANCE / "dpia.md")
    assert "**That is weak**" in words_of(ASSURANCE / "nist-sp-800-226.md")
