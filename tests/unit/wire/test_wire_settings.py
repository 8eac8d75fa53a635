"""Options and keys under their former names: they work for one version, and say so."""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from wire.arguments import at_least_one, former_name
from wire.errors import ConfigError
from wire.settings import FilePath, faults, keys_of, parse_toml, refuse


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    former_name(parser, "--rate", parser.add_argument("--lr", type=float, default=0.5))
    former_name(parser, "--names", parser.add_argument("--labels", nargs="+", default=[]))
    former_name(parser, "--quick", parser.add_argument("--fast", action="store_true"))
    former_name(parser, "--kind", parser.add_argument("--member", choices=("edge", "cloud"), default="edge"))
    return parser


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "", "many", "\u00b2"])
def test_a_count_below_one_is_refused_by_the_name_of_its_option(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=at_least_one)
    assert parser.parse_args(["--samples", "12"]).samples == 12
    with pytest.raises(SystemExit):
        parser.parse_args([f"--samples={text}"])
    assert f"--samples: {text!r} is no count; give a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--rate", "0.1"], ["--lr", "0.1"]),
        (["--names", "a", "b"], ["--labels", "a", "b"]),
        (["--quick"], ["--fast"]),
        (["--kind", "cloud"], ["--member", "cloud"]),
        ([], []),
    ],
)
def test_a_former_option_means_the_same(old: list[str], new: list[str]) -> None:
    assert make_parser().parse_args(old) == make_parser().parse_args(new)


@pytest.mark.parametrize("bad", [["--rate", "fast"], ["--kind", "middle"]])
def test_a_former_option_is_checked_as_the_option_itself(bad: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser().parse_args(bad)
    assert bad[0] in capsys.readouterr().err


def test_the_help_does_not_list_former_options() -> None:
    text = make_parser().format_help()
    assert "--lr" in text and "--rate" not in text and "--quick" not in text


@dataclass
class Engine:
    """A section with one key of a new name."""

    signer: FilePath = ""
    threads: int = 1


SECTIONS = {"engine": keys_of(Engine)}
RENAMED = {"engine": {"publisher": "signer"}, "privacy": {"attention": "adaptive_level"}}


def read(folder: Path, text: str) -> dict[str, object]:
    (folder / "edge.toml").write_text(text)
    document = parse_toml(folder / "edge.toml", SECTIONS, "see the docs", RENAMED)
    refuse("edge.toml", faults(document, SECTIONS))
    return document


def test_a_former_key_works_as_the_new_one_and_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = read(tmp_path, '[engine]\npublisher = "key.pub"\nthreads = 2\n')
    assert "[engine] publisher is now signer" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path, '[engine]\nsigner = "key.pub"\nthreads = 2\n') == old
    assert not caplog.text
    assert old == {"engine": {"signer": str(tmp_path / "key.pub"), "threads": 2}}


def test_a_former_key_beside_the_new_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[engine\] publisher is unknown; "):
        read(tmp_path, '[engine]\npublisher = "a"\nsigner = "b"\n')


def test_a_value_under_a_former_key_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[engine\] signer is 3; expected str"):
        read(tmp_path, "[engine]\npublisher = 3\n")


@pytest.mark.parametrize("text", ["engine = 3\n", "[[engine]]\npublisher = 'a'\n"])
def test_a_section_that_is_no_table_is_left_to_be_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="engine"):
        read(tmp_path, text)
