"""The proof's command under its former name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.engine_factory import make_engine
from tests.support.services import ROOT


def test_the_former_name_runs_the_command_and_gives_the_new_name_on_stderr(tmp_path: Path) -> None:
    make_engine(tmp_path)
    command = [sys.executable, "-m", "export.verify_graph", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "proved  encode: " in done.stdout
    said = "python -m export.verify_graph is now python -m export.proof.verify_graph; the old name ends with the next"
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1
