"""The geometry of a LoRA step: figures for 36 blocks only where they follow, and frozen blocks that stay in files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.model import lora_geometry
from benchmarks.model.lora_geometry import _at_36, _report, _Size, _step
from benchmarks.model.streamed_blocks import MemoryPeak, StreamedBlocks
from familial.model.config import VisionSpec
from wire.errors import CheckpointError, ConfigError

SHAPES = {f"backbone.layers.{block}.{part}.weight": (64, 32) for block in range(3) for part in ("a", "b")}


def measured(blocks: int, **changes: float) -> Mapping[str, Any]:
    line = {"frozen_bytes": 1e9, "trained": 1e6, "asked_bytes": 2e9, "peak_bytes": 2e9, "resident_bytes": 1e9}
    return {"blocks": blocks, **{key: value * (10 + blocks) for key, value in line.items()}, "step_s": 1.0, **changes}


def test_what_grows_with_the_blocks_is_a_line() -> None:
    found = [measured(2), measured(4), measured(8)]
    assert _at_36(found, "peak_bytes") == pytest.approx(2e9 * 46)
    assert _at_36([*found, measured(36, peak_bytes=7.0)], "peak_bytes") == 7.0  # measured, so no line


def test_a_figure_that_does_not_follow_is_none() -> None:
    """Seconds of small blocks are noise, and fell with their number: a line would end below zero."""
    falling = [measured(1, step_s=3.0), measured(2, step_s=1.0)]
    assert _at_36(falling, "step_s") is None
    assert _at_36([measured(2)], "frozen_bytes") is None  # one point is no line
    assert _at_36(falling, "flop") is None  # not measured


def test_the_report_says_what_it_does_not_know() -> None:
    args = lora_geometry.COMMAND.parser().parse_args([])
    report = _report([dict(measured(1, step_s=3.0)), dict(measured(2, step_s=1.0))], args)
    assert report.rows[-1][0] == "36 estimated" and report.rows[-1][-2:] == ["-", "-"]
    assert any("no figure for 36 blocks: step_s, flop" in note for note in report.notes)
    json.dumps(report.figures, allow_nan=False)
    single = _report([dict(measured(2))], args)
    assert single.ratio is None and not any("estimated" in cells[0] for cells in single.rows)
    fits = {name: own["fits"] for name, own in _report([dict(measured(36))], args).figures["gpus_estimated"].items()}
    assert set(fits.values()) == {False}  # 92 GB


def test_blocks_come_back_from_their_files_and_differ(tmp_path: Path) -> None:
    streamed = StreamedBlocks(SHAPES, tmp_path / "new")
    assert streamed.bytes == 6 * 64 * 32 * 2 == sum(path.stat().st_size for path in tmp_path.glob("new/*"))
    before = {name: value.clone() for name, value in streamed.held.items()}
    layers = [nn.Linear(2, 2) for _ in range(3)]
    streamed.watch(layers)
    for layer in (*layers, *reversed(layers)):  # as forward and backward go
        layer(torch.zeros(1, 2))
        assert all(torch.equal(value, before[name]) for name, value in streamed.held.items())
    first = [before[f"backbone.layers.{block}.a.weight"] for block in range(3)]
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])
    assert float(first[0].float().std()) == pytest.approx(0.02, rel=0.1)


def test_only_the_block_that_is_computed_keeps_its_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streamed, gone = StreamedBlocks(SHAPES, tmp_path), list[int]()

    class Map:
        def __init__(self, block: int) -> None:
            self.block = block

        def madvise(self, _: int) -> None:
            gone.append(self.block)

    monkeypatch.setattr(streamed, "_maps", {block: Map(block) for block in range(3)})
    layers = [nn.Identity() for _ in range(3)]
    streamed.watch(layers)
    for block in (0, 0, 1, 2, 2, 1, 0):
        layers[block](torch.zeros(1))
    assert gone == [0, 1, 2, 1]


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((ConfigError, CheckpointError)):
        StreamedBlocks(SHAPES, tmp_path / "file" / "x")


def test_a_peak_is_seen() -> None:
    with MemoryPeak() as memory:
        held = torch.ones(50_000_000)  # 200 MB
        torch.ones(4_000_000).sort()  # longer than the time between two looks
        del held
    assert memory.resident >= memory.own > 200_000_000


def test_a_streamed_step_is_the_step_of_blocks_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of both, from the same batch and seed; their frozen values differ, their sizes and bounds do not.

    With a narrow tower: processors without bfloat16 take minutes for the real one.
    """
    real = lora_geometry._config
    narrow = VisionSpec(1, 64, 128, 4, 128)
    monkeypatch.setattr(lora_geometry, "_config", lambda size: dataclasses.replace(real(size), vision=narrow))
    held, streamed = (_step(_Size(2, 128, 1, 4, 1, 1, folder)) for folder in (None, tmp_path))
    assert streamed["mapped_bytes"] == sum(path.stat().st_size for path in tmp_path.iterdir()) > 0
    assert held["mapped_bytes"] == 0 and "flop" in held and "flop" not in streamed
    for key in ("frozen_bytes", "trained"):
        assert held[key] == streamed[key]
    assert all(0.0 < each["loss"] < 100.0 and each["peak_bytes"] > 0 for each in (held, streamed))
