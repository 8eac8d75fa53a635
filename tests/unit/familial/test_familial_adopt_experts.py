"""A base of mixtures of experts: tower, projector and attention are adopted, the experts are the cloud's alone. And
every checkpoint is what transformers' AutoConfig and AutoModel load."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

from familial.model import adopt, causal_lm, checkpoint, lora
from familial.model.config import FamilyConfig
from familial.model.family import Family
from familial.model.members import CloudMember, EdgeMember
from familial.model.steps import recomputed, set_step
from familial.model.weights import without_weights
from tests.support.qwen_factory import a_base, adopted_family, experts_config, qwen_family_config
from wire.errors import CheckpointError

PRESENT = torch.ones(3, 8, dtype=torch.bool)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """(checkpoint, transformers' model of its base)."""
    folder = tmp_path_factory.mktemp("experts")
    family = adopted_family(folder, experts_config(), exit_at=1)
    model = Qwen3VLMoeForConditionalGeneration.from_pretrained(
        folder / "base", dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    return family, model.eval()


@torch.no_grad()
def test_the_cloud_computes_the_bases_experts(made: tuple[Path, Any]) -> None:
    """Hidden states against transformers' own decoder: difference 0.0."""
    family = checkpoint.load(made[0])
    assert (family.config.experts, family.config.experts_chosen, family.config.expert_mlp) == (6, 2, 40)
    hidden, present = torch.randn(1, 20, 48), torch.ones(1, 8, dtype=torch.bool)
    expected = made[1].model.language_model(inputs_embeds=hidden, use_cache=False).last_hidden_state
    assert float((family.norm(family.backbone(hidden, present)) - expected).abs().max()) == 0.0


@torch.no_grad()
def test_the_edge_holds_a_dense_block_and_no_expert(made: tuple[Path, Any]) -> None:
    """Its attention is that of the base's first block; its feed-forward part adds nothing yet."""
    whole, edge = checkpoint.load(made[0]), checkpoint.load(made[0], edge_only=True)
    assert not [name for name, _ in EdgeMember(edge).named_parameters() if "experts" in name]
    assert [name for name, _ in CloudMember(whole).named_parameters() if "experts" in name]
    assert edge.branch is not None
    block: Any = edge.branch.layers[0]
    first = made[1].model.language_model.layers[0]
    assert torch.equal(block.self_attn.q_proj.weight, first.self_attn.q_proj.weight)
    assert not bool(block.mlp.down_proj.weight.any()) and bool(block.mlp.up_proj.weight.any())
    z = torch.randint(-200, 200, (3, 8, 4, 16), dtype=torch.int32)
    assert torch.equal(edge.edge_logits(z, PRESENT), whole.edge_logits(z, PRESENT))


def test_experts_in_the_published_order_are_the_same(made: tuple[Path, Any], tmp_path: Path) -> None:
    """The published folders hold (in, out), transformers writes (out, in)."""
    a_base(tmp_path / "base", config=experts_config())
    file = tmp_path / "base" / "model.safetensors"
    state = {
        name: value.transpose(1, 2).contiguous() if ".experts." in name else value
        for name, value in load_file(file).items()
    }
    save_file(state, file, metadata={"format": "pt"})
    (tmp_path / "like").mkdir()
    qwen_family_config().save(tmp_path / "like" / "config.json")
    command = ["--base", str(tmp_path / "base"), "--like", str(tmp_path / "like"), "--exit-block", "branch"]
    assert adopt.main([*command, "--out", str(tmp_path / "out")]) == 0
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", made[0]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if "experts" in name)


def test_experts_are_held_and_the_attention_gets_a_lora(made: tuple[Path, Any]) -> None:
    config = checkpoint.opened(made[0])[0]
    family = lora.opened_with_lora(made[0], config, 4)
    trained = {name for name, value in family.named_parameters() if value.requires_grad}
    assert not [name for name in trained if "experts" in name]
    assert "backbone.layers.2.self_attn.q_proj.lora_B.default.weight" in trained
    assert dict(family.named_parameters())["backbone.layers.0.mlp.experts.down_proj"].dtype == torch.bfloat16
    set_step(family, recomputed("cpu", True))
    z = torch.randint(-200, 200, (3, 8, 4, 16))
    with torch.no_grad():
        torch.testing.assert_close(
            family.cloud_logits(z, PRESENT), checkpoint.load(made[0]).cloud_logits(z, PRESENT), atol=5e-3, rtol=0.0
        )


def test_what_no_edge_or_server_could_hold_is_refused(
    made: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, like = made[0].parent / "base", made[0].parent / "like"
    command = ["--base", str(base), "--like", str(like), "--out", str(tmp_path / "out")]
    assert adopt.main(command) == 1
    assert "mixtures of experts, which no edge holds; give --exit-block branch" in capsys.readouterr().err
    assert adopt.main([*command, "--exit-block", "branch", "--exit-at", "2"]) == 1
    assert "exit_block must be 'branch', exit_at 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="a Qwen3 folder has none"):
        causal_lm.write_causal_lm(made[0], tmp_path / "served")
    with pytest.raises(CheckpointError, match="no mixture"):
        replace(FamilyConfig.load(made[0] / "config.json"), experts_chosen=7)


def test_the_released_mixture_can_be_adopted(tmp_path: Path) -> None:
    """30B-A3B: names and shapes on the meta device; only DeepStack's mergers are left over."""
    text = {
        "hidden_size": 2048,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "intermediate_size": 6144,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "vocab_size": 151936,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 5e6,
        "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True},
    }
    vision = {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "patch_size": 16,
        "out_hidden_size": 2048,
        "num_position_embeddings": 2304,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "in_channels": 3,
        "hidden_act": "gelu_pytorch_tanh",
        "deepstack_visual_indexes": [8, 16, 24],
    }
    found = {"model_type": "qwen3_vl_moe", "torch_dtype": "bfloat16", "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps({**found, "text_config": text, "vision_config": vision}))
    with torch.device("meta"):
        model = Qwen3VLMoeForConditionalGeneration(
            Qwen3VLMoeConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
        )
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    weights: Any = SimpleNamespace(shapes=shapes, formats=dict.fromkeys(shapes, "BF16"))
    config = adopt.family_config(tmp_path, qwen_family_config(), 1, "branch", None)
    with without_weights():
        family = Family(config)
    plan = checkpoint.plan_of(family)
    source = {name: adopt._source(name, config) for name in plan if not adopt._is_fresh(name, config)}
    adopt._check_tensors(tmp_path, weights, {name: plan[name][0] for name in source}, source, config)
    left = {name for name in shapes if name not in source.values()}
    assert left and all(name.startswith("model.visual.deepstack_merger_list.") for name in left)
    edge = sum(value.numel() for value in EdgeMember(family).parameters())
    assert edge < 0.6e9 < 29e9 < sum(value.numel() for value in CloudMember(family).parameters())


@torch.no_grad()
def test_transformers_loads_a_checkpoint_by_its_auto_map(made: tuple[Path, Any], tmp_path: Path) -> None:
    """As somebody would who knows transformers and no module of ours."""
    config = AutoConfig.from_pretrained(made[0], trust_remote_code=True)
    assert type(config).__name__ == "VeilsightConfig" and config.layers == 3
    model = AutoModel.from_pretrained(made[0], trust_remote_code=True)
    z = torch.randint(-200, 200, (3, 8, 4, 16), dtype=torch.int32)
    assert torch.equal(model(z, PRESENT), checkpoint.load(made[0]).cloud_logits(z, PRESENT))
    assert not model.training


def test_the_card_of_an_adopted_base_is_one_of_the_hub(made: tuple[Path, Any]) -> None:
    """Front matter that huggingface_hub reads and writes again unchanged, with every key that the hub requires."""
    card = ModelCard.load(made[0] / "README.md")
    data = vars(card.data)
    assert data["pipeline_tag"] == "video-classification" and data["library_name"] == "veilsight"
    assert data["license"] == "other" and data["license_name"] and data["license_link"]
    assert vars(ModelCard(str(card)).data) == data
