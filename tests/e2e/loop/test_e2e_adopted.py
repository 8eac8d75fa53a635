"""A foreign checkpoint through the whole project.

folder saved by transformers -> adopt -> train -> noise -> engine -> edge process -> MQTT -> bridge -> verdicts
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.broker import EmbeddedBroker
from benchmarks.harness import Rig
from benchmarks.listener import Listener
from calibration import noise
from export import build_engine
from familial.model import adopt
from familial.train import __main__ as train
from tests.support.loop_factory import a_clip
from tests.support.qwen_factory import a_base, qwen_family_config
from tests.support.services import PATIENCE_S
from wire.artifact.manifest import EngineManifest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's exporter warns about itself
def test_a_foreign_checkpoint_works_in_the_whole_loop(tmp_path: Path) -> None:
    base, adopted, trained, engine = (tmp_path / name for name in ("base", "adopted", "trained", "engine"))
    a_base(base, shard="100KB")
    (tmp_path / "like").mkdir()
    qwen_family_config().save(tmp_path / "like" / "config.json")
    command = ["--base", str(base), "--out", str(adopted), "--like", str(tmp_path / "like"), "--exit-block", "branch"]
    assert adopt.main(command) == 0
    command = ["--base", str(adopted), "--out", str(trained), "--rendered", "10", "--steps", "4", "--stage-1", "0.5"]
    assert train.main([*command, "--threads", "1", "--processes", "1"]) == 0
    config = json.loads((trained / "config.json").read_text())
    assert (config["tower"], config["exit_block"], config["storage"]) == ("qwen", "branch", "bfloat16")
    assert noise.main(["--checkpoint", str(trained), "--target", "balanced"]) == 0
    assert build_engine.main(["--checkpoint", str(trained), "--out", str(engine)]) == 0
    assert EngineManifest.load(engine).window.width == 64
    with EmbeddedBroker(tmp_path) as broker:
        rig = Rig(tmp_path, broker, engine, trained)
        with Listener(broker) as listener, rig.bridge(exit_when_offline=True) as bridge:
            bridge.wait_for_line("ready", PATIENCE_S)
            with rig.edge(str(a_clip(tmp_path / "clip.mp4", 4.5))) as edge:
                assert edge.wait(PATIENCE_S) == 0, edge.output()
            assert bridge.wait(PATIENCE_S) == 0, bridge.output()
            heard = rig.hear(listener.records())
    assert len(heard.features) >= 8 and not heard.refused
    assert heard.of("edge") and heard.of("cloud")
    for member in ("edge", "cloud"):
        for _, verdict in heard.of(member):
            assert set(verdict.probabilities) == {"normal", "fall", "fight"}
    assert not edge.error_lines() + bridge.error_lines()
