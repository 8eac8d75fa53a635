"""The fixed-grid tower equals transformers' own; from an exit after any block, the cloud continues exactly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from export.proof.verify_graph import check_graph
from export.trace import trace_module
from familial.model.config import FamilyConfig, VisionSpec, nano
from familial.model.family import Family
from familial.model.members import CloudMember, EdgeMember
from familial.model.towers.qwen import QwenTower
from familial.model.weights import without_weights
from tests.support.qwen_factory import WORDS, a_base_model, base_config, processor_pixels, qwen_family_config
from wire.errors import CheckpointError


@pytest.fixture(scope="module")
def base() -> Any:
    return a_base_model()


def tower_of(base: Any, size: int = 64) -> QwenTower:
    tower = QwenTower(qwen_family_config(size=size)).eval()
    tower.visual.load_state_dict(base.model.visual.state_dict(), strict=False)
    return tower


def some_frames(count: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, 8, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("size", [32, 64, 96, 160])
@torch.no_grad()
def test_the_fixed_grid_tower_equals_transformers_tower(base: Any, size: int) -> None:
    """Also where the position table has to be stretched, in training form and as it is exported."""
    tower, frames = tower_of(base, size), some_frames(2, size)
    pixels, grid = processor_pixels(frames[1], tower.vision)
    theirs = base.model.visual(pixels, grid).pooler_output
    ours = tower.tokens(frames)[1].flatten(0, 1)
    assert float((ours - theirs).abs().max()) <= 1e-4 < float(theirs.abs().max())
    assert float((tower.for_export()(frames) - tower(frames)).abs().max()) <= 1e-4


@torch.no_grad()
def test_the_fixed_grid_tower_equals_transformers_tower_at_a_larger_size() -> None:
    """Real patch, merge and position table, 384 wide, 6 blocks; and colours that the processor scales differently."""
    vision = VisionSpec(
        depth=6, hidden=384, mlp=1440, heads=6, out=512, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28)
    )
    config = replace(qwen_family_config(size=128), vision=vision)
    torch.manual_seed(1)
    tower, frames = QwenTower(config).eval(), some_frames(1, 128)
    for parameter in tower.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.02)
    theirs = tower.visual(*processor_pixels(frames[0], vision)).pooler_output
    apart = (tower.tokens(frames)[0].flatten(0, 1) - theirs).abs().max()
    assert float(apart) <= 1e-4 < float(theirs.abs().max())


def test_processor_pixels_equal_those_of_transformers_processor() -> None:
    """What the other tests compare with is what transformers' image processor makes of a still picture."""
    from transformers.models.qwen2_vl import Qwen2VLImageProcessor

    try:
        processor = Qwen2VLImageProcessor(
            patch_size=16, merge_size=2, min_pixels=1024, max_pixels=10**6, image_mean=[0.5] * 3, image_std=[0.5] * 3
        )
    except ImportError as error:
        pytest.skip(f"the image processor needs more than is installed here: {error}")
    frame = some_frames(1, 64)[0, 0]
    found = processor(images=[np.repeat(frame.numpy()[:, :, None], 3, axis=2)], return_tensors="pt")
    pixels, grid = processor_pixels(torch.stack((frame, frame)), VisionSpec(2, 32, 56, 2, 48))
    assert torch.equal(found["image_grid_thw"], grid)
    assert float((found["pixel_values"] - pixels).abs().max()) <= 1e-6


@torch.no_grad()
def test_a_windows_features_do_not_depend_on_other_windows(base: Any) -> None:
    tower, frames = tower_of(base), some_frames(3, 64)
    assert float((tower(frames)[1:2] - tower(frames[1:2])).abs().max()) <= 1e-5


def test_gradients_reach_every_weight_of_the_tower() -> None:
    tower = QwenTower(qwen_family_config())
    tower(some_frames(2, 64)).square().sum().backward()
    assert not [name for name, parameter in tower.named_parameters() if parameter.grad is None]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's exporter warns about itself
@torch.no_grad()
def test_the_tower_exports_to_allowed_operators(base: Any) -> None:
    """Fixed shapes, whitelisted operators, no custom one; ONNX Runtime computes what transformers computes."""
    tower = tower_of(base)
    frames = some_frames(1, 64)
    pixels, grid = processor_pixels(frames[0], tower.vision)
    graph = trace_module(_Tokens(tower), {"frames": frames}, "tokens", "tower")
    shape = (1, *tower.tokens(frames).shape[1:])
    check_graph(graph, "tower", {"frames": ("uint8", tuple(frames.shape))}, {"tokens": ("float32", shape)})
    found = {node.op_type for node in graph.graph.node}
    assert not found & {"NonZero", "ScatterND", "ScatterElements", "IsNaN", "RandomNormal", "Gather", "If", "Loop"}
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (tokens,) = session.run(None, {"frames": frames.numpy()})
    theirs = base.model.visual(pixels, grid).pooler_output.numpy()
    assert np.abs(tokens.reshape(theirs.shape) - theirs).max() <= 1e-4


class _Tokens(torch.nn.Module):
    def __init__(self, tower: QwenTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.tower.tokens(frames.float())


def events(config: FamilyConfig, count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.randint(-200, 200, (count, config.event_releases, config.tokens, config.width), dtype=torch.int32)
    return z, torch.rand(count, config.event_releases) < 0.7


@pytest.mark.parametrize("exit_block", ["shared", "branch"])
@pytest.mark.parametrize("exit_at", [1, 2, 3, 4])
@torch.no_grad()
def test_the_cloud_continues_exactly_from_any_exit_block(exit_at: int, exit_block: str) -> None:
    """Difference 0.0: the cloud goes on from the edge's state as if it had computed it, whichever block that left."""
    torch.manual_seed(exit_at)
    family = Family(qwen_family_config(layers=4, exit_at=exit_at, exit_block=exit_block)).eval()
    z, present = events(family.config)
    edge, cloud = EdgeMember(family), CloudMember(family)
    assert float((cloud.continue_from(edge.exit_state(z, present), present) - cloud(z, present)).abs().max()) == 0.0
    assert float((cloud(z, present) - family.cloud_logits(z, present)).abs().max()) == 0.0
    assert float((edge(z, present) - family.edge_logits(z, present)).abs().max()) == 0.0
    assert len(edge.backbone.layers) + (exit_block == "branch") == exit_at


@torch.no_grad()
def test_a_branch_block_starts_as_a_copy_and_is_independent() -> None:
    torch.manual_seed(0)
    branched = Family(qwen_family_config(exit_block="branch")).eval()
    shared = Family(qwen_family_config()).eval()
    shared.load_state_dict(branched.state_dict(), strict=False)
    z, present = events(branched.config)
    assert float((branched.edge_logits(z, present) - shared.edge_logits(z, present)).abs().max()) == 0.0
    assert branched.branch is not None
    next(branched.branch.parameters()).mul_(2.0)
    assert torch.equal(branched.cloud_logits(z, present), shared.cloud_logits(z, present))
    assert not torch.equal(branched.edge_logits(z, present), shared.edge_logits(z, present))


@torch.no_grad()
def test_the_backbone_equals_transformers_decoder(base: Any) -> None:
    """Same blocks, grouped heads and rotary positions: the same hidden states, to the last bit."""
    family = Family(qwen_family_config()).eval()
    language = base.model.language_model
    family.backbone.layers.load_state_dict(language.layers.state_dict())
    hidden = torch.randn(2, 20, 48)
    present = torch.ones(2, family.config.event_releases, dtype=torch.bool)
    theirs = language(inputs_embeds=hidden, use_cache=False).last_hidden_state
    ours = language.norm(family.backbone(hidden, present))
    assert float((ours - theirs).abs().max()) == 0.0


@torch.no_grad()
def test_transformers_model_reads_our_tower_features_as_its_own(base: Any) -> None:
    """The base with DeepStack off reads handed-over tower features as it reads its own picture: difference 0.0."""
    config = base_config()
    config.vision_config.deepstack_visual_indexes = []
    member = a_base_model(config)
    tower = tower_of(member)
    frames = some_frames(1, 64)[0, :1].expand(2, -1, -1)
    pixels, grid = processor_pixels(frames, tower.vision)
    ids = torch.tensor([[5, 292, *[290] * 4, 293, 7, 9]])
    given = {"input_ids": ids, "image_grid_thw": grid, "mm_token_type_ids": (ids == 290).int()}
    own = member(**given, pixel_values=pixels).logits

    def read(features: torch.Tensor) -> torch.Tensor:
        found = BaseModelOutputWithDeepstackFeatures(pooler_output=(features,), deepstack_features=[])
        logits: torch.Tensor = member(**given, mm_encoder_outputs={"image": found}).logits
        return logits

    theirs = member.model.visual(pixels, grid).pooler_output
    ours = tower.tokens(frames[None])[0].flatten(0, 1)
    assert float((read(theirs) - own).abs().max()) == 0.0
    assert float((read(ours) - own).abs().max()) <= 1e-3


def real_config(layers: int) -> Qwen3VLConfig:
    """The 8B model's geometry with so many decoder blocks, DeepStack off; sizes as its config.json has them."""
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    text = {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rope_parameters": rope,
    }
    vision = {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_heads": 16,
        "out_hidden_size": 4096,
        "deepstack_visual_indexes": [],
    }
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)


@pytest.mark.parametrize(("layers", "expected"), [(1, 1_893_620_720), (36, 8_646_745_840)])
def test_the_members_have_the_published_numbers_of_parameters(layers: int, expected: int) -> None:
    """On the meta device. The model of one block, and of 36: tower, blocks, and both word matrices of 151,936 rows."""
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(real_config(layers))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_the_family_has_the_published_tower_and_blocks() -> None:
    """What an adopted edge member takes over of those 1.89 billion: all but the two word matrices and the last norm."""
    vision = VisionSpec(depth=27, hidden=1152, mlp=4304, heads=16, out=4096)
    config = replace(
        nano(WORDS),
        window=replace(nano(WORDS).window, height=96, width=96, new_frames=8, context_frames=8),
        tower="qwen",
        vision=vision,
        hidden=4096,
        layers=36,
        heads=32,
        kv_heads=8,
        head_dim=128,
        mlp=12288,
        rope_theta=5e6,
        tied=False,
    )
    with without_weights():
        family = Family(config)
    words = 2 * 151_936 * 4096 + 4096
    edge = [*family.tower.parameters(), *EdgeMember(family).backbone.parameters()]
    assert sum(parameter.numel() for parameter in edge) == 1_893_620_720 - words
    whole = [*family.tower.parameters(), *family.backbone.parameters()]
    assert sum(parameter.numel() for parameter in whole) == 8_646_745_840 - words


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"exit_at": 0}, "exit_at is 0, the backbone has blocks 1 to 3"),
        ({"exit_at": 4}, "exit_at is 4, the backbone has blocks 1 to 3"),
        ({"exit_block": "private"}, "'shared' and 'branch'"),
        ({"size": 80}, "80 x 80 are not made of 32 x 32"),
        ({"vision": None}, "no vision"),
        ({"kv_heads": 3}, "do not share 3 kv_heads"),
        ({"storage": "int4"}, "storage"),
    ],
)
def test_inconsistent_geometries_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        qwen_family_config(**changes)


def test_an_odd_number_of_frames_is_refused() -> None:
    config = qwen_family_config()
    with pytest.raises(CheckpointError, match="7 frames are not made of 2 at a time"):
        replace(config, window=replace(config.window, new_frames=3))
