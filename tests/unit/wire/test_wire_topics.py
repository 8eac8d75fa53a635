"""Every topic of the table has a writer, a reader and a line in the docs; the messages name what is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from wire.protocol.topics import TOPICS

ROOT = Path(__file__).resolve().parents[3]
WRITERS = {"edge": "edge_runtime", "cloud": "cloud_bridge", "operator": "wire/protocol/command.py"}
PUBLISHING = {"send", "_send", "_message", "topic"}  # functions that take the name of a topic to be published
PAGE = "docs/subscribe.md"


def sources(place: str) -> list[Path]:
    path = ROOT / place
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def calls_with(name: str, place: str) -> Iterator[str]:
    """Where a publishing function is called with the topic's name as a literal."""
    for file in sources(place):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if called in PUBLISHING and name in given:
                yield f"{file.relative_to(ROOT)}:{node.lineno}"


def mentions(name: str, place: str) -> Iterator[str]:
    """Python files that contain the topic's name as a literal."""
    for file in sources(place):
        if any(isinstance(node, ast.Constant) and node.value == name for node in ast.walk(ast.parse(file.read_text()))):
            yield str(file.relative_to(ROOT))


def readers(name: str, writer: str) -> list[str]:
    """Processes of ours, other than the writer's, and examples for third parties, that read the topic."""
    processes = [place for place in ("edge_runtime", "cloud_bridge") if place != WRITERS[writer]]
    found = [file for place in processes for file in mentions(name, place)]
    key = re.compile(rf'^\s*"?{re.escape(name)}"?: \[', re.M)  # of the table of topics in an example
    return found + [str(file) for file in (ROOT / "examples").rglob("*.mjs") if key.search(file.read_text())]


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_has_a_writer(name: str) -> None:
    writer = TOPICS[name].writer
    assert writer in WRITERS, f"{name}: writer is {writer!r}; expected one of {', '.join(WRITERS)}"
    place = WRITERS[writer]
    cure = f'publish it there, such as self.send("{name}", payload), or take its row out of wire/protocol/topics.py'
    assert list(calls_with(name, place)), f"{name}: nothing in {place} publishes it; {cure}"


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_has_a_reader(name: str) -> None:
    cure = "read it in another package (cloud_bridge.bridge.SUBSCRIPTIONS) or in examples/subscribe/subscribe.mjs"
    assert readers(name, TOPICS[name].writer), f"{name}: nobody reads it; {cure}"


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_has_a_line_in_the_docs_that_agrees_with_the_table(name: str) -> None:
    row = TOPICS[name]
    kept = f"{row.qos}, {'yes' if row.retain else 'no'}"
    line = re.search(rf"^\| `{re.escape(name)}` \|.*$", (ROOT / PAGE).read_text(), re.M)
    cure = f"add to its table: | `{name}` | writer | {kept} | what it holds |"
    assert line is not None, f"{name}: {PAGE} does not name it; {cure}"
    assert f"| {kept} |" in line[0], f"{name}: {PAGE} says {line[0]!r}; QoS and retained are {kept}"


def test_the_table_says_of_every_topic_what_it_holds() -> None:
    assert all(row.holds and row.qos in (0, 1) for row in TOPICS.values())


def test_the_checks_find_what_is_missing() -> None:
    assert not list(calls_with("no topic", "cloud_bridge"))
    assert not readers("no topic", "cloud")
    assert readers("alert", "cloud") == [str(ROOT / "examples" / "subscribe" / "subscribe.mjs")]
