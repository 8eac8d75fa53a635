"""The arithmetic behind the estimate for the boards, and what the benchmark refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.device import full_geometry, geometry_estimate
from familial.model import resources
from familial.model.config import FamilyConfig, VisionSpec, nano
from tests.support.qwen_factory import WORDS

REAL = VisionSpec(depth=27, hidden=1152, mlp=4304, heads=16, out=4096)


def real_config(side: int, frames: int) -> FamilyConfig:
    window = replace(nano(WORDS).window, height=side, width=side, new_frames=frames, context_frames=0)
    return replace(nano(WORDS), window=window, tower="qwen", vision=REAL)


@pytest.mark.parametrize(("side", "gigaflops"), [(256, 240), (448, 787)])
def test_operations_of_the_tower_are_those_counted_for_it(side: int, gigaflops: float) -> None:
    """With three DeepStack mergers, for one still picture: within 5 % of what was counted on the model itself."""
    patches = (side // 16) ** 2
    found = geometry_estimate.tower_flops(REAL, patches, patches, deepstack=3) / 1e9
    assert found == pytest.approx(gigaflops, rel=0.05)


def test_an_estimate_grows_with_the_window_and_falls_with_the_board() -> None:
    small = geometry_estimate.estimate(real_config(128, 16), 400_000_000)
    large = geometry_estimate.estimate(real_config(256, 16), 400_000_000)
    assert set(small) == set(geometry_estimate.BOARDS)
    for board in small:
        assert 3.9 < large[board]["encode_ms"] / small[board]["encode_ms"] < 4.5
        assert small[board]["decide_ms"] == large[board]["decide_ms"]
    assert small["AGX Thor"]["encode_ms"] < small["AGX Orin 64GB"]["encode_ms"] < small["Orin NX 16GB"]["encode_ms"]


def test_too_little_memory_is_reported_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 10**9)
    assert full_geometry.COMMAND.main([]) != 0
    assert "this benchmark needs 12.0 GB of memory, 1.0 GB are available" in capsys.readouterr().err
