"""A LoRA of an adopted family: it changes nothing at first, trains what it should, merges as peft does, and is refused
beside another base."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.broker import ROOT
from familial.data import sources as sources_module
from familial.data.sources import rendered_clips
from familial.data.splits import clip_seeds
from familial.model import checkpoint, lora, resources
from familial.model.config import FamilyConfig
from familial.model.family import Family
from familial.model.steps import direct, recomputed, set_step, stepping
from familial.model.towers.base import Tower
from familial.train import memory, progress
from familial.train.lora import __main__ as command
from familial.train.lora import loop
from familial.train.lora.peers import Peers
from familial.train.memory import training_bytes
from familial.train.sampling import BatchSource
from familial.train.stages import step_losses
from tests.support.clip_factory import cache_clips_in
from tests.support.qwen_factory import adopted_family
from wire.errors import CheckpointError, ConfigError

RANK = 4
PRESENT = torch.ones(3, 8, dtype=torch.bool)


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adopted_family(tmp_path_factory.mktemp("adopted"))


@pytest.fixture
def family(adopted: Path) -> Family:
    return lora.opened_with_lora(adopted, checkpoint.opened(adopted)[0], RANK)


@pytest.fixture(scope="module")
def trained(adopted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Family]:
    """The folder of a LoRA that does something, and the family with it."""
    family = lora.opened_with_lora(adopted, checkpoint.opened(adopted)[0], RANK)
    _disturb(family)
    folder = tmp_path_factory.mktemp("lora")
    lora.save_lora(family, folder, adopted, checkpoint.checkpoint_hash(adopted))
    return folder, family


def _disturb(family: Family) -> None:
    torch.manual_seed(3)
    with torch.no_grad():
        for value in family.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) * 0.05)


def _inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Frames, z, words."""
    made = torch.Generator().manual_seed(7)
    frames = torch.randint(0, 256, (2, 8, 64, 64), dtype=torch.uint8, generator=made)
    z = torch.randint(-200, 200, (3, 8, 4, 16), generator=made)
    return frames, z, torch.randint(2, 9, (3, 5), generator=made)


@torch.no_grad()
def _outputs(family: Family) -> list[Tensor]:
    frames, z, words = _inputs()
    return [family.features(frames), *family.both_exits(z, PRESENT, words)[:3]]


def _loss(family: Family) -> Tensor:
    frames, z, words = _inputs()
    edge, cloud, following, _ = family.both_exits(z + family.features(frames).mean(), PRESENT, words)
    return torch.stack([each.square().mean() for each in (edge, cloud, following)]).sum()


def test_a_fresh_lora_changes_nothing(adopted: Path, family: Family) -> None:
    """In float32 to the last bit; in bfloat16, as it trains, to that format's rounding."""
    base = _outputs(checkpoint.load(adopted))
    set_step(family, recomputed("cpu", True))
    assert lora.in_bf16(family)
    for ours, theirs in zip(_outputs(family), base, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.01 * float(theirs.abs().max()), rtol=0.0)
    set_step(family.float(), direct)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(_outputs(family), base, strict=True))


def test_what_is_trained_gets_a_gradient_and_nothing_else_does(adopted: Path, family: Family) -> None:
    """LoRA of every block of tower and backbone, desensitizer, adapter, exits, words: both exits in one forward."""
    set_step(family, recomputed("cpu", True))
    before = {name: value.clone() for name, value in family.named_parameters()}
    optimiser = torch.optim.AdamW([each for each in family.parameters() if each.requires_grad], lr=1e-3)
    for _ in range(2):  # the first moves B from zero, the second A too
        optimiser.zero_grad()
        _loss(family).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    moved = {name for name, value in family.named_parameters() if not torch.equal(value, before[name])}
    wanted = {name for name in before if ".lora_" in name or name.startswith(("desensitizer.", "lifter.", "exit_"))}
    assert moved == wanted | {"embed.weight", "head.weight"}
    frozen, count = lora.weights_of(family.config, RANK)
    assert count == sum(each.numel() for each in family.parameters() if each.requires_grad)
    assert frozen == sum(each.numel() * each.element_size() for each in family.parameters() if not each.requires_grad)
    for part in ("tower.visual.blocks.1.attn.qkv", "tower.visual.merger.linear_fc2", "branch.layers.0.mlp.up_proj"):
        assert f"{part}.lora_A.default.weight" in wanted
    assert all(f"backbone.layers.{block}.self_attn.o_proj.lora_B.default.weight" in wanted for block in range(3))


def test_recomputation_gives_the_same_gradients_and_keeps_less(family: Family) -> None:
    _disturb(family.float())
    gradients, kept = list[list[Tensor]](), list[int]()
    for step in (direct, recomputed("cpu", False)):
        set_step(family, step)
        family.zero_grad()
        sizes = list[int]()

        def keep(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = _loss(family)
        kept.append(sum(sizes))
        loss.backward()  # type: ignore[no-untyped-call]
        gradients.append([each.grad.clone() for each in family.parameters() if each.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert kept[1] < kept[0] / 3


def test_a_temporal_patch_that_several_windows_see_is_computed_once(family: Family) -> None:
    set_step(family.float(), direct)
    frames = torch.randint(0, 256, (2, 12, 64, 64), dtype=torch.uint8)
    index = torch.stack([torch.arange(first, first + 8) for first in (0, 2, 4)])
    seen = list[int]()
    tokens = family.tower.tokens
    family.tower.tokens = lambda each: (seen.append(each.shape[1]), tokens(each))[1]  # type: ignore[operator, assignment, func-returns-value]
    with torch.no_grad():
        ours = family.tower.sequence(frames, index)
        assert seen == [12]
        theirs = Tower.sequence(family.tower, frames, index)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_merged_checkpoint_computes_what_peft_computes(
    adopted: Path, trained: tuple[Path, Family], tmp_path: Path
) -> None:
    """peft's own loader on the base reads the folder, and its own merge gives each matrix to the last bits."""
    from peft import PeftModel

    folder, family = trained
    assert lora.main(["--base", str(adopted), "--lora", str(folder), "--out", str(tmp_path / "out")]) == 0
    merged = checkpoint.load(tmp_path / "out")
    by_peft = PeftModel.from_pretrained(checkpoint.load(adopted), str(folder)).base_model.model
    theirs = _outputs(by_peft)
    set_step(family, recomputed("cpu", True))
    for ours, expected in zip(_outputs(merged), theirs, strict=True):
        torch.testing.assert_close(ours, expected, atol=0.01 * float(expected.abs().max()), rtol=0.0)
    assert (
        max(
            float((each - base).abs().max())
            for each, base in zip(theirs, _outputs(checkpoint.load(adopted)), strict=True)
        )
        > 0.1
    )
    found, base = lora.Lora.load(folder), checkpoint.load(adopted)
    layer = by_peft.backbone.layers[2].mlp.down_proj
    layer.merge()
    ours = found.added_to("backbone.layers.2.mlp.down_proj.weight", base.backbone.layers[2].mlp.down_proj.weight)  # type: ignore[union-attr, arg-type]
    torch.testing.assert_close(ours, layer.base_layer.weight, atol=1e-6, rtol=1e-6)
    state = load_file(tmp_path / "out" / "model.safetensors")
    assert state["backbone.layers.0.mlp.up_proj.weight"].dtype == torch.bfloat16
    assert "lora" not in " ".join(state)


def test_more_words_and_labels_begin_fresh_and_the_rest_is_the_bases(adopted: Path, tmp_path: Path) -> None:
    config = checkpoint.opened(adopted)[0]
    family = lora.opened_with_lora(adopted, replace(config, words=(*config.words, "stands")), RANK)
    base = checkpoint.load(adopted)
    assert family.embed.weight.shape[0] == len(config.words) + 1
    assert torch.equal(family.embed.weight[:-1], base.embed.weight)
    lora.save_lora(family, tmp_path / "lora", adopted, checkpoint.checkpoint_hash(adopted))
    lora.merge(adopted, tmp_path / "lora", tmp_path / "out")
    assert checkpoint.load(tmp_path / "out").config.words[-1] == "stands"


# --- what is refused


def _metadata(**changes: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() | changes
        save_file(load_file(file), file, metadata=metadata)

    return change


def _tensor(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], object]:
    def changed(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
        state = load_file(file)
        change(state)
        save_file(state, file, metadata=metadata)

    return changed


def _described(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


A = "base_model.model.backbone.layers.0.mlp.up_proj.lora_A.weight"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another base": (_metadata(base="0" * 64, base_name="qwen-4b"), "was trained on 'qwen-4b' (000000000000)"),
    "no base": (_metadata(base=""), "does not say which base"),
    "a name with a line break": (_metadata(base="0" * 64, base_name="a\nb"), "was trained on 'a?b'"),
    "a tensor is missing": (_tensor(lambda state: state.pop(A)), "does not fit its config.json: backbone.layers.0"),
    "a tensor too many": (
        _tensor(lambda state: state.update(more=torch.zeros(2))),
        "does not fit its config.json: more",
    ),
    "another shape": (_tensor(lambda state: state.update({A: torch.zeros(3, 48)})), "does not fit its config.json"),
    "no numbers": (_tensor(lambda state: state[A].fill_(torch.nan)), "numbers that are not finite"),
    "integers": (_tensor(lambda state: state.update({A: torch.zeros(4, 48).int()})), "does not fit its config.json"),
    "cut": (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"\1\2"), "missing, cut or damaged"),
    "no description": (lambda folder: (folder / "adapter_config.json").unlink(), "not readable as JSON"),
    "another kind": (_described(peft_type="IA3"), "not a LoRA of this family"),
    "other matrices": (_described(target_modules=["q_proj"]), "not a LoRA of this family"),
    "DoRA": (_described(use_dora=True), "use_dora is set"),
    "another scale": (_described(use_rslora=True), "use_rslora is set"),
    "a bias": (_described(bias="all"), "bias is set"),
    "a rank that is none": (_described(r=0), "r, lora_alpha are (0, 8), not ranks"),
    "another rank": (_described(r=8), "does not fit its config.json"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_lora_that_does_not_fit_is_refused_before_anything_is_written(
    what: str, adopted: Path, trained: tuple[Path, Family], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, says = REFUSED[what]
    folder = Path(shutil.copytree(trained[0], tmp_path / "lora"))
    change(folder)
    assert lora.main(["--base", str(adopted), "--lora", str(folder), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("familial.model.lora: ") and says in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_what_is_read_is_never_written_over(adopted: Path, trained: tuple[Path, Family]) -> None:
    for out in (adopted, trained[0]):
        assert lora.main(["--base", str(adopted), "--lora", str(trained[0]), "--out", str(out)]) == 1


def test_a_lora_needs_a_qwen_tower_a_rank_and_memory(
    small_checkpoint: Path, adopted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="its tower is 'snippets'; a LoRA is for an adopted Qwen3-VL"):
        lora.opened_with_lora(small_checkpoint, FamilyConfig.load(small_checkpoint / "config.json"), RANK)
    config = checkpoint.opened(adopted)[0]
    for rank in (0, 4096):
        with pytest.raises(ConfigError, match=f"--rank {rank}"):
            lora.opened_with_lora(adopted, config, rank)
    monkeypatch.setattr(resources, "available_memory", lambda: 1000)
    with pytest.raises(CheckpointError, match="with a LoRA of rank 4 needs 0.0 GB of memory"):
        lora.opened_with_lora(adopted, config, RANK)


# --- the command


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.getbasetemp() / "lora" / "cache"
    for module in (sources_module, progress):
        monkeypatch.setattr(module, "CACHE", folder)
    cache_clips_in(folder, monkeypatch)


def _options(adopted: Path, out: Path, *more: str) -> list[str]:
    small = ["--rank", "4", "--threads", "1", "--processes", "1", "--batch-size", "2"]
    return ["--base", str(adopted), "--out", str(out), "--rendered", "30", *small, *more]


@pytest.mark.usefixtures("own_cache")
def test_the_command_trains_calibrates_and_merges(
    adopted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base stays as it is; what is merged is the base and lora/; a second run goes on where the first stopped."""
    before = checkpoint.checkpoint_hash(adopted)
    monkeypatch.setattr(progress.Curve, "due", lambda _: True)
    assert command.main(_options(adopted, tmp_path / "out", "--steps", "3")) == 0
    said = capsys.readouterr().out
    assert "LoRA of rank 4 on" in said and "3 steps in" in said
    assert checkpoint.checkpoint_hash(adopted) == before
    found = lora.Lora.load(tmp_path / "out" / "lora")
    assert found.config == checkpoint.load(tmp_path / "out").config and found.base_hash == before
    assert any(float(value.abs().max()) > 0 for name, value in found.tensors.items() if "lora_B" in name)
    assert command.main(_options(adopted, tmp_path / "out", "--steps", "4", "--resume")) == 0
    assert "resumed at step 3" in capsys.readouterr().out
    assert command.main(_options(adopted, adopted, "--steps", "3")) == 2
    assert command.main(_options(adopted, tmp_path / "out", "--steps", "0")) == 2


@pytest.mark.usefixtures("own_cache")
def test_a_loss_that_is_not_finite_stops_the_command_and_changes_nothing(
    adopted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, families = step_losses, list[Family]()

    def spoiled(family: Family, *args: Any) -> Any:
        losses, linked = real(family, *args)
        families.append(family)
        return losses | {"size": torch.tensor(torch.nan)}, linked

    monkeypatch.setattr(loop, "step_losses", spoiled)
    assert command.main(_options(adopted, tmp_path / "out", "--steps", "3")) == 2
    assert "step 0: the loss is nan; the last good state is" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert all(not value.any() for name, value in families[0].named_parameters() if "lora_B" in name)


@pytest.mark.usefixtures("own_cache")
def test_too_little_memory_is_found_before_the_first_step(
    adopted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 1000)
    assert command.main(_options(adopted, tmp_path / "out", "--steps", "3")) == 2
    assert "training a LoRA of rank 4" in capsys.readouterr().err


def _source(family: Family) -> BatchSource:
    config = family.config
    clips = list(rendered_clips(clip_seeds("training", 6), config.labels, config.window, 1))
    args = command._parser().parse_args(_options(Path(), Path()))
    return BatchSource(config, clips, command._train_config(args, Peers(0, 1, "cpu")))


@pytest.mark.usefixtures("own_cache")
def test_freed_arrays_go_back_to_the_system() -> None:
    """In a process of its own: 40 arrays of 8 MB between others, freed; one heap would keep the gaps."""
    code = """
import sys, torch
from benchmarks.model.streamed_blocks import resident
from familial.model.resources import map_large_arrays
if sys.argv[1] == "mapped":
    assert map_large_arrays()
for _ in range(2):
    torch.ones(6_000_000)  # 24 MB, freed: glibc's limit rises to that
many = [torch.ones(2_000_000) for _ in range(40)]
many = many[1::2]
print(resident()[0])
"""
    kept = dict[str, int]()
    for how in ("mapped", "heap"):
        done = subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=True, cwd=ROOT)
        kept[how] = int(done.stdout)
    assert kept["mapped"] < kept["heap"] - 100_000_000  # half of 320 MB were freed, and are gaps in the heap


def test_recomputed_blocks_are_counted_by_what_enters_them(family: Family) -> None:
    """Asked for is less than where the inside of every block is kept."""
    source, counted = _source(family), list[int]()
    for step in (direct, recomputed("cpu", False)):
        with stepping(family.float(), step):
            counted.append(training_bytes(family, source))
    assert counted[1] < 0.9 * counted[0]  # two and three blocks; the inside of one, twice


@pytest.mark.usefixtures("own_cache")
def test_what_was_counted_is_let_go(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that its own operation saves must not be held by the count: it would stay for the whole training."""
    seen = list[weakref.ref[Tensor]]()
    keep = memory._Saved.keep

    def watched(self: Any, tensor: Tensor) -> Tensor:
        seen.append(weakref.ref(tensor))
        return keep(self, tensor)

    monkeypatch.setattr(memory._Saved, "keep", watched)
    own = {id(each) for each in (*family.parameters(), *family.buffers())}
    with stepping(family.float(), direct):
        training_bytes(family, _source(family))
    own |= {id(each) for each in (*family.parameters(), *family.buffers())}
    assert seen and not [each for ref in seen if (each := ref()) is not None and id(each) not in own]
