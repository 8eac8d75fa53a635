"""Several processes train one LoRA: torch's FSDP2 over gloo, started by torchrun, as on several GPUs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from familial.model import checkpoint
from familial.model.lora import Lora
from tests.support.qwen_factory import adopted_family
from tests.support.services import ROOT


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adopted_family(tmp_path_factory.mktemp("adopted"))


def _run(processes: int, module: str, *arguments: object) -> str:
    """Run a module in so many processes; return what they said."""
    launch = ["-m", module]
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *launch]
    done = subprocess.run(
        [sys.executable, *launch, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_processes_make_the_steps_of_one_and_hold_half_of_the_blocks(adopted: Path, tmp_path: Path) -> None:
    """Losses of three steps, and every trained weight after them, as one process has on both batches."""
    found: list[dict[str, Any]] = []
    for count in (1, 2):
        out = tmp_path / f"{count}.json"
        _run(count, "tests.support.lora_processes", adopted, out)
        found.append(json.loads(out.read_text()))
    alone, both = found
    assert alone["losses"][2] < alone["losses"][0]
    assert both["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert both["sums"] == pytest.approx(alone["sums"], rel=1e-3)
    assert both["held"] == alone["held"] / 2


def test_the_command_trains_in_two_processes(adopted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--rendered", "10", "--steps", "3", "--rank", "4", "--threads", "1", "--processes", "1"]
    said = _run(2, "familial.train.lora", "--base", adopted, "--out", out, *options)
    assert "in 2 processes" in said and said.count("merged in") == 1
    assert Lora.load(out / "lora").base_hash == checkpoint.checkpoint_hash(adopted)
    checkpoint.load(out)
