"""Any Qwen3-VL folder becomes a checkpoint with its weights unchanged, or is refused before anything is written."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from familial.model import adopt, checkpoint, resources
from familial.model.config import FamilyConfig
from familial.model.family import Family
from familial.model.fresh import FRESH
from familial.model.members import CloudMember
from familial.model.weights import Weights, without_weights, write_weights
from tests.support.defaults import set_defaults
from tests.support.qwen_factory import WORDS, a_base, a_tokenizer, base_config, processor_pixels, qwen_family_config
from wire.artifact.checkpoint import INDEX, WEIGHTS, weight_files
from wire.errors import CheckpointError


@pytest.fixture(scope="module")
def like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("like")
    qwen_family_config().save(folder / "config.json")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """(folder, model): six shards, bf16."""
    folder = tmp_path_factory.mktemp("base")
    return folder, a_base(folder, shard="100KB")


@pytest.fixture
def base(made: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made[0], tmp_path / "base"))


def run(base: Path, out: Path, like: Path, *more: str) -> int:
    return adopt.main(["--base", str(base), "--out", str(out), "--like", str(like), *more])


@pytest.mark.parametrize("exit_block", ["shared", "branch"])
@torch.no_grad()
def test_an_adopted_family_has_the_bases_weights(
    made: tuple[Path, Any], tmp_path: Path, like: Path, exit_block: str
) -> None:
    """Tower against the base's tower, blocks and norm against the base's decoder: 0.0 in the blocks."""
    assert run(made[0], tmp_path / "out", like, "--exit-block", exit_block, "--exit-at", "2") == 0
    assert "pipeline_tag" in (tmp_path / "out" / "README.md").read_text()
    family, model = checkpoint.load(tmp_path / "out"), made[1]
    config = family.config
    assert (config.layers, config.kv_heads, config.head_dim, config.tied) == (3, 2, 16, False)
    frames = torch.randint(0, 256, (1, 8, 64, 64), dtype=torch.uint8)
    assert config.vision is not None
    theirs = model.model.visual(*processor_pixels(frames[0], config.vision)).pooler_output
    assert float((family.tower.tokens(frames)[0].flatten(0, 1) - theirs).abs().max()) <= 1e-4  # type: ignore[operator]  # torch: a module
    hidden, present = torch.randn(1, 20, 48), torch.ones(1, 8, dtype=torch.bool)
    language = model.model.language_model
    expected = language(inputs_embeds=hidden, use_cache=False).last_hidden_state
    assert float((family.norm(family.backbone(hidden, present)) - expected).abs().max()) == 0.0
    if exit_block == "branch":
        assert family.branch is not None
        pairs = zip(family.branch.layers.parameters(), language.layers[1].parameters(), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


@torch.no_grad()
def test_loading_the_edge_member_reads_only_its_weights_and_gives_the_same_logits(
    made: tuple[Path, Any], tmp_path: Path, like: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One-block load: difference 0.0 to the whole family's first block, and no weight of another block is touched."""
    run(made[0], tmp_path / "out", like)
    whole = checkpoint.load(tmp_path / "out")
    touched: list[str] = []
    read = Weights.read

    def spy(self: Weights, name: str) -> torch.Tensor:
        touched.append(name)
        return read(self, name)

    monkeypatch.setattr(Weights, "read", spy)
    edge = checkpoint.load(tmp_path / "out", edge_only=True)
    assert not [name for name in touched if name.startswith(("backbone.layers.1", "backbone.layers.2"))]
    z = torch.randint(-200, 200, (3, 8, 4, 16), dtype=torch.int32)
    present = torch.ones(3, 8, dtype=torch.bool)
    assert float((edge.exit_state(z, present) - whole.exit_state(z, present)).abs().max()) == 0.0
    assert float((edge.edge_logits(z, present) - whole.edge_logits(z, present)).abs().max()) == 0.0
    for forbidden in (lambda: CloudMember(edge), lambda: edge.cloud_logits(z, present)):
        with pytest.raises(CheckpointError, match="load the checkpoint whole"):
            forbidden()


def test_the_first_block_alone_loads_into_transformers_without_a_missing_key(made: tuple[Path, Any]) -> None:
    """The edge's model by transformers' own loader: config of one block, nothing missing, difference 0.0."""
    from transformers import Qwen3VLForConditionalGeneration

    config = base_config(num_hidden_layers=1)
    config.vision_config.deepstack_visual_indexes = []
    model, found = Qwen3VLForConditionalGeneration.from_pretrained(
        made[0], config=config, output_loading_info=True, dtype=torch.bfloat16
    )
    assert not found["missing_keys"] and not found["mismatched_keys"]
    theirs = dict(made[1].named_parameters())
    assert all(torch.equal(value.float(), theirs[name]) for name, value in model.named_parameters())


def test_adopted_weights_keep_the_number_format_of_the_base(made: tuple[Path, Any], tmp_path: Path, like: Path) -> None:
    run(made[0], tmp_path / "out", like)
    state = load_file(tmp_path / "out" / WEIGHTS)
    theirs = {name: value.bfloat16() for name, value in made[1].state_dict().items()}
    for ours, name in (
        ("tower.visual.blocks.1.mlp.linear_fc1.weight", "model.visual.blocks.1.mlp.linear_fc1.weight"),
        ("backbone.layers.2.mlp.down_proj.weight", "model.language_model.layers.2.mlp.down_proj.weight"),
        ("norm.weight", "model.language_model.norm.weight"),
    ):
        assert state[ours].dtype == torch.bfloat16 and torch.equal(state[ours], theirs[name])
    checkpoint.save(checkpoint.load(tmp_path / "out"), tmp_path / "again")
    again = load_file(tmp_path / "again" / WEIGHTS)
    assert all(torch.equal(value, again[name]) for name, value in state.items())


def test_a_large_family_is_written_and_read_in_shards(
    made: tuple[Path, Any], tmp_path: Path, like: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names, contents and hash; a smaller one afterwards leaves no shard of the larger one behind."""
    out = tmp_path / "out"
    run(made[0], out, like)
    whole = load_file(out / WEIGHTS)
    set_defaults(monkeypatch, write_weights, limit=60_000)
    run(made[0], out, like)
    shards = weight_files(out)
    assert len(shards) > 2 and not (out / WEIGHTS).exists() and not list(out.glob("*.part"))
    found = {name: value for shard in shards for name, value in load_file(out / shard).items()}
    assert found.keys() == whole.keys() and all(torch.equal(found[name], whole[name]) for name in whole)
    before = checkpoint.checkpoint_hash(out)
    checkpoint.load(out)
    content = bytearray((out / shards[1]).read_bytes())
    content[-1] ^= 1
    (out / shards[1]).write_bytes(content)
    assert checkpoint.checkpoint_hash(out) != before
    monkeypatch.undo()
    run(made[0], out, like)
    assert weight_files(out) == (WEIGHTS,) and not list(out.glob("model-*")) and not (out / INDEX).exists()


def test_word_embeddings_start_as_the_mean_of_their_pieces(
    base: Path, made: tuple[Path, Any], tmp_path: Path, like: Path
) -> None:
    tokenizer = a_tokenizer("<|im_end|>")
    tokenizer.save(str(base / "tokenizer.json"))
    pieces = tokenizer.get_vocab()
    assert run(base, tmp_path / "out", like) == 0
    family = checkpoint.load(tmp_path / "out")
    table = made[1].model.language_model.embed_tokens.weight
    head = made[1].lm_head.weight
    falls = [256, *(pieces[letter] for letter in "alls")]
    for ours, theirs in ((family.embed.weight, table), (family.head.weight, head)):  # type: ignore[union-attr]  # untied
        expected = theirs[falls].mean(dim=0)
        torch.testing.assert_close(ours[WORDS.index("falls")], expected, atol=2e-3, rtol=1e-2)
        torch.testing.assert_close(ours[WORDS.index("a")], theirs[257], atol=0.0, rtol=0.0)
        torch.testing.assert_close(ours[WORDS.index("<end>")], theirs[258], atol=0.0, rtol=0.0)


def test_old_and_new_forms_of_config_give_the_same_family(base: Path, tmp_path: Path, like: Path) -> None:
    """The published folders say rope_theta and rope_scaling, and give the number format as torch_dtype."""
    run(base, tmp_path / "new", like)
    found = json.loads((base / "config.json").read_text())
    rope = found["text_config"].pop("rope_parameters")
    found["text_config"] |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope, "dtype": "bfloat16"}
    found["torch_dtype"] = found.pop("dtype")
    (base / "config.json").write_text(json.dumps(found))
    assert run(base, tmp_path / "old", like) == 0
    configs = [FamilyConfig.load(tmp_path / name / "config.json") for name in ("new", "old")]
    assert configs[0] == configs[1] and configs[0].rope_theta == 5e6


def test_the_window_is_rounded_up_to_whole_tokens(base: Path, tmp_path: Path) -> None:
    like = tmp_path / "like"
    like.mkdir()
    config = qwen_family_config()
    replace(config, tower="snippets", vision=None, window=replace(config.window, height=90, width=100)).save(
        like / "config.json"
    )
    assert run(base, tmp_path / "out", like) == 0
    window = FamilyConfig.load(tmp_path / "out" / "config.json").window
    assert (window.height, window.width) == (96, 128)
    assert run(base, tmp_path / "out", like, "--frame-size", "64") == 0
    assert FamilyConfig.load(tmp_path / "out" / "config.json").window.width == 64


SIZES = {
    "2B": ((2048, 28, 16, 6144), (24, 1024, 4096), (5, 11, 17), True),
    "4B": ((2560, 36, 32, 9728), (24, 1024, 4096), (5, 11, 17), True),
    "8B": ((4096, 36, 32, 12288), (27, 1152, 4304), (8, 16, 24), False),
}
"""Released model -> text (width, blocks, heads, mlp), tower (depth, width, mlp), DeepStack's blocks, head tied."""


@pytest.mark.parametrize("exit_block", ["shared", "branch"])
@pytest.mark.parametrize("size", SIZES)
def test_every_released_size_can_be_adopted(size: str, exit_block: str, like: Path, tmp_path: Path) -> None:
    """Names and shapes of transformers' model on the meta device, config.json in its published form: all fit, and only
    DeepStack's mergers are left over. A family of no other size would take them."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    (width, blocks, heads, mlp), (depth, eye, eye_mlp), deepstack, tied = SIZES[size]
    text = {
        "hidden_size": width,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "intermediate_size": mlp,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "hidden_act": "silu",
        "rope_theta": 5e6,
        "rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True},
    }
    vision = {
        "depth": depth,
        "hidden_size": eye,
        "intermediate_size": eye_mlp,
        "num_heads": 16,
        "patch_size": 16,
        "out_hidden_size": width,
        "num_position_embeddings": 2304,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "in_channels": 3,
        "hidden_act": "gelu_pytorch_tanh",
        "deepstack_visual_indexes": [*deepstack],
    }
    found = {"model_type": "qwen3_vl", "torch_dtype": "bfloat16", "tie_word_embeddings": tied}
    (tmp_path / "config.json").write_text(json.dumps({**found, "text_config": text, "vision_config": vision}))
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(
            Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied)
        )
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert ("lm_head.weight" in shapes) != tied
    weights: Any = SimpleNamespace(shapes=shapes, formats=dict.fromkeys(shapes, "BF16"))
    config = adopt.family_config(tmp_path, FamilyConfig.load(like / "config.json"), 1, exit_block, None)
    with without_weights():
        plan = checkpoint.plan_of(Family(config))
    source = {name: adopt._source(name, config) for name in plan if not name.startswith(FRESH)}
    adopt._check_tensors(tmp_path, weights, {name: plan[name][0] for name in source}, source, config)
    left = {name for name in shapes if name not in source.values()}
    assert left and all(name.startswith("model.visual.deepstack_merger_list.") for name in left)
    assert (config.layers, config.hidden, config.tied, config.rope_theta) == (blocks, width, tied, 5e6)
    thinner = replace(config, mlp=mlp - 128)
    with without_weights():
        plan = checkpoint.plan_of(Family(thinner))
    with pytest.raises(CheckpointError, match="contradict each other"):
        adopt._check_tensors(tmp_path, weights, {name: plan[name][0] for name in source}, source, thinner)


# --- what is refused


def _config(**changes: Any) -> Callable[[Path], object]:
    """Change config.json: `section__key` in a section, `key` at the top, None takes it away."""

    def change(base: Path) -> None:
        found = json.loads((base / "config.json").read_text())
        for key, value in changes.items():
            *sections, last = key.split("__")
            place = found
            for section in sections:
                place = place[section]
            place.pop(last, None) if value is None else place.__setitem__(last, value)
        (base / "config.json").write_text(json.dumps(found))

    return change


def _truncate(base: Path) -> None:
    shard = sorted(base.glob("model-*"))[2]
    shard.write_bytes(shard.read_bytes()[:-1000])


def _drop_tensor(base: Path) -> None:
    for shard in base.glob("model-*"):
        state = load_file(shard)
        if state.pop("model.language_model.layers.1.mlp.up_proj.weight", None) is not None:
            save_file(state, shard)
    (base / INDEX).unlink()
    merged = {name: value for shard in base.glob("model-*") for name, value in load_file(shard).items()}
    save_file(merged, base / WEIGHTS)


def _foreign_index(base: Path) -> None:
    found = json.loads((base / INDEX).read_text())
    found["weight_map"]["lm_head.weight"] = "../../secret.safetensors"
    (base / INDEX).write_text(json.dumps(found))


def _wrong_index(base: Path) -> None:
    found = json.loads((base / INDEX).read_text())
    found["weight_map"]["lm_head.weight"] = found["weight_map"]["model.visual.pos_embed.weight"]
    (base / INDEX).write_text(json.dumps(found))


REFUSED: dict[str, tuple[Callable[[Path], object], list[str], str]] = {
    "another architecture": (_config(model_type="llama"), [], "model_type is 'llama'; this adopts 'qwen3_vl'"),
    "experts without a number": (_config(model_type="qwen3_vl_moe"), [], "num_local_experts is None, not a size"),
    "quantised weights": (_config(quantization_config={"quant_method": "fp8"}), [], "as they were trained"),
    "another position scheme": (_config(text_config__rope_parameters__rope_type="yarn"), [], "rope_type is 'yarn'"),
    "no config": (lambda base: (base / "config.json").unlink(), [], "Hugging Face form with --base"),
    "config is no JSON": (lambda base: (base / "config.json").write_text("{"), [], "not readable as JSON"),
    "no vision": (_config(vision_config=None), [], "has no vision_config"),
    "a size is missing": (_config(text_config__head_dim=None), [], "text_config.head_dim is None, not a size"),
    "another activation": (_config(text_config__hidden_act="gelu"), [], "hidden_act is 'gelu'"),
    "biased attention": (_config(text_config__attention_bias=True), [], "attention_bias is True"),
    "no number format of ours": (_config(dtype="float8_e4m3fn"), [], "storage is 'float8_e4m3fn'"),
    "a truncated shard": (_truncate, [], "unreadable, cut or damaged"),
    "a missing shard": (lambda base: sorted(base.glob("model-*"))[1].unlink(), [], "model-00002-of-"),
    "an index of other folders": (_foreign_index, [], "no valid name of a shard"),
    "an index that is wrong": (_wrong_index, [], "holds 'lm_head.weight', it does not"),
    "a tensor is missing": (_drop_tensor, [], "layers.1.mlp.up_proj.weight is not there"),
    "fewer blocks than config says": (_config(text_config__num_hidden_layers=4), [], "are there, its sizes give 4"),
    "more blocks than config says": (_config(text_config__num_hidden_layers=2), [], "are there, its sizes give 2"),
    "positions in words": (_config(text_config__rope_parameters="default"), [], "rope_parameters is 'default', not a"),
    "no theta": (_config(text_config__rope_parameters__rope_theta=None), [], "rope_theta is None, not a positive"),
    "an endless theta": (_config(text_config__rope_parameters__rope_theta=math.inf), [], "rope_theta is inf"),
    "a norm below zero": (_config(text_config__rms_norm_eps=-1), [], "rms_norm_eps is -1, not a positive number"),
    "another width": (_config(text_config__intermediate_size=96), [], "is (80, 48), its sizes give (96, 48)"),
    "another depth of the tower": (_config(vision_config__depth=3), [], "2 of model.visual.blocks.* are there"),
    "a thousand million blocks": (_config(vision_config__depth=10**9), [], "2 of model.visual.blocks.* are there"),
    "a position table too large": (_config(vision_config__num_position_embeddings=10**9), [], "pos_embed.weight is"),
    "another number format": (_config(dtype="float32"), [], "holds BF16, its dtype is float32"),
    "exit before the first block": (lambda base: None, ["--exit-at", "0"], "exit_at is 0, the backbone has blocks"),
    "exit behind the last block": (lambda base: None, ["--exit-at", "4"], "exit_at is 4, the backbone has blocks"),
    "an exit block of no kind": (lambda base: None, ["--exit-block", "own"], "'shared' and 'branch'"),
    "frames of half tokens": (lambda base: None, ["--frame-size", "48"], "48 x 48 are not made of 32 x 32"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_folder_that_cannot_be_adopted_is_refused_with_the_cure(
    what: str, base: Path, tmp_path: Path, like: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 1, one line, nothing written."""
    change, arguments, says = REFUSED[what]
    change(base)
    assert run(base, tmp_path / "out", like, *arguments) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("familial.model.adopt: ") and says in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_the_base_is_never_written_into(base: Path, like: Path) -> None:
    assert run(base, base / ".", like) == 1 and not (base / "vocab.json").exists()


def test_too_little_memory_is_found_before_anything_is_written(
    base: Path, tmp_path: Path, like: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(base, tmp_path / "out", like)
    monkeypatch.setattr(resources, "available_memory", lambda: 1000)
    assert run(base, tmp_path / "other", like) == 1
    assert "of memory, 0.0 GB are available; end other programs" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    with pytest.raises(CheckpointError, match="loading .* needs 0.0 GB of memory"):
        checkpoint.load(tmp_path / "out")


def test_too_little_disk_is_found_before_anything_is_written(
    base: Path, tmp_path: Path, like: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=1000))
    assert run(base, tmp_path / "a" / "b", like) == 1
    assert "give a folder on another disk with --out" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
