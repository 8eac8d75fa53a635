"""Quantised members: integers as GPTQ chooses them, files that are checked, an edge that does not change."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from familial.model import checkpoint
from familial.model.causal_lm import served_name, write_causal_lm
from familial.model.config import Quantization
from familial.model.family import Family
from familial.model.members import CloudMember, EdgeMember
from familial.model.packed import PackedWeights, packed_names
from familial.model.weights import Weights
from familial.quantize.__main__ import main, quantised_member, write_quantised
from familial.quantize.calibration import quantise
from familial.quantize.member import MemberCalibration
from familial.quantize.rounding import gptq, nearest
from tests.support.family_factory import small_config
from tests.support.oracle import ask_oracle
from wire.artifact.checkpoint import CONFIG, WEIGHTS, base_hash, checkpoint_hash
from wire.errors import CheckpointError, ConfigError

NAME = "backbone.layers.1.mlp.down_proj.weight"


def test_the_integers_are_those_of_llmcompressor() -> None:
    for bits, ours, rounded in ask_oracle("llmcompressor", "gptq_values.py"):
        assert ours < 1e-6 < rounded, f"{bits} bits"


def inputs(seed: int, count: int, width: int) -> Tensor:
    """Correlated inputs (count, width), as a matrix reads them."""
    random = torch.Generator().manual_seed(seed)
    mixed = torch.randn(width, width, generator=random) * torch.linspace(0.1, 2.0, width)
    return torch.randn(count, width, generator=random) @ mixed


@pytest.mark.parametrize("bits", Quantization.BITS)
@pytest.mark.parametrize("group", [8, 24, 64])
def test_later_columns_make_up_for_earlier_ones(bits: int, group: int) -> None:
    read, weight = inputs(1, 500, 48), torch.randn(20, 48, generator=torch.Generator().manual_seed(2))

    def lost(made: Tensor) -> float:
        return float((read @ (made - weight).T).square().mean())

    compensated = gptq(weight, read.T @ read, bits, group)
    rounded = nearest(weight, bits, group)
    assert lost(compensated.floats(group)) < 0.8 * lost(rounded.floats(group))
    assert torch.equal(compensated.scale, rounded.scale) and torch.equal(compensated.zero, rounded.zero)
    assert int(compensated.values.max()) < 2**bits


def test_inputs_without_correlation_leave_nothing_to_make_up_for() -> None:
    weight = torch.randn(6, 32)
    assert torch.equal(gptq(weight, torch.diag(torch.rand(32) + 0.5), 4, 16).values, nearest(weight, 4, 16).values)
    assert torch.equal(gptq(weight, torch.zeros(32, 32), 4, 16).values, nearest(weight, 4, 16).values)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from(Quantization.BITS), st.integers(1, 40), st.integers(1, 9))
def test_rounding_is_off_by_half_a_step_at_most(seed: int, bits: int, columns: int, rows: int) -> None:
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=random) * 10.0 ** torch.randint(-6, 3, (rows, 1), generator=random)
    weight[:, ::3] = 0.0
    packed = nearest(weight, bits, 8)
    step = packed.scale.float()[:, torch.arange(columns) // 8]
    made = packed.floats(8)
    assert bool(((made - weight).abs() <= step * 1.001).all())  # half a step of the value, half of the zero point
    assert bool((made[weight == 0] == 0).all())


def test_a_hessian_that_is_not_finite_is_refused() -> None:
    hessian = torch.eye(16)
    hessian[3, 3] = float("nan")
    with pytest.raises(CheckpointError, match="not finite"):
        gptq(torch.randn(4, 16), hessian, 4, 8)


class LastToken:
    """One matrix of which a loss reads the last token alone; all others are large and mean nothing."""

    def __init__(self) -> None:
        torch.manual_seed(4)
        self.layer = nn.Linear(32, 16, bias=False)
        self.states = torch.cat((inputs(5, 128 * 7, 32).reshape(128, 7, 32) * 3.0, inputs(6, 128, 32)[:, None]), dim=1)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [nn.Sequential(self.layer)]

    def __len__(self) -> int:
        return 1

    def entering(self, batch: int) -> Tensor:
        return self.states

    def through(self, block: int, hidden: Tensor, batch: int) -> Tensor:
        out: Tensor = self.layer(hidden)
        return out

    def read(self, batch: int) -> Tensor:
        return torch.ones(128, 8, dtype=torch.bool)

    def losses(self, hidden: Tensor, batch: int) -> list[Tensor]:
        return [hidden[:, -1].square().sum()]


def test_tokens_on_which_nothing_hangs_do_not_decide() -> None:
    lost = {}
    for method in Quantization.METHODS:
        decoder = LastToken()
        before = decoder.layer(decoder.states)
        quantise(decoder, 3, 32, method)
        lost[method] = (decoder.layer(decoder.states) - before).detach().square().mean(dim=(0, 2))
    assert lost["vlmq"][-1] < 0.7 * min(lost["gptq"][-1], lost["nearest"][-1])
    assert lost["gptq"][:-1].mean() < 0.7 * min(lost["vlmq"][:-1].mean(), lost["nearest"][:-1].mean())


# --- members and their folders


def family_of(exit_block: str = "shared", tied: bool = True) -> Family:
    torch.manual_seed(2)
    config = dataclasses.replace(small_config(), layers=3, exit_at=1 + (exit_block == "branch"))
    config = dataclasses.replace(config, exit_block=exit_block, tied=tied, attributes=("empty", "one"))
    config = dataclasses.replace(config, words=(*config.words[:5], "<empty>", "<one>", *config.words[5:]))
    return Family(config).eval()


def events(family: Family, count: int = 40) -> tuple[Tensor, Tensor]:
    config, random = family.config, torch.Generator().manual_seed(7)
    shape = (count, config.event_releases, config.tokens, config.width)
    z = (torch.randn(shape, generator=random) * config.sigma).round()
    present = torch.rand(shape[:2], generator=random) < 0.9
    present[:, -1] = True
    return z * present[:, :, None, None], present


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Family]:
    """A checkpoint, one quantised from it, and the quantised family as it was in memory."""
    base, out = (tmp_path_factory.mktemp("quantised") / name for name in ("base", "out"))
    checkpoint.save(family_of(), base)
    family = checkpoint.load(base)
    how = Quantization(4, 8, "vlmq", checkpoint_hash(base))
    write_quantised(base, out, how, quantised_member(family, how, *events(family)))
    return base, out, family


def test_what_is_written_is_what_is_read(folders: tuple[Path, Path, Family]) -> None:
    base, out, family = folders
    found = checkpoint.load(out)
    assert found.config == family.config and found.config.quantization is None
    for name, value in family.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name
    changed = {
        n for n, value in checkpoint.load(base).state_dict().items() if not torch.equal(value, found.state_dict()[n])
    }
    assert changed == set(packed_names(family))
    packed = load_file(out / WEIGHTS)
    assert packed[f"{NAME}.packed"].shape == (32, 16) and packed[f"{NAME}.packed"].dtype == torch.uint8


@pytest.mark.parametrize("exit_block", ["shared", "branch"])
@pytest.mark.parametrize("bits", Quantization.BITS)
def test_the_edge_does_not_change_and_the_relay_is_exact(exit_block: str, bits: int, tmp_path: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    checkpoint.save(family_of(exit_block, tied=False), base)
    whole, family = checkpoint.load(base), checkpoint.load(base)
    how = Quantization(bits, 16, "nearest", checkpoint_hash(base))
    z, present = events(family)
    write_quantised(base, out, how, quantised_member(family, how, z, present))
    for edge_only in (False, True):
        assert torch.equal(checkpoint.load(out, edge_only).edge_logits(z, present), whole.edge_logits(z, present))
    read = checkpoint.load(out)
    state = EdgeMember(whole).exit_state(z, present)
    relayed = CloudMember(read).continue_from(state, present)
    assert torch.equal(relayed, read.cloud_logits(z, present))
    assert not torch.equal(relayed, whole.cloud_logits(z, present))


def test_it_is_another_checkpoint_and_says_of_which(folders: tuple[Path, Path, Family]) -> None:
    base, out, _ = folders
    assert checkpoint_hash(out) != checkpoint_hash(base) == base_hash(out)
    assert base_hash(base) == "" == base_hash(base / "nothing")
    served = out.parent / "served"
    assert write_causal_lm(out, served) == served_name(checkpoint_hash(out)) != served_name(checkpoint_hash(base))
    assert Weights.open(served, "").shapes["model.layers.1.mlp.down_proj.weight"] == (32, 32)


def spoiled(out: Path, folder: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """A copy of the quantised checkpoint whose tensors are changed."""
    folder.mkdir()
    for file in out.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(out / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    return folder


def put(part: str, value: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[f"{NAME}.{part}"] = value(tensors[f"{NAME}.{part}"]).contiguous()

    return change


def one(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor[3, 1] = value
        return tensor

    return change


HOSTILE = {
    "a scale that is no number": (
        put("scale", one(float("nan"))),
        r"down_proj.weight.scale: 1 numbers are not",
    ),
    "an infinite scale": (put("scale", one(float("inf"))), "weight.scale: 1 numbers"),
    "a negative scale": (put("scale", one(-1.0)), "weight.scale: 1 numbers"),
    "a scale of zero": (put("scale", one(0.0)), "weight.scale: 1 numbers"),
    "a scale in another format": (put("scale", lambda t: t.half()), r"weight.scale: is \(32, 4\) of F16, 4 bits want"),
    "too few scales": (put("scale", lambda t: t[:, :3]), r"weight.scale: is \(32, 3\) of BF16, 4 bits want \(32, 4\)"),
    "a zero point of more bits": (put("zero", one(16)), "weight.zero: holds 16, 4 bits end before it"),
    "zero points in floats": (put("zero", lambda t: t.float()), "weight.zero: is .* of F32"),
    "too many values": (put("packed", lambda t: torch.cat((t, t), dim=1)), r"weight.packed: is \(32, 32\) of U8"),
    "floats in place of values": (put("packed", lambda t: t.float()), "weight.packed: is .* of F32"),
    "a part that is missing": (lambda tensors: tensors.pop(f"{NAME}.zero"), "weight.zero: is not there"),
    "the matrix beside its parts": (lambda t: t.update({NAME: torch.zeros(32, 32)}), "unknown|misshapen|twice"),
    "parts of a matrix that is none": (lambda t: t.update({"embed.weight.zero": torch.zeros(2)}), "unknown"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_name(name: str, folders: tuple[Path, Path, Family], tmp_path: Path) -> None:
    change, words = HOSTILE[name]
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load(spoiled(folders[1], tmp_path / "spoiled", change))


def test_a_bit_behind_the_last_value_is_refused(tmp_path: Path) -> None:
    how = Quantization(3, 8, "nearest", "a" * 64)
    tensors = nearest(torch.randn(4, 10), 3, 8).tensors("m", 3)
    assert tensors["m.packed"].shape == (4, 4)  # 30 bits
    tensors["m.packed"][2, 3] |= 128
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"m.packed: a bit is set behind the last value of a row"):
        PackedWeights(Weights.open(tmp_path, "copy it"), how, {"m": (4, 10)}, "copy it").read("m")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from(Quantization.BITS), st.integers(1, 70), st.integers(1, 5))
def test_values_come_back_from_their_bits(seed: int, bits: int, columns: int, rows: int) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    packed = nearest(weight, bits, 16)

    class Held:
        tensors = packed.tensors("m", bits)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        formats = {"m.packed": "U8", "m.scale": "BF16", "m.zero": "U8"}

        def read(self, name: str) -> Tensor:
            return self.tensors[name]

    how = Quantization(bits, 16, "nearest", "a" * 64)
    found = PackedWeights(Held(), how, {"m": (rows, columns)}, "").read("m")  # type: ignore[arg-type]  # in memory
    assert torch.equal(found, packed.floats(16))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("bits", 5, "bits is 5, known are 2, 3, 4, 8"),
        ("bits", True, "bits is True"),
        ("group", 0, "group is 0, it must be 8 to 4096"),
        ("group", 1.5, "group is 1.5"),
        ("method", "magic", "method is 'magic'"),
        ("base", "abc", "base is 'abc', it must be a hash"),
        ("base", None, "base is None"),
        ("more", 1, "more"),
    ],
)
def test_a_config_of_nonsense_is_refused_by_name(
    field: str, value: object, words: str, folders: tuple[Path, Path, Family], tmp_path: Path
) -> None:
    folder = spoiled(folders[1], tmp_path / "spoiled", lambda tensors: None)
    config = json.loads((folder / CONFIG).read_text())
    config["quantization"][field] = value
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load(folder)


@pytest.mark.parametrize("value", ["3", "4", "[]", '{"base": "x"}', '{"base": 7}', "{}", '"no"'])
def test_a_base_that_is_no_hash_is_refused(value: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(f'{{"quantization": {value}}}')
    with pytest.raises(CheckpointError, match="quantization"):
        base_hash(tmp_path)


def test_a_family_that_was_read_is_saved_as_floats(folders: tuple[Path, Path, Family], tmp_path: Path) -> None:
    checkpoint.save(checkpoint.load(folders[1]), tmp_path / "again")
    assert base_hash(tmp_path / "again") == ""
    assert checkpoint.load(tmp_path / "again").config.quantization is None


def test_a_member_without_blocks_of_its_own_is_refused() -> None:
    family = Family(dataclasses.replace(small_config(), exit_at=2))
    with pytest.raises(ConfigError, match="exit_at is 2 of 2 blocks: none is left to be quantised"):
        MemberCalibration(family, *events(family))


def test_the_importance_is_of_what_the_member_says(folders: tuple[Path, Path, Family]) -> None:
    """At the last block nothing is read of the releases' outputs: they do not count in what follows attention."""
    family = copy.deepcopy(checkpoint.load(folders[0]))
    member = MemberCalibration(family, *events(family))
    from familial.quantize.calibration import _importance

    found = _importance(member)
    last, first = found[1, "mlp.down_proj", 0], found[1, "self_attn.v_proj", 0]
    releases = family.config.event_releases * family.config.release_tokens
    assert float(last[:, :releases].abs().max()) == 0.0 and float(first[:, :releases].max()) > 0.0
    assert float(last[:, releases].min()) > 0.0
    counted = member.read(0)
    assert float(last[~counted].abs().max()) == 0.0
    assert float(last.sum()) == pytest.approx(float(counted.sum()), rel=1e-4)


def test_the_command_writes_what_the_family_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    checkpoint.save(Family(small_config()).eval(), base)
    (base / "noise.json").write_text("{}")
    (base / "calibration.json").write_text("{}")
    argv = ["--checkpoint", str(base), "--bits", "3", "--group", "32", "--rendered", "2", "--noise-samples", "2"]
    assert main([*argv, "--out", str(out), "--processes", "1", "--threads", "1"]) == 0
    assert checkpoint_hash(out) in capsys.readouterr().out
    assert base_hash(out) == checkpoint_hash(base) and checkpoint.load(out).config.layers == 2
    assert f"of hash {base_hash(out)}" in (out / "README.md").read_text()
    assert (out / "noise.json").is_file() and not (out / "calibration.json").exists()
    for command, words in (
        (["--checkpoint", str(base), "--out", str(base)], "is --checkpoint itself"),
        (["--checkpoint", str(out), "--out", str(tmp_path / "twice")], "is quantised already"),
        (["--checkpoint", str(base), "--group", "7", "--out", str(tmp_path / "x")], "group is 7"),
    ):
        assert main(command) == 2
        assert words in capsys.readouterr().err
