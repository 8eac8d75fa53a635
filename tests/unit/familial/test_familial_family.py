"""The family: members that share its weights, exact hand-over, graphs that can be exported, checkpoints that reload."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from familial.data.events import Grid
from familial.model import checkpoint
from familial.model.config import FamilyConfig, nano
from familial.model.desensitizer import code_plane
from familial.model.family import Family
from familial.model.graphs import DecideGraph, EncodeGraph
from familial.model.members import CloudMember, EdgeMember
from familial.model.preparation import moving_parts, tents
from familial.model.vocabulary import Vocabulary
from wire.errors import CheckpointError

LABELS = ("normal", "fall", "fight")
WINDOW = nano(("<pad>", "<end>")).window
FRAMES = (WINDOW.frames, WINDOW.height, WINDOW.width)
ATTRIBUTES = ("empty", "one", "several")
CAPTIONS = ("a person falls", "two people fight", "nothing unusual happens")
WORDS = Vocabulary.of_captions(CAPTIONS, LABELS).words
SAYING = Vocabulary.of_captions(CAPTIONS, LABELS, ATTRIBUTES).words


@pytest.fixture(scope="module")
def family() -> Family:
    torch.manual_seed(0)
    made = Family(nano(WORDS)).train()
    frames = torch.randint(0, 256, (4, *FRAMES), dtype=torch.uint8)
    with torch.no_grad():
        made.features(frames)  # batch norms that have seen something
        for name, weight in made.backbone.named_parameters():
            weight.mul_(20 if "down_proj" in name else 1)  # blocks that do something
    return made.eval()


def _events(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    z = torch.randint(-200, 200, (count, 8, 4, 16), dtype=torch.int32)
    present = torch.rand(count, 8) < 0.6
    present[:, -1] = True
    return z, present


@pytest.fixture(scope="module", params=["tokens", "plane"])
def reader(request: pytest.FixtureRequest) -> Family:
    """A family whose blocks do something, with either adapter."""
    torch.manual_seed(0)
    made = Family(replace(nano(SAYING), adapter=request.param, attributes=ATTRIBUTES))
    with torch.no_grad():
        for name, weight in made.backbone.named_parameters():
            weight.mul_(20 if "down_proj" in name else 1)
    return made.eval()


@torch.no_grad()
def test_noise_outside_the_plane_of_codes_is_not_read() -> None:
    torch.manual_seed(0)
    config = replace(nano(SAYING), adapter="plane", attributes=ATTRIBUTES)
    family = Family(config).eval()
    z, present = _events(4)
    plane = code_plane(config.tokens, config.width, config.rank + config.aside).flatten(0, 1)
    noise = 300.0 * torch.randn(*z.shape[:2], config.n)
    outside = (noise - (noise @ plane) @ plane.T).reshape(z.shape)
    moved, alike = family.cloud_logits(z + outside, present), family.cloud_logits(z.float(), present)
    torch.testing.assert_close(moved, alike, atol=1e-3, rtol=1e-3)
    along = (noise @ plane @ plane.T).reshape(z.shape)
    assert not torch.allclose(family.cloud_logits(z + along, present), alike, atol=1e-2)
    assert family.adapter(z, present).shape == (4, config.event_releases + 1, config.hidden)


def test_a_plane_needs_a_rank() -> None:
    with pytest.raises(CheckpointError, match="adapter is 'plane', but rank is 0"):
        replace(nano(WORDS), adapter="plane", rank=0)
    with pytest.raises(CheckpointError, match="known are 'tokens' and 'plane'"):
        replace(nano(WORDS), adapter="lens")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"code_gain": -1.0}, "code_gain is -1"),
        ({"code_gain": 4.0, "rank": 0, "code_bias": (0.0, 0.0, 0.0)}, "rank 0"),
        ({"code_gain": 4.0, "code_bias": (0.0,)}, "code_bias has 1 entries: one for each label"),
        ({"code_bias": (0.0, 0.0, 0.0)}, "code_bias has 3 entries"),
        (
            {"late_fusion": (0.7, 1.0)},
            "late_fusion is 0.7,1: give three numbers above 0, for motion",
        ),
        ({"late_fusion": (0.7, 1.0, -3.0)}, "late_fusion is 0.7,1,-3: give three numbers above 0"),
        ({"late_fusion": (0.7, 1.0, 3.0)}, "it needs a fused tower, a code_gain and attributes"),
    ],
)
def test_sizes_of_sharpening_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        replace(nano(WORDS), **changes)


@torch.no_grad()
def test_a_pointed_adapter_sums_the_directions_of_codes(reader: Family) -> None:
    reader.point_adapter()
    config = reader.config
    plane = code_plane(config.tokens, config.width, config.rank + config.aside)
    code = 50.0 * plane[..., 1]
    before = reader.adapter(torch.zeros(1, 8, config.tokens, config.width), torch.ones(1, 8, dtype=torch.bool))[0, -1]
    there = reader.adapter(code.expand(1, 8, -1, -1), torch.ones(1, 8, dtype=torch.bool))[0, -1]
    place = plane.shape[2] + 1  # of release 1 and direction 1
    assert abs(float((there - before)[place]) - 50.0 / config.sigma) < 0.05


def test_the_shipped_size_fits_four_megabytes(family: Family) -> None:
    assert sum(parameter.numel() for parameter in family.parameters()) <= 1_900_000


@torch.no_grad()
def test_the_cloud_continues_exactly_from_the_edges_exit_state(reader: Family) -> None:
    z, present = _events(5)
    edge, cloud = EdgeMember(reader), CloudMember(reader)
    whole = reader.cloud_logits(z, present)
    assert float((cloud.continue_from(edge.exit_state(z, present), present) - whole).abs().max()) == 0.0
    assert float((cloud(z, present) - whole).abs().max()) == 0.0
    assert float((edge(z, present) - reader.edge_logits(z, present)).abs().max()) == 0.0


@torch.no_grad()
def test_both_exits_come_from_one_forward(reader: Family) -> None:
    z, present = _events(3)
    words = torch.tensor([[2, 5, 6], [3, 5, 7], [4, 6, 5]])
    edge, cloud, following, _ = reader.both_exits(z, present, words)
    torch.testing.assert_close(edge, reader.edge_logits(z, present), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(cloud, reader.cloud_logits(z, present), atol=1e-4, rtol=1e-4)
    assert following.shape == (3, 3, len(reader.config.words))


@torch.no_grad()
def test_content_of_missing_releases_does_not_matter(reader: Family) -> None:
    z, present = _events(4)
    present[:] = torch.tensor([False] * 4 + [True] * 4)  # halved presence
    other = z.clone()
    other[:, :4] = 12345
    for read in (reader.edge_logits, reader.cloud_logits):
        torch.testing.assert_close(read(z, present), read(other, present), atol=0, rtol=0)
    assert not torch.allclose(reader.cloud_logits(z, present), reader.cloud_logits(z, torch.ones_like(present)))


@torch.no_grad()
def test_captions_consist_of_vocabulary_words(reader: Family) -> None:
    z, present = _events(2)
    for sentence in reader.caption(z, present):
        assert (
            set(sentence.split()) <= set(reader.config.words) and len(sentence.split()) <= reader.config.caption_words
        )


@torch.no_grad()
def test_features_do_not_depend_on_brightness(family: Family) -> None:
    frames = torch.randint(60, 120, (1, *FRAMES), dtype=torch.uint8)
    brighter = frames + 80
    torch.testing.assert_close(family.features(frames), family.features(brighter), atol=0.05, rtol=0.01)


@torch.no_grad()
@pytest.mark.parametrize("missing", [range(WINDOW.frames), range(8), (3, 9), (WINDOW.frames - 1,)])
def test_missing_frames_give_finite_features(family: Family, missing: Any) -> None:
    frames = torch.randint(0, 256, (1, *FRAMES), dtype=torch.uint8)
    frames[:, list(missing)] = 0
    assert torch.isfinite(family.features(frames)).all()


@torch.no_grad()
@pytest.mark.parametrize(("lost", "instead"), [(slice(0, 3), 3), (slice(2, 5), 5), (slice(6, 8), 5)])
def test_a_gap_is_filled_with_the_next_frame_and_an_end_with_the_last(lost: slice, instead: int) -> None:
    snippet = torch.randint(1, 256, (1, 8, 64, 64)).float()
    gap, filled = snippet.clone(), snippet.clone()
    gap[:, lost] = 0
    filled[:, lost] = snippet[:, instead : instead + 1]
    for made, wanted in zip(moving_parts(gap, 16), moving_parts(filled, 16), strict=True):
        # equal but for the contrast, which is measured on the frames that are there
        assert float(torch.corrcoef(torch.stack((made.flatten(), wanted.flatten())))[0, 1]) > 0.999


@torch.no_grad()
def test_the_crop_holds_what_moves_and_nothing_of_the_background() -> None:
    place = torch.randint(60, 200, (1, 1, 128, 128)).float()
    frames = place.repeat(1, 8, 1, 1)
    for step in range(8):
        frames[0, step, 40:60, 20 + 2 * step : 30 + 2 * step] = 255.0
    parts, geometry = moving_parts(frames, 56)
    top, bottom, left, right, side, _ = ((geometry[0] + 1) / 2).tolist()
    assert 36 / 128 <= top <= 44 / 128 and 56 / 128 <= bottom <= 64 / 128
    assert 16 / 128 <= left <= 24 / 128 and 40 / 128 <= right <= 48 / 128 and side < 0.4
    outside = torch.cat((parts[0, :, :6].flatten(), parts[0, :, -6:].flatten()))
    assert float(outside.abs().max()) < 1e-4 < 1.0 < float(parts.abs().max())


class _Parts(torch.nn.Module):
    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return moving_parts(frames, 56)[0]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's exporter warns about itself
@torch.no_grad()
def test_the_exported_graph_crops_each_snippet_by_its_own_box(tmp_path: Path) -> None:
    """As many snippets as frames in each, with different boxes, so that pairing boxes with frames would be found."""
    snippets = torch.full((8, 8, 128, 128), 90.0)
    for place in range(8):
        for step in range(8):
            left = 20 + 8 * place + 2 * step
            snippets[place, step, 30:60, left : left + 16] = 200.0
    program = torch.onnx.export(_Parts().eval(), (snippets,), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    program.save(str(tmp_path / "parts.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "parts.onnx"))
    (made,) = session.run(None, {session.get_inputs()[0].name: snippets.numpy()})
    np.testing.assert_allclose(made, moving_parts(snippets, 56)[0].numpy(), atol=1e-3)


@torch.no_grad()
def test_a_change_of_brightness_everywhere_is_no_motion() -> None:
    frames = torch.randint(60, 120, (1, 1, 128, 128)).float() + torch.arange(8).reshape(1, 8, 1, 1) * 12.0
    _, geometry = moving_parts(frames, 56)
    assert ((geometry[0, :5] + 1) / 2).tolist() == pytest.approx([0, 1, 0, 1, 1], abs=0.07)


def test_resampling_weights_sum_to_one() -> None:
    rows = tents(torch.tensor([0.0, 0.3, 1.0]), torch.tensor([0.4, 1.0, 0.6]), 56, 128)
    torch.testing.assert_close(rows.sum(dim=2), torch.ones(3, 56))
    assert bool((rows >= 0).all())


@torch.no_grad()
def test_a_sequence_gives_the_features_of_its_windows(family: Family) -> None:
    grid = Grid.of(WINDOW, 3)
    frames = torch.randint(0, 256, (2, len(grid.before_s), *FRAMES[1:]), dtype=torch.uint8)
    index = torch.from_numpy(grid.index)
    together = family.sequence_features(frames, index)
    for slot in range(3):
        torch.testing.assert_close(together[:, slot], family.features(frames[:, index[slot]]), atol=1e-3, rtol=1e-4)


@torch.no_grad()
def test_codes_span_at_most_rank_directions(family: Family) -> None:
    codes = family.features(torch.randint(0, 256, (12, *FRAMES), dtype=torch.uint8)).flatten(1)
    assert family.config.rank == 2 and int(torch.linalg.matrix_rank(codes, rtol=1e-4)) <= 2


@pytest.fixture(scope="module")
def graphs(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    frames = torch.randint(0, 256, (1, *FRAMES), dtype=torch.uint8)
    z, present = _events(1)
    for name, graph, inputs, names, output in (
        ("encode", EncodeGraph(family).eval(), (frames,), ["frames"], "mu"),
        ("decide", DecideGraph(family).eval(), (z, present), ["z", "present"], "logits"),
    ):
        program = torch.onnx.export(
            graph, inputs, dynamo=True, opset_version=18, input_names=names, output_names=[output], verbose=False
        )
        assert program is not None
        program.save(str(folder / f"{name}.onnx"))
    return folder


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's exporter warns about itself
@torch.no_grad()
def test_the_exported_graphs_agree_with_torch(family: Family, graphs: Path) -> None:
    encode = onnxruntime.InferenceSession(str(graphs / "encode.onnx"))
    decide = onnxruntime.InferenceSession(str(graphs / "decide.onnx"))
    for _ in range(3):
        frames = torch.randint(0, 256, (1, *FRAMES), dtype=torch.uint8)
        frames[:, :4] = 0
        (mu,) = encode.run(None, {"frames": frames.numpy()})
        assert mu.dtype == np.int32 and mu.shape == (1, 4, 16)
        assert np.abs(mu - family.integer_code(family.features(frames)).numpy()).max() <= 1
        events, present = _events(1)
        (logits,) = decide.run(None, {"z": events.numpy(), "present": present.numpy()})
        np.testing.assert_allclose(logits, family.edge_logits(events, present).numpy(), atol=1e-4)


def test_a_saved_checkpoint_loads_unchanged(family: Family, tmp_path: Path) -> None:
    checkpoint.save(family, tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.glob("*.safetensors")) <= 4_000_000
    back = checkpoint.load(tmp_path)
    assert back.config == family.config
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "veilsight"
    z, present = _events(4)
    with torch.no_grad():
        torch.testing.assert_close(back.cloud_logits(z, present), family.cloud_logits(z, present), atol=0.05, rtol=0.05)
    before = checkpoint.checkpoint_hash(tmp_path)
    checkpoint.save(back, tmp_path / "again")
    assert checkpoint.checkpoint_hash(tmp_path / "again") == before


def test_a_broken_checkpoint_is_refused_by_name(family: Family, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        checkpoint.load(tmp_path)
    checkpoint.save(family, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="unreadable"):
        checkpoint.load(tmp_path)
    checkpoint.save(family, tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(text | {"hidden": 64}))
    with pytest.raises(CheckpointError, match="do not fit"):
        checkpoint.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(text | {"colour": 1}))
    with pytest.raises(CheckpointError, match="colour"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("clip_norm", 8192, "overflows"),
        ("words", tuple(str(i) for i in range(1001)), "at most 1000"),
        ("heads", 5, "heads"),
        ("profile", "loud", "profile"),
        ("label_bias", (0.0,), "label_bias"),
    ],
)
def test_inconsistent_sizes_are_refused(field: str, value: Any, named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        replace(nano(WORDS), **{field: value})


def test_word_embeddings_of_a_base_are_copied_word_by_word(family: Family, tmp_path: Path) -> None:
    checkpoint.save(family, tmp_path)
    config: FamilyConfig = replace(family.config, words=(*family.config.words, "runs"))
    grown = Family(config)
    assert checkpoint.adopt(grown, tmp_path) == []
    torch.testing.assert_close(grown.embed.weight[: len(WORDS)], family.embed.weight, atol=1e-3, rtol=1e-2)
