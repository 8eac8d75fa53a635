"""Reads what a server answers to completions requests: hostile text, bounded and checked field by field.

    bytes --bounded_json--> model, choices 0..B-1 --logprobs of the tokens that were asked for--> (B, tokens)
                                                  --ids of the words, all of the vocabulary-----> (B, words)

The form is that of vLLM's Completions API with `logprob_token_ids`, `return_tokens_as_token_ids` and `return_token_ids`
(vllm/entrypoints/openai/completion/protocol.py). A server that does not know these fields leaves something out, and is
refused like one that lies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from wire.bounded_json import read_json
from wire.errors import RemoteError

__all__ = ["logprobs_of", "most_bytes", "words_of"]

_DEPTH = 8
_HEAD, _CHOICE, _TOKEN = 4096, 2048, 128  # bytes of an answer, of one of its choices, of one of its tokens, at most
_KEY = re.compile(r"token_id:(0|[1-9][0-9]{0,8})")
_LEAST = -1e5  # of a log probability; vLLM writes -9999 for less
_ROUNDING = 1e-3  # by which probabilities may sum to more than 1, in a server's half precision


def most_bytes(count: int, tokens: int) -> int:
    """How long an answer may be, for `count` choices of `tokens` tokens each."""
    return _HEAD + count * (_CHOICE + _TOKEN * tokens)


def logprobs_of(body: bytes, model: str, count: int, wanted: Sequence[int], vocabulary: int) -> list[list[float]]:
    """Read the log probabilities of the next token.

    Args:
        body: The answer.
        model: Whose it must be.
        count: Choices that were asked for.
        wanted: The ids that were asked for.
        vocabulary: Tokens of the model.

    Returns:
        One list for each choice, in the order of `wanted`.

    Raises:
        RemoteError: The answer is not one.
    """
    tokens = len(wanted) + 1  # the server adds the one that it chose
    return [_logprobs(choice, wanted, vocabulary) for choice in _choices(body, model, count, tokens)]


def words_of(body: bytes, model: str, count: int, most: int, vocabulary: int) -> list[list[int]]:
    """Read sentences as the ids of their words, at most `most` each. The rest is as in `logprobs_of`."""
    found = [choice.get("token_ids") for choice in _choices(body, model, count, most)]
    for ids in found:
        if not isinstance(ids, list) or len(ids) > most or not all(type(each) is int for each in ids):
            raise RemoteError(f"a choice has no token_ids, or more than {most}; is the server vLLM, and not too old?")
        if not all(0 <= each < vocabulary for each in ids):
            raise RemoteError(f"a word is none of the {vocabulary} tokens of the model")
    return found  # type: ignore[return-value]  # checked above


def _choices(body: bytes, model: str, count: int, tokens: int) -> list[Mapping[str, Any]]:
    """The choices, in the order in which they were asked for."""
    values = 64 + count * (64 + 8 * tokens)
    try:
        answer = read_json(body, most_bytes(count, tokens), _DEPTH, values)
    except (ValueError, RecursionError) as error:
        raise RemoteError("its answer is no JSON object, or too long or too deep") from error
    if answer.get("model") != model:
        raise RemoteError(f"its answer is of another model than {model}; serve the checkpoint of the engine")
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all(isinstance(each, dict) for each in choices):
        raise RemoteError("its answer has no choices")
    by_index = {each.get("index"): each for each in choices if type(each.get("index")) is int}
    if len(choices) != count or by_index.keys() != set(range(count)):
        raise RemoteError(f"its answer has {len(choices)} choices, or numbers them wrong; {count} were asked for")
    return [by_index[number] for number in range(count)]


def _logprobs(choice: Mapping[str, Any], wanted: Sequence[int], vocabulary: int) -> list[float]:
    logprobs = choice.get("logprobs")
    top = logprobs.get("top_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(top, list) or len(top) != 1 or not isinstance(top[0], dict):
        raise RemoteError("a choice has no top_logprobs of one token; is the server vLLM, and not too old?")
    found = {_token(key, vocabulary): _value(value) for key, value in top[0].items()}
    missing = [token for token in wanted if token not in found]
    if missing:
        raise RemoteError(f"token {missing[0]} was asked for and is not there; does vLLM know logprob_token_ids?")
    if sum(map(math.exp, found.values())) > 1.0 + _ROUNDING:
        raise RemoteError("its probabilities sum to more than 1")
    return [found[token] for token in wanted]


def _token(key: str, vocabulary: int) -> int:
    match = _KEY.fullmatch(key)
    if match is None or int(match[1]) >= vocabulary:
        raise RemoteError(f"a token is none of the {vocabulary} of the model")
    return int(match[1])


def _value(value: Any) -> float:
    if type(value) not in (int, float) or not _LEAST <= value <= _ROUNDING:
        raise RemoteError("a log probability is none")
    return float(value)
