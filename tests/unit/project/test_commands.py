"""Every command of the project answers `--help` in current words, and every command in the pages would run."""

from __future__ import annotations

import argparse
import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.commands import commands, parser_of
from tests.support.pages import PAGES, commands_in
from tests.support.services import ROOT
from tests.support.source_tree import PACKAGES

# Words that only this project used, and those of the field.
OLD_WORDS = {
    r"lifters?": "adapter",
    r"poles?": "class prototype",
    r"drawers?": "workers",
    r"risk_at": "decision threshold",
    r"lean": "logit bias",
    r"linkers?": "re-identification adversary",
    r"familiarity": "OOD score",
    r"(its|the|a|of) reach": "receptive field",
    r"further answers": "attributes",
    r"the rooms? of the project": "package",
}
FORMER = {  # option -> its name of one version ago, which every command that has the option still takes
    "--signer": "--publisher",
    "--noise-samples": "--draws",
    "--lr": "--rate",
    "--logit-bias": "--lean",
    "--decision-threshold": "--risk-at",
    "--attributes": "--answers",
}
OLD_FLAGS = {"--drawers", "--batch", *FORMER.values()}
SCRIPT_FLAGS = {"scripts/setup": {"--all"}, "scripts/check": set[str](), "scripts/test": {"--all", "--durations"}}


def options_of(command: str) -> dict[str, argparse.Action]:
    """flag -> what it does, hidden ones too."""
    return parser_of(command)._option_string_actions


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself_in_current_words(command: str) -> None:
    parser = parser_of(command)
    text = parser.format_help()
    found = [f"say {new!r}, not {old!r}" for old, new in OLD_WORDS.items() if re.search(rf"\b{old}\b", text, re.I)]
    found += [
        f"{flag} is an old name: hide it with former_name" for flag in OLD_FLAGS if re.search(rf"{flag}(?![\w-])", text)
    ]
    assert parser.description, "give the parser a description"
    assert not found, f"python -m {command} --help: {found}"


@pytest.mark.parametrize("command", commands())
def test_an_option_takes_its_former_name_too(command: str) -> None:
    options = options_of(command)
    missing = [
        f"{new} lacks former_name({old})" for new, old in FORMER.items() if new in options and old not in options
    ]
    assert not missing, f"python -m {command}: {missing}"


def wrong_value(option: argparse.Action, value: str) -> bool:
    """Whether `value`, or one of a|b or a/b, is none of the option's choices; NAME stands for any."""
    known = {str(choice) for choice in option.choices or ()}
    return bool(known) and value.islower() and not known.issuperset(re.split(r"[|/,]", value))


def offences(command: str, arguments: list[str]) -> list[str]:
    """What of a command line in a page would be refused."""
    flags = [(part, value) for part, value in pairwise([*arguments, ""]) if part.startswith("--")]
    if command.startswith("scripts/") and command in SCRIPT_FLAGS:
        paths = [ROOT / part.split("::")[0] for part in arguments if part.startswith("tests/")]
        gone = [f"no file {path.relative_to(ROOT)}" for path in paths if not path.exists()]
        return gone + [f"{command} has no {flag}" for flag, _ in flags if flag not in SCRIPT_FLAGS[command]]
    command = {"scripts/demo": "benchmarks.demo", "scripts/lora": "familial.train.lora"}.get(command, command)
    if command not in commands():
        return [f"{command} is no command"]
    options, found = options_of(command), []
    for flag, value in flags:
        if flag not in options:
            found.append(f"{command} has no {flag}")
        elif options[flag].help == argparse.SUPPRESS:
            found.append(f"{command} {flag} is an old name")
        elif wrong_value(options[flag], value):
            found.append(f"{command} {flag} takes no {value}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_page_would_run(page: Path) -> None:
    found = []
    for command, arguments in commands_in(page.read_text()):
        ours = command.split(".")[0] in PACKAGES or command.startswith("scripts/")
        if ours and not command.isupper() and "NAME" not in command:
            found += [f"{' '.join([command, *arguments])}: {what}" for what in offences(command, arguments)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "python -m familial.trian --out DIR",
        "python -m familial.train --outt DIR",
        "python -m familial.evaluate --noise perhaps",
        "scripts/setup --everything",
        "scripts/test tests/unit/gone.py",
    ],
)
def test_a_wrong_command_in_a_page_is_found(line: str) -> None:
    ((command, arguments),) = commands_in(f"```\n{line}   # a comment\n```")
    assert offences(command, arguments)


def test_commands_are_read_as_a_shell_would() -> None:
    block = "python -m c [--y|--z] \\\n    --out DIR   minutes\nscripts/test -k w | tail\n"
    text = f"`python -m a.b --x 1` and\n```sh\n{block}```\n"
    assert [*commands_in(text)] == [
        ("c", ["--y|--z", "--out", "DIR"]),
        ("scripts/test", ["-k", "w"]),
        ("a.b", ["--x", "1"]),
    ]
