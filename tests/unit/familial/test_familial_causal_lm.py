"""The folder for servers: transformers loads it as it is, and its next token is the family's."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from familial.model.causal_lm import main, prompt_tokens, served_name, write_causal_lm
from familial.model.checkpoint import checkpoint_hash, load, save
from familial.model.config import FamilyConfig, nano
from familial.model.family import Family
from familial.model.vocabulary import FIRST_LABEL
from wire.errors import CheckpointError

WORDS = ("<pad>", "<end>", "<normal>", "<fall>", "<fight>", "a", "falls", "person", "walks")
CONFIG = nano(WORDS)
CONFIGS = {
    "nano": CONFIG,
    "untied, shared keys, wide heads": dataclasses.replace(
        CONFIG, tied=False, kv_heads=2, head_dim=48, storage="float32"
    ),
    "one token a release, a branch": dataclasses.replace(CONFIG, adapter="plane", exit_block="branch"),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_its_next_token_is_the_familys(config: FamilyConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "served"
    save(Family(config), checkpoint)
    assert write_causal_lm(checkpoint, out) == served_name(checkpoint_hash(checkpoint))
    family, model = load(checkpoint), AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    z, present = torch.randint(-200, 200, (5, 8, 4, 16)), torch.ones(5, 8, dtype=torch.bool)
    with torch.inference_mode():
        tokens = family.adapter(z, present)
        logits = model(inputs_embeds=tokens).logits[:, -1, FIRST_LABEL : FIRST_LABEL + 3]
        assert torch.allclose(logits, family.cloud_logits(z, present), atol=1e-5)
        late = torch.arange(8) >= torch.tensor([[3]])
        short = model(inputs_embeds=family.adapter(z, late.expand(5, 8))[:, 3 * config.release_tokens :]).logits[:, -1]
        assert torch.allclose(short[:, 2:5], family.cloud_logits(z, late.expand(5, 8)), atol=1e-5)
    assert model.config.max_position_embeddings >= prompt_tokens(config) + config.caption_words
    assert type(AutoConfig.from_pretrained(out)).__name__ == "Qwen3Config"


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_edge_members_next_token_is_the_edges_exit(config: FamilyConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = Family(dataclasses.replace(config, exit_at=2, temperature=1.7, label_bias=(0.1, -0.2, 0.3)))
    with torch.no_grad():
        made.exit_head.bias.copy_(torch.tensor([0.5, -1.0, 2.0]))
    save(made, tmp_path / "checkpoint")
    write_causal_lm(tmp_path / "checkpoint", tmp_path / "served", "edge")
    family = load(tmp_path / "checkpoint")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "served", dtype=torch.float32).eval()
    said = json.loads((tmp_path / "served" / "verdict.json").read_text())
    z, present = torch.randint(-200, 200, (5, 8, 4, 16)), torch.ones(5, 8, dtype=torch.bool)
    with torch.inference_mode():
        logits = model(inputs_embeds=family.adapter(z, present)).logits[:, -1]
        labels = logits[:, said["first_label"] :][:, :3] + torch.tensor(said["bias"])
        found = labels / said["temperature"] + torch.tensor(said["label_bias"])
        assert torch.allclose(found, family.edge_logits(z, present), atol=1e-5)
    assert len(model.model.layers) == 2 and not bool(logits[:, 5:].any())


def test_a_word_is_a_token(tmp_path: Path) -> None:
    save(Family(CONFIG), tmp_path / "checkpoint")
    write_causal_lm(tmp_path / "checkpoint", tmp_path / "served")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "served")
    assert tokenizer("a person falls").input_ids == [WORDS.index(word) for word in ("a", "person", "falls")]
    assert tokenizer.convert_ids_to_tokens(range(len(WORDS))) == list(WORDS)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 0)


def test_the_command_says_how_to_serve_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(Family(CONFIG), tmp_path / "checkpoint")
    options = ["--checkpoint", str(tmp_path / "checkpoint"), "--out", str(tmp_path / "served")]
    assert main(options) == 0
    assert f"--served-model-name {served_name(checkpoint_hash(tmp_path / 'checkpoint'))}" in capsys.readouterr().out
    assert main(["--checkpoint", str(tmp_path / "none"), "--out", str(tmp_path / "served")]) == 1
    assert "familial.model.causal_lm: " in capsys.readouterr().err
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_causal_lm(tmp_path / "checkpoint", tmp_path / "file" / "x")
