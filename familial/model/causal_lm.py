"""`python -m familial.model.causal_lm`: a member's blocks and words as a Qwen3 folder for servers.

    checkpoint --blocks, norm, words, in their own number format--> config.json (Qwen3ForCausalLM), weights
               --vocab.json---------------------------------------> tokenizer.json: one word, one token
               --bias, temperature of the label logits------------> verdict.json: what no Qwen3 folder can hold
    adapter, tower: stay behind; who asks the server makes the prompts (cloud_bridge/inference/prompts.py)

The cloud member has all blocks and the words. The edge member (for TensorRT Edge-LLM, docs/serving.md) has the blocks
up to its exit, the exit's norm, and the exit's rows in place of the label tokens' rows of the word head; others are 0.

Qwen3-VL's text decoder is Qwen3's where all tokens are text: its three rotary positions are then one. So the next-token
logits after the tokens of the adapter are those of the family, as long as no release is missing between two others: a
server has no mask, so missing releases are left out, and those before them move one place nearer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor

from familial.model.checkpoint import checkpoint_hash
from familial.model.config import FamilyConfig
from familial.model.family import Family
from familial.model.packed import open_weights
from familial.model.vocabulary import END, FIRST_LABEL, PAD
from familial.model.weights import without_weights, write_weights
from wire.artifact.checkpoint import CONFIG
from wire.errors import CheckpointError, VeilsightError
from wire.files import write_whole

__all__ = ["MEMBERS", "main", "prompt_tokens", "served_name", "write_causal_lm"]

_CURE = "copy or train it again"
MEMBERS = ("cloud", "edge")
"""Whose blocks a folder may hold."""

_BLOCKS, _BRANCH, _HEAD = "backbone.layers.", "branch.layers.0.", "lm_head.weight"
_NAMES = {
    "cloud": {"norm.weight": "model.norm.weight", "head.weight": _HEAD},
    "edge": {"exit_norm.weight": "model.norm.weight", "exit_head.weight": _HEAD},
}
_EMBED = {"embed.weight": "model.embed_tokens.weight"}
_CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"  # exporters want one; nobody chats


def served_name(digest: str) -> str:
    """The name under which a server must serve the checkpoint of this hash, so that no other answers for it."""
    return f"veilsight-{digest[:16]}"


def prompt_tokens(config: FamilyConfig) -> int:
    """The most tokens of a prompt: those of all releases, the question, the label before a sentence."""
    return config.event_releases * config.release_tokens + 2


def write_causal_lm(checkpoint: Path, out: Path, member: str = "cloud") -> str:
    """Write the folder; its weights are read one by one.

    Args:
        checkpoint: a family with all blocks.
        out: the folder, made where it is not there.
        member: one of MEMBERS.

    Returns:
        The name to serve it under.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or of another version, or `out` cannot be written.
    """
    name = served_name(checkpoint_hash(checkpoint))
    config = FamilyConfig.load(checkpoint / CONFIG)
    if config.experts:
        raise CheckpointError(
            f"{checkpoint}: its blocks are mixtures of experts, a Qwen3 folder has none; use the bridge"
        )
    with without_weights():
        family = Family(config)
    weights = open_weights(checkpoint, config.quantization, family, _CURE)
    theirs = {served: found for found in weights.shapes if (served := _served(found, config, member))}
    blocks = {served.split(".")[2] for served in theirs if served.startswith("model.layers.")}
    if len(blocks) != _blocks(config, member):
        raise CheckpointError(f"{checkpoint}: holds {len(blocks)} blocks of {_blocks(config, member)}; {_CURE}")
    storage, table = getattr(torch, config.storage), (len(config.words), config.hidden)
    plan = {served: (weights.shapes[ours], storage) for served, ours in theirs.items()}
    plan |= {_HEAD: (table, storage)} if member == "edge" else {}

    def read(served: str) -> Tensor:
        found = weights.read(theirs[served])
        if served != _HEAD or member == "cloud":
            return found
        rows = torch.zeros(table, dtype=found.dtype)
        rows[FIRST_LABEL : FIRST_LABEL + len(config.labels)] = found
        return rows

    bias = weights.read("exit_head.bias").tolist() if member == "edge" else [0.0] * len(config.labels)
    verdict = {"first_label": FIRST_LABEL, "labels": config.labels, "bias": bias, "temperature": config.temperature}
    verdict |= {"label_bias": config.label_bias}  # (logits + bias) / temperature + label_bias
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "verdict.json", json.dumps(verdict, indent=1) + "\n")
        for file, content in _descriptions(config, member).items():
            write_whole(out / file, content)
        write_weights(out, plan, read)
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written ({error.strerror}); give another --out") from error
    return name


def _blocks(config: FamilyConfig, member: str) -> int:
    return config.layers if member == "cloud" else config.exit_at


def _served(name: str, config: FamilyConfig, member: str) -> str:
    """The name of one of our weights in the folder; "" for one that stays behind."""
    last = config.exit_at - 1
    branches = member == "edge" and config.exit_block == "branch"
    if branches and name.startswith(_BRANCH):
        return f"model.layers.{last}.{name.removeprefix(_BRANCH)}"
    if not name.startswith(_BLOCKS):
        return (_NAMES[member] | _EMBED).get(name, "")
    number = int(name.removeprefix(_BLOCKS).partition(".")[0])
    ours = number < _blocks(config, member) and not (branches and number == last)
    return f"model.{name.removeprefix('backbone.')}" if ours else ""


def _descriptions(config: FamilyConfig, member: str) -> dict[str, str]:
    """File name -> content of all files but the weights."""
    last = max(256, prompt_tokens(config) + config.caption_words)
    ends = {"eos_token_id": END, "pad_token_id": PAD}
    decoder: dict[str, Any] = {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "torch_dtype": config.storage,
        "vocab_size": len(config.words),
        "hidden_size": config.hidden,
        "intermediate_size": config.mlp,
        "num_hidden_layers": _blocks(config, member),
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads or config.heads,
        "head_dim": config.head_dim or config.hidden // config.heads,
        "hidden_act": "silu",
        "max_position_embeddings": last,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied and member == "cloud",
        "attention_bias": False,
        "bos_token_id": None,
        **ends,
    }
    words = {word: index for index, word in enumerate(config.words)}
    tokenizer = Tokenizer(WordLevel(words, unk_token=config.words[PAD]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": config.words[END],
        "pad_token": config.words[PAD],
        "unk_token": config.words[PAD],
        "model_max_length": last,
        "chat_template": _CHAT,
    }
    return {
        CONFIG: json.dumps(decoder, indent=1) + "\n",
        "generation_config.json": json.dumps(ends) + "\n",
        "tokenizer.json": tokenizer.to_str() + "\n",
        "tokenizer_config.json": json.dumps(about, indent=1) + "\n",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder and print how to serve it; the exit status is 0, or 1 with the reason in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m familial.model.causal_lm", description="Write a member's decoder as a Qwen3 folder for servers."
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"), help="default: checkpoints/nano")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--member", choices=MEMBERS, default="cloud", help="whose blocks (default: cloud)")
    args = parser.parse_args(argv)
    try:
        name = write_causal_lm(args.checkpoint, args.out, args.member)
    except VeilsightError as error:
        print(f"familial.model.causal_lm: {error}", file=sys.stderr)
        return 1
    print(f"written: {args.out}")
    if args.member == "cloud":
        print(f"vllm serve {args.out} --served-model-name {name} --enable-prompt-embeds --api-key ...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
