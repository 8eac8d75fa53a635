"""The quantised members in their short form: every method at every number of bits, beside the member in floats."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.model import quantized
from familial.model.checkpoint import save
from familial.model.family import Family
from tests.support.family_factory import small_config


def variants(out: str, part: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(out.splitlines()[-1])["figures"][part]["variants"]
    return found


def test_a_decoder_says_less_like_itself_the_fewer_bits_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--part", "decoder", "--size", "tiny", "--base-steps", "60", "--bits", "8", "4", "2", "--group", "8"]
    assert quantized.COMMAND.main(options) == 0
    made = {name: own["kl_words"] for name, own in variants(capsys.readouterr().out, "decoder").items()}
    assert made.keys() == {"floats", *(f"int{b} {m}" for b in (8, 4, 2) for m in ("nearest", "gptq", "vlmq"))}
    assert made["floats"] == 0.0
    for method in ("nearest", "gptq", "vlmq"):
        assert made[f"int8 {method}"] < made[f"int4 {method}"] < made[f"int2 {method}"]
    assert max(made["int2 gptq"], made["int2 vlmq"]) < made["int2 nearest"]


def test_a_family_is_judged_as_its_folder_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    save(Family(small_config()).eval(), tmp_path)
    options = ["--part", "nano", "--checkpoint", str(tmp_path), "--rendered", "4", "--bits", "4", "--group", "32"]
    assert quantized.COMMAND.main(options) == 0
    found = variants(capsys.readouterr().out, "nano")
    floats, least = found["floats"], found["int4 nearest"]
    assert least["mb"] < floats["mb"] and least["memory_mb"] == floats["memory_mb"]
    assert floats["kl_verdict"] == 0.0 < least["kl_verdict"] < 0.1
