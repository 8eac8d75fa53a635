"""Events -> verdicts: the cloud member of the family, in torch, many events in one forward.

The bridge needs only the interface `Member`. torch is imported when a checkpoint is loaded, so that the rest of the
bridge, its tests and `--help` do not wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from cloud_bridge.ingest.events import Event
from wire.artifact.checkpoint import base_hash, checkpoint_hash
from wire.artifact.manifest import EngineManifest
from wire.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from familial.model.decoders.free_text import FreeText
    from familial.model.family import Family

__all__ = ["MAX_BATCH", "FamilyMember", "Member", "Reading", "event_tensors", "load_family"]

MAX_BATCH = 64
"""Events in a forward, at most."""


class Reading(NamedTuple):
    """The result of a member for an event.

    Attributes:
        probabilities: Label -> probability, in the model's order, summing to 1.
        attributes: Attribute -> share of the event's time, summing to 1; empty where the family has none.
        member: Whose exit it is: "cloud", or "edge" where the cloud's could not be asked.
    """

    probabilities: dict[str, float]
    attributes: Mapping[str, float] = MappingProxyType({})
    member: str = "cloud"


class Member(Protocol):
    """Reads events."""

    def read(self, events: Sequence[Event]) -> list[Reading]:
        """Return one reading for each event, in order."""

    def describe(self, events: Sequence[Event]) -> list[str]:
        """Return what happens in each of the events that were read last, in words; "" where that is not known.

        It takes about ten times as long as `read`.
        """


class FamilyMember:
    """The cloud member of a checkpoint: adapter and all decoder blocks.

    Args:
        family: With all blocks.
        free_text: Says the sentences in the words of the family's base; None: in the family's own.
    """

    def __init__(self, family: Family, free_text: FreeText | None = None) -> None:
        self._family, self._free_text = family, free_text
        self._labels, self._attributes = family.config.labels, family.config.attributes

    @classmethod
    def load(
        cls,
        checkpoint: Path | str,
        manifest: EngineManifest,
        threads: int = 0,
        quantized: str = "",
        free_text: str = "",
    ) -> FamilyMember:
        """Load the checkpoint that `manifest` names, or one quantised from it.

        Args:
            checkpoint: Its folder.
            manifest: Of the engine that the devices run.
            threads: torch's threads for the whole process; 0 leaves the choice to torch.
            quantized: Hash that a quantised checkpoint must have; "": none is loaded.
            free_text: Hash that the kept words of its base must have; "": sentences are the family's own.

        Raises:
            CheckpointError: The folder holds another checkpoint, or other words.
        """
        family = load_family(checkpoint, manifest, threads, quantized=quantized)
        return cls(family, _free_text(checkpoint, family, free_text) if free_text else None)

    def read(self, events: Sequence[Event]) -> list[Reading]:
        """Return one reading for each event, in order; at most 64 events in a forward."""
        return [reading for batch in _batches(events) for reading in self._forward(batch)]

    def describe(self, events: Sequence[Event]) -> list[str]:
        """Return what happens in each event, in words; at most 64 events in a forward."""
        import torch

        from familial.model.decoders.word_decoder import captions

        if self._free_text is not None:
            say = self._free_text.answers
            return [words for batch in _batches(events) for words in say(*event_tensors(batch))]
        with torch.inference_mode():
            return [words for batch in _batches(events) for words in captions(self._family, *event_tensors(batch))]

    def _forward(self, events: Sequence[Event]) -> list[Reading]:
        import torch

        with torch.inference_mode():
            logits, attribute_logits = self._family.cloud_and_attribute_logits(*event_tensors(events))  # (B, L), (B, A)
            rows, shares = (torch.softmax(each.double(), dim=1).tolist() for each in (logits, attribute_logits))
        return [
            Reading(dict(zip(self._labels, row, strict=True)), dict(zip(self._attributes, share, strict=True)))
            for row, share in zip(rows, shares, strict=True)
        ]


def load_family(
    checkpoint: Path | str, manifest: EngineManifest, threads: int, edge_only: bool = False, quantized: str = ""
) -> Family:
    """Load the checkpoint that `manifest` names, or one quantised from it; the rest is as in `FamilyMember.load`.

    Args:
        checkpoint: Its folder.
        manifest: Of the engine that the devices run.
        threads: torch's.
        edge_only: Without the blocks behind the edge's exit.
        quantized: Hash that a quantised checkpoint must have; "": none is loaded.

    Raises:
        CheckpointError: The folder holds another checkpoint, or a quantised one that nobody vouches for.
    """
    import torch

    from familial.model.checkpoint import load

    own, base = checkpoint_hash(checkpoint), base_hash(checkpoint)
    found = base or own
    if found != manifest.hashes["checkpoint"]:
        raise CheckpointError(
            f"{checkpoint}: its hash, or its base's, is {found[:12]}..., but the engine was built from "
            f"{manifest.hashes['checkpoint'][:12]}...; give the checkpoint of the engine, or build the engine again"
        )
    if base and own != quantized:  # that it is made of the engine's is what the folder itself says
        said = f"but [model] quantized is {quantized!r}" if quantized else "and no engine's signature covers it"
        raise CheckpointError(
            f"{checkpoint}: a quantised checkpoint with hash {own}, {said}; "
            f'where you made it, write quantized = "{own}"'
        )
    if threads:
        torch.set_num_threads(threads)
    return load(checkpoint, edge_only)


def _free_text(checkpoint: Path | str, family: Family, named: str) -> FreeText:
    """What says sentences in the base's words; CheckpointError unless the kept words have the hash `named`."""
    from familial.model.base_words import open_words
    from familial.model.decoders.free_text import FreeText

    return FreeText(family, open_words(checkpoint, family.config, named))


def _batches(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    return (events[start : start + MAX_BATCH] for start in range(0, len(events), MAX_BATCH))


def event_tensors(events: Sequence[Event]) -> tuple[Tensor, Tensor]:
    """z (B, R, K, d) int32 and present (B, R) bool of the events."""
    import torch

    z, present = (np.stack([getattr(event, name) for event in events]) for name in ("z", "present"))
    return torch.from_numpy(z), torch.from_numpy(present)
