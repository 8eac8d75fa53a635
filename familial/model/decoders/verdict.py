"""The verdict: a hidden state at the question token -> label logits at both exits, and logits of the attributes.

    state after the shared blocks --[branch block]--> norm, linear head --> edge label logits (B, L)
    state after the last block    --> norm, rows of the word head --> cloud label logits (B, L), attributes (B, A)

The cloud's verdict is its next token, read over the label tokens alone; an attribute is read over the attribute tokens.
Label logits of both exits are calibrated: divided by the config's `temperature`, then `label_bias` is added.
"""

from __future__ import annotations

from typing import Protocol, cast

from torch import Tensor, nn

from familial.model.config import FamilyConfig
from familial.model.decoders.sentence import WordHead, word_head
from familial.model.vocabulary import FIRST_LABEL

__all__ = ["CloudExit", "EdgeExit", "attribute_logits", "cloud_exit", "edge_exit"]


class EdgeExit(Protocol):
    """What `edge_exit` reads of a family or an edge member."""

    @property
    def config(self) -> FamilyConfig: ...
    @property
    def label_bias(self) -> Tensor: ...
    @property
    def branch(self) -> nn.Module | None: ...
    @property
    def exit_norm(self) -> nn.Module: ...
    @property
    def exit_head(self) -> nn.Module: ...


class CloudExit(WordHead, Protocol):
    """What `cloud_exit` reads of a family or a cloud member."""

    @property
    def label_bias(self) -> Tensor: ...


def edge_exit(member: EdgeExit, state: Tensor, present: Tensor) -> Tensor:
    """Label logits of the edge's exit.

    Args:
        member: the family or its edge member.
        state: float (B, R*T + 1, hidden), after the shared blocks; the branch block, if any, is applied here.
        present: bool (B, R), which releases arrived.

    Returns:
        Calibrated logits float (B, L).
    """
    if member.branch is not None:
        state = member.branch(state, present)
    return _calibrated(member, cast(Tensor, member.exit_head(member.exit_norm(state[:, -1]))))


def cloud_exit(member: CloudExit, state: Tensor) -> Tensor:
    """Label logits of the cloud's exit: the next token, over the label tokens.

    Args:
        member: the family or its cloud member.
        state: float (B, R*T + 1, hidden), after the last block.

    Returns:
        Calibrated logits float (B, L).
    """
    return _calibrated(member, _token_logits(member, state, FIRST_LABEL, len(member.config.labels)))


def attribute_logits(member: CloudExit, state: Tensor) -> Tensor:
    """Logits float (B, A) of the attributes; state as in `cloud_exit`. Their softmax is the share of time of each."""
    first = FIRST_LABEL + len(member.config.labels)
    return _token_logits(member, state, first, len(member.config.attributes))


def _token_logits(member: CloudExit, state: Tensor, first: int, count: int) -> Tensor:
    """Next-token logits (B, count) at the last token of `state`, over tokens first..first+count-1."""
    rows = word_head(member)[first : first + count]
    return cast(Tensor, member.norm(state[:, -1])) @ rows.T


def _calibrated(member: EdgeExit | CloudExit, logits: Tensor) -> Tensor:
    return logits / member.config.temperature + member.label_bias
