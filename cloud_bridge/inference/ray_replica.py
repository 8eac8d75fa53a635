"""A replica of the cloud member on Ray Serve: a process with the checkpoint, on any node of the cluster.

    HTTP --token, question--> what waits together, in one forward --> answers

It answers for one checkpoint, the one with the hash that it was deployed for. Everything that comes by HTTP is hostile.
"""

from __future__ import annotations

import hmac
from pathlib import Path

import torch
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from cloud_bridge.inference.member import FamilyMember, Reading
from cloud_bridge.inference.ray_forms import SENTENCES, Question
from cloud_bridge.inference.ray_member import form_of
from familial.model.checkpoint import load
from wire.artifact.checkpoint import checkpoint_hash
from wire.errors import CheckpointError, ConfigError
from wire.files import read_trusted

__all__ = ["AT_ONCE", "Replica"]

AT_ONCE = 16
"""Questions that a replica takes at once: those that wait are read in one forward."""


class Replica:
    """Holds a checkpoint and answers questions about events."""

    def __init__(self, checkpoint: str, digest: str, threads: int, token_file: str) -> None:
        """Load the checkpoint.

        Args:
            checkpoint: Its folder, on this node.
            digest: The hash that it must have.
            threads: torch's.
            token_file: File on this node whose one line a question must show as `Authorization: Bearer`; "": none.

        Raises:
            CheckpointError: The folder of this node holds another checkpoint.
            ConfigError: The token cannot be read.
        """
        found = checkpoint_hash(checkpoint)
        if found != digest:
            raise CheckpointError(
                f"{checkpoint}: its hash is {found[:12]}... on this node, but {digest[:12]}... was deployed; "
                "copy the same checkpoint to every node"
            )
        torch.set_num_threads(threads)
        family = load(checkpoint)
        self._member, self._form = FamilyMember(family), form_of(family, digest)
        self._expected = f"Bearer {_token(token_file)}".encode() if token_file else b""
        self._read = serve.batch(self._together, max_batch_size=AT_ONCE, batch_wait_timeout_s=0.0)

    async def __call__(self, request: Request) -> Response:
        """Answer a question."""
        shown = request.headers.get("Authorization", "").encode(errors="replace")
        if self._expected and not hmac.compare_digest(shown, self._expected):
            return Response(status_code=401)
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self._form.most_asked:
                return Response(status_code=413)
        try:
            question = self._form.asked(bytes(body))
        except (ValueError, RecursionError) as error:
            return Response(str(error)[:200], 400, media_type="text/plain")
        if question.checkpoint != self._form.checkpoint:
            return Response(self._form.answer(question.ask, None), media_type="application/json")
        return Response(await self._read(question), media_type="application/json")

    async def _together(self, questions: list[Question]) -> list[bytes]:
        """Answer all that wait; equal to answering each alone, to float32's last bits."""
        answers = dict[int, bytes]()
        for ask in {question.ask for question in questions}:
            numbers = [number for number, question in enumerate(questions) if question.ask == ask]
            events = [event for number in numbers for event in questions[number].events]
            found = self._member.describe(events) if ask == SENTENCES else self._member.read(events)
            rows = iter(list[Reading | str](found))
            for number in numbers:
                answers[number] = self._form.answer(ask, [next(rows) for _ in questions[number].events])
        return [answers[number] for number in range(len(questions))]


def _token(file: str) -> str:
    try:
        token = read_trusted(Path(file)).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {file}: {error}") from error
    if not token:
        raise ConfigError(f"--token-file {file}: no token; write one line into it")
    return token
