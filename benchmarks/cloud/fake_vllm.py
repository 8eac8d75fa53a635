"""A server that answers completions requests as vLLM documents it, with transformers behind it; for tests and timings.

    POST /v1/completions: model, prompt_embeds (base64 of torch.save), max_tokens, temperature 0, logprobs,
                          logprob_token_ids, return_tokens_as_token_ids, stop_token_ids, return_token_ids

Written after vLLM's docs (features/prompt_embeds, serving/openai_compatible_server) and its public source
(entrypoints/openai/completion/protocol.py, renderers/embed_utils.py), which says what it refuses with status 400. It
has none of vLLM's speed: it is no measure of a GPU. What is not asked for here is not built.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wire.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FakeVllm"]

_PATH = "/v1/completions"


class FakeVllm:
    """The server, in threads of this process, for a `with` block.

    Attributes:
        url: Its address, up to /v1.
        requests: What was asked, parsed, oldest first.
        keeps: Whether `requests` grow.
        twist: Changes an answer before it is sent: what a hostile or broken server would say.
        canned: Answer with equal probabilities, without computing: what the way there and back costs.
    """

    def __init__(self, folder: Path, name: str, api_key: str = "") -> None:
        """Load the folder that `familial.model.causal_lm` wrote. name: as it is served; api_key: "" for none."""
        import torch
        from transformers import Qwen3ForCausalLM

        self._model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._name, self._key, self._lock = name, api_key, threading.Lock()
        self.requests = list[dict[str, Any]]()
        self.twist: Callable[[dict[str, Any]], Any] = lambda answer: answer
        self.canned, self.keeps = False, True
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, name="fake vllm", daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> FakeVllm:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, path: str, authorization: str, body: bytes) -> tuple[int, Any]:
        """The status and the document of an answer."""
        if self._key and authorization != f"Bearer {self._key}":
            return 401, {"error": "Unauthorized"}
        if path != _PATH:
            return 404, {"detail": "Not Found"}
        asked = json.loads(body)
        self.requests += [asked] if self.keeps else []
        if asked["model"] != self._name:
            return 404, _error(f"The model `{asked['model']}` does not exist.", "NotFoundError", 404)
        try:
            with self._lock:
                return 200, self.twist(self._complete(asked))
        except DataError as error:
            return 400, _error(str(error), "BadRequestError", 400)

    def _complete(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        given = asked["prompt_embeds"]
        prompts = [self._prompt(text) for text in (given if isinstance(given, list) else [given])]
        pairs = zip(prompts, self._first(prompts), strict=True)
        choices = [self._choice(number, *pair, asked) for number, pair in enumerate(pairs)]
        read, made = sum(map(len, prompts)), sum(len(choice.pop("made")) for choice in choices)
        usage = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
        about = {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": self._name}
        return {**about, "choices": choices, "usage": usage, "system_fingerprint": None}

    def _prompt(self, text: str) -> Tensor:
        """Decode a prompt as vLLM does; DataError for what it refuses."""
        import torch

        try:
            tensor = torch.load(io.BytesIO(base64.b64decode(text, validate=True)), weights_only=True)
        except (binascii.Error, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            raise DataError("`prompt_embeds` is no tensor") from error
        if not isinstance(tensor, torch.Tensor) or tensor.dim() != 2:
            raise DataError("`prompt_embeds` must be a 2D tensor of shape (num_tokens, hidden_size)")
        if tensor.shape[1] != self._model.config.hidden_size or not tensor.is_floating_point():
            raise DataError("`prompt_embeds` is not of the model's hidden_size, or of no floating-point type")
        return tensor.float()

    def _first(self, prompts: Sequence[Tensor]) -> list[Tensor]:
        """Log probabilities (V,) of the token after each prompt; prompts of one length in one forward."""
        import torch

        if self.canned:
            vocabulary = self._model.config.vocab_size
            return [torch.full((vocabulary,), 1.0 / vocabulary).log()] * len(prompts)
        found: dict[int, Tensor] = {}
        for length in {len(prompt) for prompt in prompts}:
            rows = [row for row, prompt in enumerate(prompts) if len(prompt) == length]
            with torch.inference_mode():
                logits = self._model(inputs_embeds=torch.stack([prompts[row] for row in rows]), use_cache=False).logits
            found |= dict(zip(rows, torch.log_softmax(logits[:, -1], dim=1), strict=True))
        return [found[row] for row in range(len(prompts))]

    def _choice(self, number: int, prompt: Tensor, first: Tensor, asked: Mapping[str, Any]) -> dict[str, Any]:
        ids = self._generate(prompt, first, asked["max_tokens"], asked.get("stop_token_ids") or [])
        choice: dict[str, Any] = {"index": number, "text": " ".join(map(str, ids)), "logprobs": None}
        if asked.get("logprobs") is not None:
            choice["logprobs"] = _logprobs(ids[0], first, asked.get("logprob_token_ids") or [])
        ended = len(ids) < asked["max_tokens"] or ids[-1] == self._model.config.eos_token_id
        choice |= {"finish_reason": "stop" if ended else "length", "stop_reason": None, "prompt_logprobs": None}
        returned = asked.get("return_token_ids")
        return choice | {"token_ids": ids if returned else None, "prompt_token_ids": None, "made": ids}

    def _generate(self, prompt: Tensor, first: Tensor, most: int, stop: Sequence[int]) -> list[int]:
        """Greedy tokens; first: log probabilities (V,) of the first."""
        import torch

        ids, hidden, ends = [int(first.argmax())], prompt, {*stop, self._model.config.eos_token_id}
        with torch.inference_mode():
            while len(ids) < most and ids[-1] not in ends:
                word = self._model.get_input_embeddings()(torch.tensor(ids[-1:]))
                hidden = torch.cat((hidden, word))
                ids.append(int(self._model(inputs_embeds=hidden[None], use_cache=False).logits[0, -1].argmax()))
        return ids


def _logprobs(own: int, step: Tensor, wanted: Sequence[int]) -> dict[str, Any]:
    """Of one token: the sampled one and those that were asked for, by `return_tokens_as_token_ids`."""
    return {
        "text_offset": [0],
        "token_logprobs": [float(step[own])],
        "tokens": [f"token_id:{own}"],
        "top_logprobs": [{f"token_id:{token}": float(step[token]) for token in (own, *wanted)}],
    }


def _error(message: str, kind: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _handler(server: FakeVllm) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one piece
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, document = server.answer(self.path, self.headers.get("Authorization", ""), body)
            sent = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
