"""The runner that every benchmark uses, the page that benchmarks write, and what each benchmark must have."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.__main__ import commands
from benchmarks.broker import ROOT, child_env
from benchmarks.page import MOST_CHARACTERS, MOST_WORDS, PAGE, Run, with_block
from benchmarks.runner import Benchmark, Picture, Report
from wire.errors import ConfigError, DataError

COMMANDS = commands()
BENCHMARKS = sorted(name for name, command in COMMANDS.items() if isinstance(command, Benchmark))
TEXT = "`python -m benchmarks.x`: what x measures.\n\nMore."
ROWS = [["head", "n"], ["row", "10"]]


def no_options(parser: argparse.ArgumentParser) -> None:
    pass


def benchmark(report: Report) -> Benchmark:
    return Benchmark("x", TEXT, "y", no_options, lambda args: report)


def test_a_report_is_a_table_and_a_last_line_of_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = benchmark(Report(0.5, {"a": 1}, ROWS, ["a note"], ["b is 2; 1 at most"]))
    assert made.main(["--json", str(tmp_path / "new" / "x.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["head   n", "--------", "row   10", "a note"]
    assert lines[4:6] == ["WRONG: b is 2; 1 at most", "ratio 0.5: ours over y"]
    document = json.loads(lines[-1])
    assert {"name", "ratio", "of", "figures", "machine"} == document.keys()
    assert (document["name"], document["ratio"], document["of"], document["figures"]["a"]) == ("x", 0.5, "y", 1)
    assert document["figures"]["wrong"] == ["b is 2; 1 at most"]
    assert json.loads((tmp_path / "new" / "x.json").read_text()) == document


def test_what_holds_is_told_and_what_asks_nothing_tells_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, words in (([], ["everything that must hold, held"]), (None, [])):
        assert benchmark(Report(None, {"a": 1}, ROWS, wrong=wrong)).main([]) == 0
        *lines, last = capsys.readouterr().out.splitlines()
        assert lines[3:] == words and json.loads(last)["figures"].get("wrong") == wrong


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def measure(args: argparse.Namespace) -> Report:
        raise ConfigError("--n is 0; give at least 1")

    assert Benchmark("x", TEXT, "y", no_options, measure).main([]) == 2
    assert capsys.readouterr().err == "error: --n is 0; give at least 1\n"
    assert benchmark(Report(0.5, {"a": object()}, ROWS)).main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: benchmark x: its figures are no JSON") and error.count("\n") == 1


def test_a_picture_is_written_where_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Picture("x", TEXT, no_options, lambda args: "<svg/>")
    for flag in ("--out", "--svg"):
        out = tmp_path / flag / "x.svg"
        assert made.main([flag, str(out)]) == 0
        assert out.read_text() == "<svg/>\n" and capsys.readouterr().out == f"{out}\n"


def test_a_recorded_run_replaces_its_block_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "page.md"
    file.write_text(
        "# Page\n<!-- benchmark:x -->\nold\n<!-- /benchmark -->\n<!-- benchmark:z -->\nz\n<!-- /benchmark -->\n"
    )
    monkeypatch.setattr("benchmarks.runner.record", lambda run: page.record(run, file))
    made = benchmark(Report(0.5, {}, ROWS, ["a note " * 30]))
    for _ in range(2):
        assert made.main(["--record"]) == 0
    text = file.read_text()
    assert text.startswith("# Page\n<!-- benchmark:x -->\n") and "old" not in text
    assert text.endswith("<!-- /benchmark -->\n<!-- benchmark:z -->\nz\n<!-- /benchmark -->\n")
    for line in ("`python -m benchmarks.x`", "head   n", "row   10", "- Ratio 0.5: ours over y."):
        assert line in text.splitlines()
    assert max(map(len, text.splitlines())) <= MOST_CHARACTERS


def test_a_recorded_command_shows_no_path_of_the_machine() -> None:
    from benchmarks.runner import _command

    shown = _command("x", ["--data", "/home/me/clips/manifest.csv", "--record", "--n", "3"])
    assert shown == "python -m benchmarks.x --data manifest.csv --n 3"


def test_a_wide_table_is_turned() -> None:
    wide = Run(
        "x", "2026-01-01", "a machine", "x", [[f"column {i}" for i in range(14)], [f"{i}" for i in range(14)]], []
    )
    lines = with_block("<!-- benchmark:x --><!-- /benchmark -->", wide).splitlines()
    assert "column 13  13" in lines and max(map(len, lines)) <= MOST_CHARACTERS


def test_a_page_without_the_block_is_refused() -> None:
    with pytest.raises(DataError, match=r"has 0 blocks '<!-- benchmark:x -->'"):
        with_block("# Page\n", Run("x", "", "", "", ROWS, []))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_what_the_runner_needs(name: str) -> None:
    command = COMMANDS[name]
    module = sys.modules[command.options.__module__].__name__
    assert module.rpartition(".")[2] == name, f"{module}: COMMAND is named {name!r}; give it the name of its module"
    head = command.text.split("\n")[0]
    cure = f"begin its docstring with: `python -m benchmarks.{name}`: and what it measures, in one line"
    assert head.startswith(f"`python -m benchmarks.{name}") and "`: " in head, f"{module}: {cure}"
    assert command.parser().prog == f"python -m benchmarks.{name}"
    if isinstance(command, Benchmark):
        cure = "name the peer or baseline that `ratio` is over, third argument of Benchmark"
        assert command.peer.strip(), f"{module}: {cure}"


def test_every_module_that_runs_is_a_command_of_the_runner() -> None:
    """Tools that are no benchmark are named here; former names of a command are none of their own."""
    tools = {"__main__", "broker", "cameras_feeder", "demo", "geometry_steps", "hostile_gate", "scene_eyes"}
    texts = {path.stem: path.read_text() for path in (ROOT / "benchmarks").rglob("*.py")}
    run = {name for name, text in texts.items() if 'if __name__ == "__main__":' in text}
    runnable = {name for name in run if "former_command(" not in texts[name]} - tools
    missing = sorted(runnable - COMMANDS.keys())
    cure = "define COMMAND = Benchmark(NAME, __doc__, peer, options, measure), or Picture, from benchmarks.runner"
    assert not missing, f"{', '.join(missing)}: {cure}"
    assert runnable == COMMANDS.keys()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_has_a_block_in_the_page(name: str) -> None:
    cure = f"add a section with <!-- benchmark:{name} --> and <!-- /benchmark -->, then run it with --record"
    assert PAGE.read_text().count(f"<!-- benchmark:{name} -->") == 1, f"docs/benchmarks.md: {cure}"


def test_the_page_is_short() -> None:
    text = PAGE.read_text()
    assert len(text.split()) <= MOST_WORDS
    assert [line for line in text.splitlines() if len(line) > MOST_CHARACTERS] == []


def test_the_package_lists_its_commands() -> None:
    command = [sys.executable, "-m", "benchmarks"]
    done = subprocess.run(command, cwd=ROOT, env=child_env(), capture_output=True, text=True, timeout=60, check=True)
    for name, known in COMMANDS.items():
        assert f"python -m benchmarks.{name} " in done.stdout and known.summary in done.stdout
