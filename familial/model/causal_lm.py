"""`python -m familial.model.causal_lm`: the cloud member's blocks and words as a Qwen3 folder for servers.

    checkpoint --blocks, last norm, words, in their own number format--> config.json (Qwen3ForCausalLM), weights
               --vocab.json--------------------------------------------> tokenizer.json: one word, one token
    adapter, tower, exits: stay behind; who asks the server makes the prompts (cloud_bridge/inference/prompts.py)

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
from familial.model.vocabulary import END, PAD
from familial.model.weights import Weights, write_weights
from wire.artifact.checkpoint import CONFIG
from wire.errors import CheckpointError, VeilsightError
from wire.files import write_whole

__all__ = ["main", "prompt_tokens", "served_name", "write_causal_lm"]

_CURE = "copy or train it again"
_BLOCKS = "backbone.layers."
_NAMES = {
    "norm.weight": "model.norm.weight",
    "embed.weight": "model.embed_tokens.weight",
    "head.weight": "lm_head.weight",
}


def served_name(digest: str) -> str:
    """The name under which a server must serve the checkpoint of this hash, so that no other answers for it."""
    return f"veilsight-{digest[:16]}"


def prompt_tokens(config: FamilyConfig) -> int:
    """The most tokens of a prompt: those of all releases, the question, the label before a sentence."""
    return config.event_releases * config.release_tokens + 2


def write_causal_lm(checkpoint: Path, out: Path) -> str:
    """Write the folder; its weights are read one by one.

    Args:
        checkpoint: a family with all blocks.
        out: the folder, made where it is not there.

    Returns:
        The name to serve it under.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or of another version, or `out` cannot be written.
    """
    name = served_name(checkpoint_hash(checkpoint))
    config = FamilyConfig.load(checkpoint / CONFIG)
    weights = Weights.open(checkpoint, _CURE)
    theirs = {_served(found): found for found in weights.shapes if _served(found)}
    blocks = {served.split(".")[2] for served in theirs if served.startswith("model.layers.")}
    if len(blocks) != config.layers:
        raise CheckpointError(f"{checkpoint}: holds {len(blocks)} blocks of {config.layers}; {_CURE}")
    storage = getattr(torch, config.storage)
    plan = {served: (weights.shapes[ours], storage) for served, ours in theirs.items()}

    def read(served: str) -> Tensor:
        return weights.read(theirs[served])

    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, content in _descriptions(config).items():
            write_whole(out / file, content)
        write_weights(out, plan, read)
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written ({error.strerror}); give another --out") from error
    return name


def _served(name: str) -> str:
    """The name of one of our weights in the folder; "" for one that stays behind."""
    return f"model.{name.removeprefix('backbone.')}" if name.startswith(_BLOCKS) else _NAMES.get(name, "")


def _descriptions(config: FamilyConfig) -> dict[str, str]:
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
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads or config.heads,
        "head_dim": config.head_dim or config.hidden // config.heads,
        "hidden_act": "silu",
        "max_position_embeddings": last,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
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
        prog="python -m familial.model.causal_lm", description="Write the cloud member as a Qwen3 folder for servers."
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/nano"), help="default: checkpoints/nano")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    args = parser.parse_args(argv)
    try:
        name = write_causal_lm(args.checkpoint, args.out)
    except VeilsightError as error:
        print(f"familial.model.causal_lm: {error}", file=sys.stderr)
        return 1
    print(f"written: {args.out}; serve it with")
    print(f"vllm serve {args.out} --served-model-name {name} --enable-prompt-embeds --api-key ...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
