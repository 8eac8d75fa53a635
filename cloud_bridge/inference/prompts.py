"""Events -> prompt embeddings for a server: the adapter runs here, and nothing else leaves.

    events --z, present--> adapter --> tokens (B, R*T + 1, hidden) --without those of missing releases--> one each
    tokens (N, hidden) --checked: shape, number format, finite--> torch.save --> base64

vLLM reads `prompt_embeds` with `torch.load(weights_only=True)`, and a server that runs a model on a tensor of another
width or with a NaN in it may answer nonsense or crash. So a tensor is made here of an event that was verified, never
taken from a message, and checked once more before it is sent. z has left its device noised: a server learns from a
prompt no more than the broker knows.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from cloud_bridge.inference.member import event_tensors
from cloud_bridge.ingest.events import Event
from wire.errors import RemoteError

if TYPE_CHECKING:
    from torch import Tensor

    from familial.model.family import Family

__all__ = ["PromptMaker", "encode"]

_LARGEST = 1e4  # far above what an adapter makes of noise; a server may compute in float16, which ends at 65,504


class PromptMaker:
    """Makes the prompts of one family.

    Attributes:
        first: The id of the first label's token; the other labels follow, then the attributes.
        end: The id of the token that ends a sentence.
    """

    def __init__(self, family: Family) -> None:
        from familial.model.causal_lm import prompt_tokens
        from familial.model.vocabulary import END, FIRST_LABEL

        self._family, self._most = family, prompt_tokens(family.config)
        self.first, self.end = FIRST_LABEL, END

    def questions(self, events: Sequence[Event]) -> list[tuple[Event, str]]:
        """Each event with a prompt whose next token is its label; without those whose prompt must not be sent."""
        return self._encoded(events, self._rows(events))

    def sentences(self, events: Sequence[Event], labels: Sequence[int]) -> list[tuple[Event, str]]:
        """The same, with prompts whose next token is the first word. labels: index of the label of each event."""
        with torch.inference_mode():
            words = self._family.embed(torch.tensor([self.first + label for label in labels], dtype=torch.int64))
        pairs = zip(self._rows(events), words, strict=True)
        return self._encoded(events, [torch.cat((rows, word[None])) for rows, word in pairs])

    def _rows(self, events: Sequence[Event]) -> list[Tensor]:
        """Tokens (N, hidden) of each event: those of its releases that are there, then the question."""
        z, present = event_tensors(events)
        with torch.inference_mode():
            tokens = self._family.adapter(z, present)
        kept = present.repeat_interleave(self._family.config.release_tokens, dim=1)
        kept = torch.cat((kept, torch.ones(len(events), 1, dtype=torch.bool)), dim=1)
        return [rows[keep] for rows, keep in zip(tokens, kept, strict=True)]

    def _encoded(self, events: Sequence[Event], prompts: Sequence[Tensor]) -> list[tuple[Event, str]]:
        found = list[tuple[Event, str]]()
        for event, rows in zip(events, prompts, strict=True):
            with suppress(RemoteError):  # one camera's releases must not keep those of others from being read
                found.append((event, encode(rows, self._family.config.hidden, self._most)))
        return found


def encode(tokens: Any, hidden: int, most: int) -> str:
    """Check a prompt and write it as vLLM reads it: base64 of what `torch.save` makes.

    Args:
        tokens: float32 (N, hidden), 1 to `most` rows.
        hidden: Width of the served model.
        most: Rows.

    Raises:
        RemoteError: It is anything else, or holds what is not finite in float16.
    """
    if not isinstance(tokens, torch.Tensor) or tokens.layout != torch.strided:
        raise RemoteError("a prompt is no dense tensor; it was not sent")
    if tokens.ndim != 2 or tokens.shape[1] != hidden or not 1 <= tokens.shape[0] <= most:
        raise RemoteError(f"a prompt has shape {tuple(tokens.shape)}, not (1 to {most}, {hidden}); it was not sent")
    if tokens.dtype != torch.float32:
        raise RemoteError(f"a prompt is of {tokens.dtype}, not torch.float32; it was not sent")
    if not bool((tokens.abs() <= _LARGEST).all()):  # a NaN is not
        raise RemoteError(f"a prompt holds a number beyond {_LARGEST:g}, or none; it was not sent")
    whole, file = tokens.detach().cpu().clone(memory_format=torch.contiguous_format), io.BytesIO()
    torch.save(whole, file)  # of a view, the tensor behind it would be written too
    return base64.b64encode(file.getvalue()).decode()
