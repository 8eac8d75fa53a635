"""A foreign checkpoint through the whole project.

folder saved by transformers -> adopt -> train, or LoRA -> noise -> engine -> edge process -> MQTT -> bridge
    -> verdicts and their sentences, which speculative decoding says in the same words; or in the base's
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.broker import EmbeddedBroker
from benchmarks.harness import Rig
from benchmarks.listener import Heard, Listener
from calibration import noise
from export import build_engine
from familial.model import adopt, checkpoint
from familial.model.base_words import open_words, words_hash
from familial.model.config import FamilyConfig
from familial.model.decoders.free_text import FreeText
from familial.model.decoders.speculative import ExitDraft, speculative_words
from familial.model.decoders.word_decoder import WordDecoder, family_prompt
from familial.train import __main__ as train
from familial.train.lora import __main__ as train_lora
from tests.support.loop_factory import a_clip
from tests.support.qwen_factory import a_base, a_tokenizer, qwen_family_config
from tests.support.services import PATIENCE_S
from wire.artifact.manifest import EngineManifest

LORA = (train_lora.main, ["--rank", "4", "--stage-1", "0"])
TRAININGS = {"whole": (train.main, ["--stage-1", "0.5"]), "lora": LORA, "lora, free text": LORA}


@pytest.mark.slow
@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's exporter warns about itself
def test_a_foreign_checkpoint_works_in_the_whole_loop(training: str, tmp_path: Path) -> None:
    base, adopted, trained, engine = (tmp_path / name for name in ("base", "adopted", "trained", "engine"))
    a_base(base, shard="100KB")
    a_tokenizer("<|im_start|>", "<|im_end|>").save(str(base / "tokenizer.json"))
    free_text = ["--free-text"] if training.endswith("free text") else []
    (tmp_path / "like").mkdir()
    qwen_family_config().save(tmp_path / "like" / "config.json")
    command = ["--base", str(base), "--out", str(adopted), "--like", str(tmp_path / "like"), "--exit-block", "branch"]
    assert adopt.main([*command, *free_text]) == 0
    run, more = TRAININGS[training]
    command = ["--base", str(adopted), "--out", str(trained), "--rendered", "10", "--steps", "4"]
    assert run([*command, "--threads", "1", "--processes", "1", *more]) == 0
    config = json.loads((trained / "config.json").read_text())
    assert (config["tower"], config["exit_block"], config["storage"]) == ("qwen", "branch", "bfloat16")
    assert noise.main(["--checkpoint", str(trained), "--target", "balanced"]) == 0
    assert build_engine.main(["--checkpoint", str(trained), "--out", str(engine)]) == 0
    assert EngineManifest.load(engine).window.width == 64
    with EmbeddedBroker(tmp_path) as broker:
        rig = Rig(tmp_path, broker, engine, trained)
        named = words_hash(trained) if free_text else ""
        with Listener(broker) as listener, rig.bridge(exit_when_offline=True, free_text=named) as bridge:
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
    said = (_free_text if free_text else _sentences_by_drafts)(trained, heard)
    told = [verdict.sentence.partition("; perhaps: ") for _, verdict in heard.of("cloud")][: len(said)]
    assert said and said == [words for _, _, words in told] and all(before for before, _, _ in told)


def _sentences_by_drafts(folder: Path, heard: Heard) -> list[str]:
    """What the edge's exit drafts and the whole member verifies, of the releases that were heard over MQTT."""
    family, said = checkpoint.load(folder), list[str]()
    decoder = WordDecoder.of_family(family)
    for z, present in _events(family.config, heard):
        prompt, first = family_prompt(family, z, present)
        count = family.config.caption_words
        spoken = speculative_words(decoder, prompt, int(first[0]), count, ExitDraft(sure=0.0))
        assert spoken.drafted > 0
        said.append(family.vocabulary.decode(spoken.words))
    return said


def _free_text(folder: Path, heard: Heard) -> list[str]:
    """What the base says in its own words of the releases that were heard over MQTT."""
    family = checkpoint.load(folder)
    speaker = FreeText(family, open_words(folder, family.config))
    return [answer for event in _events(family.config, heard) for answer in speaker.answers(*event)]


def _events(config: FamilyConfig, heard: Heard) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """z and presence of the events of the cloud's verdicts, up to one that was not heard whole."""
    slots = {message.slot: message.z for _, message in heard.features}
    for _, verdict in heard.of("cloud"):
        wanted = range(verdict.last_slot - config.event_releases + 1, verdict.last_slot + 1)
        if not all(verdict.present) or not all(slot in slots for slot in wanted):
            return
        z = torch.from_numpy(np.stack([slots[slot] for slot in wanted])).reshape(1, -1, config.tokens, config.width)
        yield z, torch.ones(1, config.event_releases, dtype=torch.bool)
