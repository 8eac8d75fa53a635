"""How vLLM is asked: prompt embeddings there, log probabilities of the next token back.

events --adapter, here--> prompts --POST /v1/completions--> log probabilities of labels and attributes --> readings
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cloud_bridge.inference.answers import logprobs_of, most_bytes, words_of
from cloud_bridge.inference.endpoint import Endpoint
from cloud_bridge.inference.member import Reading
from cloud_bridge.inference.prompts import PromptMaker
from cloud_bridge.ingest.events import Event

if TYPE_CHECKING:
    from familial.model.family import Family

__all__ = ["VllmDialect"]


class VllmDialect:
    """Asks a server that serves the family's blocks; see `Dialect`."""

    def __init__(self, family: Family, name: str, endpoint: Endpoint) -> None:
        """Ask nothing yet.

        Args:
            family: With its adapter.
            name: Under which the server serves the family's checkpoint.
            endpoint: The server.
        """
        self._family, self._name, self._endpoint = family, name, endpoint
        self._config, self._vocabulary = family.config, len(family.config.words)
        self._prompts = PromptMaker(family)

    async def questions(self, events: Sequence[Event]) -> list[tuple[Event, Reading]]:
        config, first = self._config, self._prompts.first
        wanted = range(first, first + len(config.labels) + len(config.attributes))
        fields = {"max_tokens": 1, "logprobs": 1, "logprob_token_ids": list(wanted), "return_tokens_as_token_ids": True}
        prompts = self._prompts.questions(events)
        if not prompts:
            return []
        body = await self._post(prompts, fields, most_bytes(len(prompts), len(wanted) + 1))
        rows = logprobs_of(body, self._name, len(prompts), wanted, self._vocabulary)
        return [(event, self._reading(row)) for (event, _), row in zip(prompts, rows, strict=True)]

    async def sentences(self, events: Sequence[Event], labels: Sequence[int]) -> list[tuple[Event, str]]:
        most = self._config.caption_words
        fields = {"max_tokens": most, "stop_token_ids": [self._prompts.end], "return_token_ids": True}
        prompts = self._prompts.sentences(events, labels)
        if not prompts:
            return []
        body = await self._post(prompts, fields, most_bytes(len(prompts), most))
        words = words_of(body, self._name, len(prompts), most, self._vocabulary)
        return [(event, self._family.vocabulary.decode(row)) for (event, _), row in zip(prompts, words, strict=True)]

    async def close(self) -> None:
        await self._endpoint.close()

    async def _post(self, prompts: Sequence[tuple[Event, str]], fields: dict[str, Any], most: int) -> bytes:
        asked = {"model": self._name, "prompt_embeds": [each for _, each in prompts], "temperature": 0.0, **fields}
        return await self._endpoint.ask(json.dumps(asked).encode(), most)

    def _reading(self, row: Sequence[float]) -> Reading:
        """Calibrate a row of log probabilities as the family does its logits, from which they differ by a constant."""
        config = self._config
        logits, shares = np.array(row[: len(config.labels)]), np.array(row[len(config.labels) :])
        probabilities = _softmax(logits / config.temperature + np.array(config.label_bias))
        return Reading(
            dict(zip(config.labels, probabilities, strict=True)),
            dict(zip(config.attributes, _softmax(shares), strict=True)),
        )


def _softmax(logits: np.ndarray[Any, Any]) -> list[float]:
    if not len(logits):
        return []
    odds = np.exp(logits - logits.max())
    found: list[float] = (odds / odds.sum()).tolist()
    return found
