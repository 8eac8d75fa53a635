"""Run by a test in a process of its own, with trl on the path: losses of trl's GRPOTrainer and of ours on one batch.

A tiny causal model of random weights answers random prompts; the last line of the output is a JSON list of
[method, trl's loss, our loss].
"""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from familial.train.rl.objective import METHODS, Objective, chosen_tokens, policy_loss

__all__ = ["main"]

_PROMPTS, _GROUP, _PROMPT, _ANSWER, _WORDS = 3, 4, 5, 9, 40


def main() -> None:
    """Print the losses."""
    torch.manual_seed(3)
    model = _model()
    older, reference = _moved(model, 0.02), _moved(model, 0.05)
    prompts = torch.randint(3, _WORDS, (_PROMPTS, _PROMPT)).repeat_interleave(_GROUP, dim=0)
    answers = torch.randint(3, _WORDS, (_PROMPTS * _GROUP, _ANSWER))
    lengths = torch.randint(2, _ANSWER + 1, (_PROMPTS * _GROUP, 1))
    there = torch.arange(_ANSWER)[None] < lengths
    rewards = torch.rand(_PROMPTS, _GROUP).round(decimals=1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for method, objective in METHODS.items():
            chosen = chosen_tokens(rewards, there, objective)
            width = chosen.mask.shape[1]
            rows, cut = prompts[chosen.rows], (answers * there)[chosen.rows][:, :width]
            logs = [_log_probs(each, rows, cut) for each in (model, older, reference)]
            ours = policy_loss(logs[0], logs[1], logs[2], chosen.advantages, chosen.mask, objective)
            inputs = {
                "prompt_ids": rows,
                "prompt_mask": torch.ones_like(rows),
                "completion_ids": cut,
                "completion_mask": chosen.mask.long(),
                "advantages": chosen.advantages,
                "old_per_token_logps": logs[1],
                "ref_per_token_logps": logs[2],
                "num_items_in_batch": chosen.mask.sum(),
            }
            trainer = _trainer(model, objective, Path(folder) / method)
            trainer.model.train()
            trainer.current_gradient_accumulation_steps = 1
            found.append((method, float(trainer._compute_loss(trainer.model, inputs)), float(ours)))
    print(json.dumps(found))


def _model() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=_WORDS,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.3,
        pad_token_id=0,
        eos_token_id=1,
    )
    return Qwen3ForCausalLM(config)


def _moved(model: Any, by: float) -> Any:
    """A copy with other weights, near by."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += by * torch.randn_like(parameter)
    return other


def _log_probs(model: Any, prompts: Tensor, answers: Tensor) -> Tensor:
    """Log probabilities (N, W) of the answers' tokens."""
    with torch.no_grad():
        logits = model(torch.cat((prompts, answers), dim=1)).logits[:, prompts.shape[1] - 1 : -1]
    return torch.log_softmax(logits, dim=2).gather(2, answers[:, :, None])[:, :, 0]


def _trainer(model: Any, objective: Objective, folder: Path) -> Any:
    """trl's own trainer, told the numbers of `objective`."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    words = WordLevel({"<pad>": 0, "<end>": 1, "a": 2}, unk_token="a")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), pad_token="<pad>", eos_token="<end>")
    model.save_pretrained(folder / "model")  # trl loads its reference from there
    args = GRPOConfig(
        output_dir=str(folder),
        loss_type="dapo" if objective.token_level else "grpo",
        epsilon=objective.epsilon,
        epsilon_high=objective.epsilon_high,
        beta=objective.beta,
        per_device_train_batch_size=_GROUP,
        gradient_accumulation_steps=1,
        num_generations=_GROUP,
        max_completion_length=_ANSWER,
        use_bias_correction_kl=False,  # trl's default; not in GRPO's equation
        use_cpu=True,
        bf16=False,
        report_to=[],
    )
    return GRPOTrainer(
        model=type(model).from_pretrained(folder / "model"),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": ["a"] * 8}),
        processing_class=tokenizer,
    )


if __name__ == "__main__":
    main()
