"""The documentation pages, and the commands and files that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.services import ROOT

__all__ = ["PAGES", "code_in", "commands_in", "files_named_in"]

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "dev/adr/*.md", "checkpoints/*/README.md")
    for path in ROOT.glob(pattern)
    if path != ROOT / "docs" / "log.md"  # history, with the words and commands of its time
)

_FENCED = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_COMMAND = re.compile(r"(?:python3? -m|(?=scripts/)) ?([\w./]+)([^\n]*)")
_END_OF_COMMAND = re.compile(r"  +| #| \| | > | && |;")
_FILE = re.compile(r"[\w.-]+(?:/[\w.-]+)+\.(?:py|md|toml|proto|sh|txt)")


def code_in(text: str) -> Iterator[str]:
    """Every line of a fenced block, continued lines joined, and every span of inline code."""
    for block in _FENCED.findall(text):
        yield from block.replace("\\\n", " ").splitlines()
    yield from _INLINE.findall(_FENCED.sub("", text))


def commands_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """(module or scripts/NAME, its arguments without brackets) of every command in the code of a page."""
    for code in code_in(text):
        for name, rest in _COMMAND.findall(re.sub(r" {2,}(?=--)", " ", code)):
            yield name, re.sub(r"[][()]", " ", _END_OF_COMMAND.split(rest)[0]).split()


def files_named_in(text: str) -> set[Path]:
    """Files of the project that the code of a page names; what lies in build/ or is only an example's is not meant."""
    found = {name for code in code_in(text) for name in _FILE.findall(code) if "build/" not in name}
    return {ROOT / name for name in found if (ROOT / name.partition("/")[0]).is_dir()}
