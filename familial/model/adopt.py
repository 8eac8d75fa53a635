"""Make a family's checkpoint of a Qwen3-VL folder in Hugging Face form: 2B, 4B, 8B or 30B-A3B, sharded or not.

    config.json ----------sizes---------> FamilyConfig: tower "qwen", exits after one block and after all
    model*.safetensors ---tower, blocks, norm: copied tensor by tensor, in the base's own number format
    tokenizer.json -------each word of the family = the mean of its pieces' rows; without the file, fresh rows
    tokenizer files ------kept in base_words; with --free-text the base's word matrices, too (`model.base_words`)
    (fresh) --------------desensitizer, adapter, edge exit: to be trained with familial.train --base OUT

DeepStack is left out, since its features would bypass the desensitizer. Blocks of a mixture of experts are the cloud's
alone: the edge has a dense block, with the attention of the base's first and a feed-forward part that begins fresh.
The folder, memory and disk are checked before the first byte is written.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from familial.model.base_words import FOLDER, checked_files, read_tokenizer, words_hash, write_words
from familial.model.card import Card, write_card
from familial.model.checkpoint import plan_of, save_with
from familial.model.config import FamilyConfig, VisionSpec
from familial.model.family import Family
from familial.model.fresh import FRESH, fresh_parts
from familial.model.members import CloudMember, EdgeMember
from familial.model.resources import require_disk, require_memory
from familial.model.weights import SHARD_BYTES, Weights, without_weights
from wire.errors import CheckpointError, ConfigError, VeilsightError

__all__ = ["adopt_base", "family_config", "main"]

_CURE = "download the folder again"
_DENSE, _EXPERTS = "qwen3_vl", "qwen3_vl_moe"
_TOWER, _TEXT, _HEAD = "model.visual.", "model.language_model.", "lm_head.weight"
_TABLE = _TEXT + "embed_tokens.weight"
_IGNORED = (_TOWER + "deepstack_merger_list.",)
_FORMATS = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
_OF_EXPERTS = ".mlp.experts."
_SPREAD = 0.02  # of fresh matrices
_SAMPLE = 256  # rows whose spread is that of fresh words
_END, _TOKENIZER = "<|im_end|>", "tokenizer.json"


def family_config(base: Path, like: FamilyConfig, exit_at: int, exit_block: str, side: int | None) -> FamilyConfig:
    """Size a family like a Qwen3-VL folder.

    Args:
        base: the folder; its config.json gives the sizes of tower and backbone.
        like: gives window, labels, words and code.
        exit_at: the edge's exit is after so many blocks.
        exit_block: "shared" or "branch", as in `FamilyConfig`.
        side: frames are so many pixels square; None for `like`'s, rounded up to whole merged tokens.

    Raises:
        CheckpointError: another architecture, quantised weights, a field that is missing, something that this tower or
            decoder does not compute, or an exit out of range.
    """
    found = _architecture(base)
    text, eye = _Section(base, found, "text_config"), _Section(base, found, "vision_config")
    text.expect("hidden_act", "silu")
    text.expect("attention_bias", False, absent=True)
    vision = _vision(base, eye)
    window, experts = like.window, _experts(found, text)
    if experts and exit_block != "branch":
        raise CheckpointError(
            f"{base}: its blocks are mixtures of experts, which no edge holds; give --exit-block branch for a dense one"
        )
    return replace(
        like,
        family=f"{like.family}-{base.resolve().name}"[:60],
        window=replace(window, height=_side(window.height, vision, side), width=_side(window.width, vision, side)),
        tower="qwen",
        vision=vision,
        hidden=text.size("hidden_size"),
        layers=text.size("num_hidden_layers"),
        heads=text.size("num_attention_heads"),
        kv_heads=text.size("num_key_value_heads"),
        head_dim=text.size("head_dim"),
        mlp=text.size("intermediate_size"),
        rope_theta=_rope_theta(base, text),
        norm_eps=text.number("rms_norm_eps", text.get("rms_norm_eps", 1e-6)),
        tied=bool(found.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        exit_at=exit_at,
        exit_block=exit_block,
        storage=_storage(found, text),
        label_bias=(0.0,) * len(like.labels),
        decision_threshold=0.5,
        **experts,
    )


def _architecture(base: Path) -> dict[str, Any]:
    """The folder's config.json; CheckpointError where it is not an unquantised Qwen3-VL."""
    found = _read_json(base / "config.json")
    if found.get("model_type") not in (_DENSE, _EXPERTS):
        raise CheckpointError(
            f"{base}: model_type is {found.get('model_type')!r}; this adopts {_DENSE!r} (Qwen3-VL 2B, 4B, 8B) and "
            f"{_EXPERTS!r} (30B-A3B): give a folder of one of these"
        )
    if "quantization_config" in found:
        raise CheckpointError(
            f"{base}: config.json has a quantization_config; this adopts weights as they were trained (bfloat16): "
            "give that folder, and quantise in the end, with export.build_engine --precision int8"
        )
    return found


def _experts(found: Mapping[str, Any], text: _Section) -> dict[str, Any]:
    """The fields of `FamilyConfig` for a mixture of experts; none where blocks are dense."""
    if found["model_type"] == _DENSE:
        return {}
    text.expect("decoder_sparse_step", 1, absent=True)
    text.expect("norm_topk_prob", True, absent=True)
    if text.get("mlp_only_layers"):
        text.expect("mlp_only_layers", [])
    count = "num_experts" if text.get("num_experts") is not None else "num_local_experts"
    names = {"experts": count, "experts_chosen": "num_experts_per_tok", "expert_mlp": "moe_intermediate_size"}
    return {ours: text.size(theirs) for ours, theirs in names.items()}


def _vision(base: Path, eye: _Section) -> VisionSpec:
    """The sizes of the base's tower."""
    eye.expect("hidden_act", "gelu_pytorch_tanh")
    eye.expect("in_channels", 3, absent=True)
    mean, std = _colours(base)
    return VisionSpec(
        depth=eye.size("depth"),
        hidden=eye.size("hidden_size"),
        mlp=eye.size("intermediate_size"),
        heads=eye.size("num_heads"),
        out=eye.size("out_hidden_size"),
        positions=eye.size("num_position_embeddings"),
        patch=eye.size("patch_size"),
        merge=eye.size("spatial_merge_size"),
        temporal=eye.size("temporal_patch_size"),
        mean=mean,
        std=std,
    )


def _rope_theta(base: Path, text: _Section) -> float:
    """The base of the rotary positions, which have to be of the plain kind."""
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise CheckpointError(f"{base}: config.json: text_config.rope_parameters is {rope!r}, not a table; {_CURE}")
    if rope.get("rope_type", "default") != "default":
        raise CheckpointError(f"{base}: rope_type is {rope['rope_type']!r}; this decoder computes 'default' positions")
    return text.number("rope_theta", rope.get("rope_theta", text.get("rope_theta")))


class _Section:
    """One section of config.json. Its sizes are required: transformers' defaults are those of no released model."""

    def __init__(self, base: Path, found: Mapping[str, Any], name: str) -> None:
        self._where, self._name = f"{base}: config.json", name
        self._values = found.get(name)
        if not isinstance(self._values, dict):
            raise CheckpointError(f"{self._where} has no {name}; {_CURE}")
        self.get: Callable[..., Any] = self._values.get

    def size(self, key: str) -> int:
        """A positive whole number."""
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(f"{self._where}: {self._name}.{key} is {value!r}, not a size; {_CURE}")
        return value

    def number(self, key: str, value: object) -> float:
        """`value`, which has to be a positive number."""
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            raise CheckpointError(f"{self._where}: {self._name}.{key} is {value!r}, not a positive number; {_CURE}")
        return float(value)

    def expect(self, key: str, value: object, absent: bool = False) -> None:
        """CheckpointError unless `key` is `value`, or is not there where that means the same."""
        found = self.get(key, value if absent else None)
        if found != value:
            raise CheckpointError(f"{self._where}: {self._name}.{key} is {found!r}; this family computes {value!r}")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror}; give a folder in Hugging Face form with --base") from error
    except ValueError as error:
        raise CheckpointError(f"{file}: not readable as JSON ({error}); {_CURE}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{file}: not a JSON object; {_CURE}")
    return found


def _storage(found: Mapping[str, Any], text: _Section) -> str:
    """The number format of the base's weights, by its config; bfloat16 where that says none."""
    name = found.get("dtype") or found.get("torch_dtype") or text.get("dtype") or text.get("torch_dtype") or "bfloat16"
    return str(name)


def _colours(base: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per colour of the base's processor; 0.5, as Qwen's, where the folder has no file."""
    file = base / "preprocessor_config.json"
    found = _read_json(file) if file.is_file() else {}
    both = []
    for key in ("image_mean", "image_std"):
        values = found.get(key, [0.5, 0.5, 0.5])
        if not isinstance(values, list) or len(values) != 3 or not all(isinstance(v, int | float) for v in values):
            raise CheckpointError(f"{file}: {key} is {values!r}, not three numbers; {_CURE}")
        both.append(tuple(float(value) for value in values))
    return both[0], both[1]


def _side(pixels: int, vision: VisionSpec, asked: int | None) -> int:
    """`asked`, or the next length that is made of whole merged tokens."""
    return asked if asked is not None else -(-pixels // vision.grain) * vision.grain


@dataclass(frozen=True, slots=True)
class _Words:
    """How the family's word embeddings are initialised.

    Attributes:
        ids: for each word, the base's rows whose mean it becomes; empty for a fresh row.
    """

    ids: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, base: Path, kept: Mapping[str, bytes], words: Sequence[str], rows: int) -> _Words:
        """By the tokenizer.json among the files of `checked_files`; without one, all rows are fresh."""
        if _TOKENIZER not in kept:
            return cls(((),) * len(words))
        tokenizer, found = read_tokenizer(base / _TOKENIZER, kept[_TOKENIZER], rows), []
        for word in words:
            special = tokenizer.token_to_id(_END) if word == "<end>" else None
            text = " " + word.strip("<>")
            ids = [special] if special is not None else tokenizer.encode(text, add_special_tokens=False).ids
            found.append(tuple(ids) if word != "<pad>" else ())
        return cls(tuple(found))

    def rows(self, weights: Weights, name: str) -> Tensor:
        """The family's matrix (words, hidden) out of the base's, of which only these rows and a sample are read."""
        count = weights.shapes[name][0]
        sample = weights.rows(name, range(0, count, max(1, count // _SAMPLE))).float()
        made = torch.randn(len(self.ids), sample.shape[1]) * sample.std()
        for index, ids in enumerate(self.ids):
            if ids:
                made[index] = weights.rows(name, ids).float().mean(dim=0)
        return made


def adopt_base(base: Path, out: Path, config: FamilyConfig, free_text: bool = False) -> Family:
    """Write the checkpoint of a family sized by `config` (see `family_config`), with the weights of `base`.

    Args:
        base: the folder.
        out: where to.
        config: of the family.
        free_text: keep the base's word matrices beside its tokenizer.

    Returns:
        The family with names and shapes and no weights (`without_weights`).

    Raises:
        CheckpointError: the weights are damaged or contradict config.json, or memory or disk is too small. Nothing
            has been written then.
    """
    weights = Weights.open(base, _CURE)
    _check_outline(base, weights, config)
    with without_weights():
        family = Family(config)
    plan = plan_of(family)
    source = {name: _source(name, config) for name in plan if not _is_fresh(name, config)}
    _check_tensors(base, weights, {name: plan[name][0] for name in source}, source, config)
    turned = _experts_turned(weights, config)
    kept = checked_files(base, weights.shapes[_TABLE][0])
    if free_text and not kept:
        raise CheckpointError(f"{base}: no {_TOKENIZER}, without which there is no free text; {_CURE}")
    matrices = {"table": _TABLE} | ({} if config.tied else {"head": _HEAD}) if free_text else {}
    words = _Words.of(base, kept, config.words, weights.shapes[_TABLE][0])
    total = sum(torch.Size(shape).numel() * dtype.itemsize for shape, dtype in plan.values())
    total += sum(torch.Size(weights.shapes[name]).numel() for name in matrices.values()) * 2
    require_memory(2 * min(total, SHARD_BYTES) + 200_000_000, f"adopting {base}")
    require_disk(out, total + 10_000_000, f"adopting {base}")
    fresh = {name: value for name, value in fresh_parts(config).items() if name.startswith(FRESH)}

    def read(name: str) -> Tensor:
        if name in fresh:
            return fresh[name]
        if name not in source:
            return _fresh_matrix(name, plan[name][0])
        if source[name] in (_TABLE, _HEAD):
            return words.rows(weights, source[name])
        found = weights.read(source[name]).clone()  # a copy: a branch block and its origin share the mapped file
        return found.transpose(1, 2) if _OF_EXPERTS in name and turned else found

    save_with(config, out, plan, read)
    write_words(out, kept, {ours: weights.read(theirs) for ours, theirs in matrices.items()})
    return family


def _is_fresh(name: str, config: FamilyConfig) -> bool:
    """Whether the base has nothing for one of the family's weights."""
    return name.startswith(FRESH) or (config.experts > 0 and name.startswith("branch.layers.0.mlp."))


def _fresh_matrix(name: str, shape: tuple[int, ...]) -> Tensor:
    """Of the feed-forward part of a dense block beside experts: it adds nothing until it is trained."""
    return torch.zeros(shape) if name.endswith("down_proj.weight") else torch.randn(shape) * _SPREAD


def _source(name: str, config: FamilyConfig) -> str:
    """The base's name for one of the family's weights."""
    if name.startswith("tower.visual."):
        return _TOWER + name.removeprefix("tower.visual.")
    if name.startswith("branch.layers.0."):
        return f"{_TEXT}layers.{config.exit_at - 1}.{name.removeprefix('branch.layers.0.')}"
    if name == "embed.weight":
        return _TABLE
    return _HEAD if name == "head.weight" else _TEXT + name.removeprefix("backbone.")


def _check_outline(base: Path, weights: Weights, config: FamilyConfig) -> None:
    """Check each size of config.json on one tensor before a network is made: a wrong digit could ask for terabytes."""
    if config.vision is None:
        raise CheckpointError("tower is 'qwen', but there is no vision")
    eye, block, patch = config.vision, f"{_TEXT}layers.0.", f"{_TOWER}blocks.0."
    shapes = {
        f"{block}self_attn.q_proj.weight": (config.heads * config.head_dim, config.hidden),
        f"{block}self_attn.k_proj.weight": (config.kv_heads * config.head_dim, config.hidden),
        f"{block}self_attn.q_norm.weight": (config.head_dim,),
        f"{block}mlp.gate_proj.weight": (config.mlp, config.hidden),
        f"{patch}mlp.linear_fc1.weight": (eye.mlp, eye.hidden),
        f"{_TOWER}patch_embed.proj.weight": (eye.hidden, 3, eye.temporal, eye.patch, eye.patch),
        f"{_TOWER}pos_embed.weight": (eye.positions, eye.hidden),
        f"{_TOWER}merger.linear_fc2.weight": (eye.out, eye.hidden * eye.merge**2),
    }
    if config.experts:
        sizes = (config.expert_mlp, config.hidden)
        turned = _experts_turned(weights, config)
        shapes[f"{block}mlp.experts.down_proj"] = (config.experts, *(sizes if turned else reversed(sizes)))
    problems = [
        f"{name} is {weights.shapes[name]}, its sizes give {shape}"
        for name, shape in shapes.items()
        if weights.shapes.get(name, shape) != shape
    ]
    for prefix, count in ((f"{_TEXT}layers.", config.layers), (f"{_TOWER}blocks.", eye.depth)):
        held = {name.removeprefix(prefix).split(".")[0] for name in weights.shapes if name.startswith(prefix)}
        if len(held) != count:
            problems.append(f"{len(held)} of {prefix}* are there, its sizes give {count}")
    _refuse(base, problems)


def _experts_turned(weights: Weights, config: FamilyConfig) -> bool:
    """Whether the folder holds experts (in, out), as the published ones do, or (out, in), as transformers 5 writes."""
    block, wide = f"{_TEXT}layers.0{_OF_EXPERTS}", 2 * config.expert_mlp
    down, up = (weights.shapes.get(block + name) for name in ("down_proj", "gate_up_proj"))
    if config.expert_mlp != config.hidden:
        return down == (config.experts, config.expert_mlp, config.hidden)
    return up == (config.experts, config.hidden, wide)


def _refuse(base: Path, problems: Sequence[str]) -> None:
    """Raise CheckpointError where there are problems."""
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{base}: config.json and the tensors contradict each other: {'; '.join(problems[:3])}{more}; "
            "take both from one download"
        )


def _check_tensors(
    base: Path,
    weights: Weights,
    shapes: Mapping[str, tuple[int, ...]],
    source: Mapping[str, str],
    config: FamilyConfig,
) -> None:
    """Check that each weight has the shape that config.json gives, and that no other block or tensor is there."""
    problems, turned = [], _experts_turned(weights, config)
    format_ = _FORMATS[config.storage]
    for name, expected in shapes.items():
        found = weights.shapes.get(source[name])
        if _OF_EXPERTS in name and turned:
            expected = (expected[0], *reversed(expected[1:]))
        fits = found is not None and (
            len(found) == 2 and found[1] == expected[1] if source[name] in (_TABLE, _HEAD) else found == expected
        )
        if not fits:
            state = f"is {found}" if found is not None else "is not there"
            problems.append(f"{source[name]} {state}, its sizes give {expected}")
        elif weights.formats[source[name]] != format_:
            problems.append(f"{source[name]} holds {weights.formats[source[name]]}, its dtype is {config.storage}")
    known = {*source.values(), _TABLE, _HEAD}
    unknown = sorted(name for name in weights.shapes if name not in known and not name.startswith(_IGNORED))
    problems += [f"{name} is none of this architecture's {config.layers} blocks and tower" for name in unknown]
    _refuse(base, problems)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m familial.model.adopt", description="Make a family of a Qwen3-VL folder."
    )
    parser.add_argument("--base", type=Path, required=True, metavar="FOLDER", help="Qwen3-VL in Hugging Face form")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="checkpoint folder to write")
    parser.add_argument("--exit-block", default="shared", help="shared (the cloud's own) or branch (one beside it)")
    parser.add_argument("--exit-at", type=int, default=1, metavar="K", help="the edge's exit is after so many blocks")
    parser.add_argument(
        "--like",
        type=Path,
        default=Path("checkpoints/nano-motion"),
        metavar="FOLDER",
        help="take window, labels, words and code from this checkpoint's config.json",
    )
    parser.add_argument("--frame-size", type=int, metavar="PIXELS", help="frames of so many pixels square")
    parser.add_argument("--free-text", action="store_true", help="keep the base's word matrices, for free text")
    parser.add_argument("--seed", type=int, default=1, help="of the parts that begin fresh")
    args = parser.parse_args(argv)
    torch.manual_seed(args.seed)
    began = time.monotonic()
    try:
        if args.out.resolve() == args.base.resolve():
            raise ConfigError(f"--out {args.out} is the base itself; give another folder")
        like = FamilyConfig.load(args.like / "config.json")
        config = family_config(args.base, like, args.exit_at, args.exit_block, args.frame_size)
        print(
            f"adopting {args.base}: {config.layers} blocks of {config.hidden}, exits at {args.exit_at} and "
            f"{config.layers}, exit block {config.exit_block}",
            flush=True,
        )
        family = adopt_base(args.base, args.out, config, args.free_text)
    except VeilsightError as error:
        print(f"familial.model.adopt: {error}", file=sys.stderr)
        return 1
    print(write_card(args.out, Card("familial.model.adopt", config, base=args.base)), flush=True)
    words = "the base's tokenizer" if (args.base / _TOKENIZER).is_file() else "nothing: no tokenizer.json there"
    members = (EdgeMember(family), CloudMember(family))
    edge, cloud = (sum(weight.numel() for weight in member.parameters()) for member in members)
    print(f"edge member {edge / 1e6:,.2f} M weights, cloud member {cloud / 1e6:,.2f} M; words begin from {words}")
    if args.free_text:
        print(f'for free text: {args.out / FOLDER}; in a bridge, [model] free_text = "{words_hash(args.out)}"')
    print(f"fresh: desensitizer, adapter, edge exit; train them: python -m familial.train --base {args.out}")
    print(f"written: {args.out} in {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
