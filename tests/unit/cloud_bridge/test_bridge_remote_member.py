"""The cloud member on a server: it reads as this process does, and where it fails, the edge's exit reads."""

from __future__ import annotations

import base64
import dataclasses
import io
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.cloud.fake_vllm import FakeVllm
from cloud_bridge.config import ModelConfig
from cloud_bridge.inference.choice import open_member
from cloud_bridge.inference.endpoint import Endpoint
from cloud_bridge.inference.member import FamilyMember, Reading
from cloud_bridge.inference.prompts import PromptMaker
from cloud_bridge.inference.remote import RemoteMember
from cloud_bridge.inference.vllm import VllmDialect
from cloud_bridge.ingest.events import Event
from familial.model.causal_lm import served_name, write_causal_lm
from familial.model.checkpoint import checkpoint_hash, load, save
from familial.model.config import nano
from familial.model.family import Family
from tests.support.bridge_factory import make_manifest
from tests.support.hostile_http import WORST, hostile_server
from tests.support.services import PATIENCE_S
from wire.errors import CheckpointError, ConfigError

SPECIAL = ("<pad>", "<end>", "<normal>", "<fall>", "<fight>", "<empty>", "<low>")
WORDS = (*SPECIAL, "a", "falls", "person", "walks")
KEY = "a-key"


@dataclasses.dataclass(frozen=True)
class Served:
    """A checkpoint, the family in it, and the folder that a server loads."""

    checkpoint: Path
    family: Family
    folder: Path
    name: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """An untrained nano, its weights made larger so that readings and sentences differ."""
    torch.manual_seed(1)
    checkpoint, folder = tmp_path_factory.mktemp("checkpoint"), tmp_path_factory.mktemp("served")
    config = dataclasses.replace(
        nano(WORDS), attributes=("empty", "low"), label_bias=(0.0, 0.3, -0.2), temperature=1.5, tied=False
    )
    family = Family(config)
    with torch.no_grad():
        family.adapter.summary.weight.mul_(20.0)
    save(family, checkpoint)
    return Served(checkpoint, load(checkpoint), folder, write_causal_lm(checkpoint, folder))


@pytest.fixture(scope="module")
def running(served: Served) -> Iterator[FakeVllm]:
    with FakeVllm(served.folder, served.name, KEY) as server:
        yield server


@pytest.fixture
def server(running: FakeVllm) -> FakeVllm:
    running.twist = lambda answer: answer
    running.requests.clear()
    return running


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@contextmanager
def member_of(served: Served, url: str, answer_s: float = PATIENCE_S, key: str = KEY) -> Iterator[RemoteMember]:
    endpoint = Endpoint(url, key, ssl.create_default_context(), answer_s)
    family = load(served.checkpoint, True)
    with closing(RemoteMember(family, VllmDialect(family, served.name, endpoint), answer_s, Clock())) as member:
        yield member


@pytest.fixture
def member(served: Served, server: FakeVllm) -> Iterator[RemoteMember]:
    with member_of(served, f"{server.url}/completions") as found:
        yield found


def later(member: RemoteMember, seconds: float = 100.0) -> None:
    clock = member._clock
    assert isinstance(clock, Clock)
    clock.now_s += seconds


def events(count: int, holes: Callable[[int], list[int]] = lambda number: []) -> list[Event]:
    rng, found = np.random.default_rng(3), list[Event]()
    for number in range(count):
        present = np.ones(8, bool)
        present[holes(number)] = False
        z = rng.integers(-200, 200, (8, 4, 16)).astype(np.int32) * present[:, None, None]
        found.append(Event("lab/door", 1, number, number + 7, z, present))
    return found


def edge_readings(served: Served, of: list[Event]) -> list[Reading]:
    z, present = (torch.from_numpy(np.stack([getattr(event, name) for event in of])) for name in ("z", "present"))
    with torch.inference_mode():
        rows = torch.softmax(served.family.edge_logits(z, present).double(), dim=1).tolist()
    return [Reading(dict(zip(served.family.config.labels, row, strict=True)), member="edge") for row in rows]


def same(one: list[Reading], other: list[Reading]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(
        a.member == b.member
        and a.probabilities == pytest.approx(b.probabilities, abs=2e-5)
        and dict(a.attributes) == pytest.approx(dict(b.attributes), abs=2e-5)
        for a, b in pairs
    )


# --- the contract


def test_the_server_reads_as_this_process_does(served: Served, member: RemoteMember) -> None:
    here = FamilyMember(served.family)
    some = events(70, lambda number: list(range(number % 8)))  # missing at the beginning only: exact
    assert same(member.read(some), here.read(some)) and member.trouble == ""
    assert len({max(r.probabilities, key=r.probabilities.__getitem__) for r in here.read(some)}) > 1
    assert member.describe(some) == here.describe(some) and any(here.describe(some))
    assert member.read([]) == [] and member.describe([]) == []


def test_a_gap_moves_what_is_before_it_by_its_length_and_no_more(served: Served, member: RemoteMember) -> None:
    """The server has no mask: the prompt is the tokens of the releases that are there, as the adapter makes them."""
    some = events(2, lambda number: [3, 4])
    assert [reading.member for reading in member.read(some)] == ["cloud", "cloud"]
    z, present = (torch.from_numpy(np.stack([getattr(event, name) for event in some])) for name in ("z", "present"))
    tokens = served.family.adapter(z, present)
    kept = [row for row in range(33) if row // 4 not in (3, 4)]
    for number, prompt in enumerate(PromptMaker(served.family).questions(some)):
        assert torch.equal(decoded(prompt[1]), tokens[number, kept].detach())


def decoded(text: str) -> torch.Tensor:
    tensor = torch.load(io.BytesIO(base64.b64decode(text, validate=True)), weights_only=True)
    assert isinstance(tensor, torch.Tensor)
    return tensor


def test_what_is_asked_is_what_vllm_documents(served: Served, server: FakeVllm, member: RemoteMember) -> None:
    some = events(3)
    member.read(some)
    asked = server.requests[0]
    prompts = asked.pop("prompt_embeds")
    assert asked == {
        "model": served_name(checkpoint_hash(served.checkpoint)),
        "temperature": 0.0,
        "max_tokens": 1,
        "logprobs": 1,
        "logprob_token_ids": [2, 3, 4, 5, 6],
        "return_tokens_as_token_ids": True,
    }
    for prompt in prompts:
        assert decoded(prompt).shape == (33, 128) and decoded(prompt).dtype == torch.float32
        assert len(base64.b64decode(prompt)) < 33 * 128 * 4 + 4096  # not the tensor that it is a view of
    member.describe(some)
    assert server.requests[1]["max_tokens"] == 12 and server.requests[1]["stop_token_ids"] == [1]
    assert [decoded(prompt).shape for prompt in server.requests[1]["prompt_embeds"]] == [(34, 128)] * 3


def test_two_events_of_one_place_are_two(served: Served, member: RemoteMember) -> None:
    """What is read is told apart by the event itself, not by its name."""
    some = [dataclasses.replace(event, last_slot=7) for event in events(3)]
    assert same(member.read(some), FamilyMember(served.family).read(some))
    assert member.describe([some[2]]) == FamilyMember(served.family).describe([some[2]])
    assert member.describe(events(1)) == [""]  # it was not read


def test_many_events_are_asked_in_batches(server: FakeVllm, member: RemoteMember) -> None:
    assert {reading.member for reading in member.read(events(130))} == {"cloud"}
    assert sorted(len(asked["prompt_embeds"]) for asked in server.requests) == [2, 64, 64]


# --- a server that answers nonsense


def first(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """A twist that changes the first choice."""

    def twist(answer: dict[str, Any]) -> dict[str, Any]:
        change(answer["choices"][0])
        return answer

    return twist


def of_label(value: Any, label: str = "token_id:3") -> Callable[[dict[str, Any]], Any]:
    return first(lambda choice: choice["logprobs"]["top_logprobs"][0].update({label: value}))


NONSENSE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not JSON": lambda answer: b"<html>hello</html>",
    "nothing": lambda answer: b"",
    "a list": lambda answer: [answer],
    "deep": lambda answer: b'{"a":' * 50_000,
    "many values": lambda answer: answer | {"more": [0] * 10_000},
    "huge": lambda answer: answer | {"more": "x" * 10_000_000},
    "another model": lambda answer: answer | {"model": "another"},
    "no choices": lambda answer: answer | {"choices": None},
    "a choice too few": lambda answer: answer | {"choices": answer["choices"][1:]},
    "a choice too many": lambda answer: answer | {"choices": [*answer["choices"], answer["choices"][0]]},
    "an index twice": first(lambda choice: choice.update(index=1)),
    "an index that is none": first(lambda choice: choice.update(index=[0])),
    "no logprobs": first(lambda choice: choice.update(logprobs=None)),
    "two tokens": first(lambda choice: choice["logprobs"]["top_logprobs"].append({})),
    "no label": first(lambda choice: choice["logprobs"]["top_logprobs"][0].pop("token_id:3")),
    "no attribute": first(lambda choice: choice["logprobs"]["top_logprobs"][0].pop("token_id:6")),
    "NaN": of_label(float("nan")),
    "endless": of_label(float("-inf")),
    "more than certain": of_label(0.7),
    "a sum of more than 1": lambda answer: of_label(-0.01)(of_label(-0.01, "token_id:2")(answer)),
    "a text": of_label("-1.0"),
    "a truth": of_label(False),
    "a wrong label": of_label(-9.0, "token_id:11"),
    "a label by name": of_label(-9.0, "fall"),
    "a negative token": of_label(-9.0, "token_id:-1"),
    "digits": of_label(-9.0, "token_id:" + "1" * 5000),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_of_nonsense_nothing_is_believed(
    served: Served, server: FakeVllm, member: RemoteMember, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    some = events(3)
    server.twist = NONSENSE[case]
    assert same(member.read(some), edge_readings(served, some))
    assert member.trouble and "hello" not in member.trouble and member.trouble in caplog.text
    assert member.describe(some) == [""] * 3
    asked = len(server.requests)
    assert same(member.read(some), edge_readings(served, some)) and len(server.requests) == asked  # left alone
    server.twist = lambda answer: answer
    later(member)
    assert {reading.member for reading in member.read(some)} == {"cloud"} and member.trouble == ""
    assert "answers again" in caplog.text


ENDLESS = ("no answer", "a head that drips", "a body that drips", "nothing but Continue")


@pytest.mark.parametrize("worst", WORST)
def test_a_server_that_does_its_worst_costs_a_deadline_and_no_more(served: Served, worst: str) -> None:
    some, endless = events(3), worst in ENDLESS
    with hostile_server(WORST[worst]) as (url, requests):
        with member_of(served, url, answer_s=0.5 if endless else PATIENCE_S) as member:
            began = time.monotonic()
            assert same(member.read(some), edge_readings(served, some)) and member.trouble
            assert time.monotonic() - began < PATIENCE_S / 2
            seen = len(requests)
            member.read(some)
            assert len(requests) == seen  # left alone
        assert seen in (1, 2) and not any(b"cookie" in request.lower() for request in requests)


def test_nobody_there_is_no_answer(served: Served) -> None:
    with member_of(served, "http://127.0.0.1:9/v1/completions") as member:
        assert member.read(events(1))[0].member == "edge" and member.trouble == "ConnectError"


def test_a_sentence_of_strange_words_is_none(server: FakeVllm, member: RemoteMember) -> None:
    some = events(2)
    for words in (None, [7, 99], [7.0], ["7"], [True], [7] * 13, "7"):
        later(member)
        member.read(some)
        server.twist = first(lambda choice, words=words: choice.update(token_ids=words))  # type: ignore[misc]
        assert member.describe(some) == ["", ""] and member.trouble
        server.twist = lambda answer: answer


# --- attempts


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_may_help_is_tried_once_more(
    server: FakeVllm, member: RemoteMember, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    answer = server.answer
    refusals: Iterator[tuple[int, Any]] = iter([(status, {})])
    monkeypatch.setattr(server, "answer", lambda *asked: next(refusals, None) or answer(*asked))
    assert member.read(events(1))[0].member == "cloud" and member.trouble == ""


def test_pauses_grow_and_end(served: Served) -> None:
    with hostile_server(WORST["closes"]) as (url, requests), member_of(served, url) as member:
        pauses = list[float]()
        for _ in range(8):
            later(member)
            member.read(events(1))
            pauses.append(member._pause_s)
        assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0] and len(requests) == 16


def test_a_wrong_key_or_model_is_not_tried_again(served: Served, server: FakeVllm) -> None:
    with member_of(served, f"{server.url}/completions", key="another") as member:
        assert member.read(events(1))[0].member == "edge" and member.trouble == "it answers with status 401"
    with member_of(dataclasses.replace(served, name="another"), f"{server.url}/completions") as member:
        assert member.read(events(1))[0].member == "edge" and member.trouble == "it answers with status 404"
    assert len(server.requests) == 1


def test_one_cameras_releases_do_not_keep_others_from_being_read(server: FakeVllm, member: RemoteMember) -> None:
    """A device can sign any z. Its event is not sent; the others are."""
    mad = Event("lab/mad", 1, 0, 7, np.full((8, 4, 16), 2**31 - 1, np.int32), np.ones(8, bool))
    readings = member.read([*events(2), mad])
    assert [reading.member for reading in readings] == ["cloud", "cloud", "edge"] and member.trouble == ""
    assert len(server.requests[0]["prompt_embeds"]) == 2
    assert member.describe([mad]) == [""] and [each.member for each in member.read([mad])] == ["edge"]
    assert len(server.requests) == 1


# --- the configuration


def test_one_line_of_the_configuration_chooses_the_server(served: Served, server: FakeVllm, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{KEY}\n")
    token.chmod(0o600)
    manifest = make_manifest(checkpoint=checkpoint_hash(served.checkpoint))
    config = ModelConfig(
        checkpoint=str(served.checkpoint),
        member=f"vllm+{server.url}",
        member_token_file=str(token),
        member_timeout_s=PATIENCE_S,
    )
    with open_member(config, manifest) as member:
        assert member.read(events(1))[0].member == "cloud"
    with open_member(dataclasses.replace(config, member=""), manifest) as member:
        assert isinstance(member, FamilyMember)
    token.write_text("two words\n")
    with pytest.raises(ConfigError, match="member_token_file .*: no token"), open_member(config, manifest):
        pass
    with (
        pytest.raises(ConfigError, match="member_ca"),
        open_member(dataclasses.replace(config, member_token_file="", member_ca=str(token)), manifest),
    ):
        pass
    with (
        pytest.raises(CheckpointError, match="give the checkpoint of the engine"),
        open_member(dataclasses.replace(config, member_token_file=""), make_manifest()),
    ):
        pass


@pytest.mark.parametrize(
    ("member", "hint"),
    [
        ("http://127.0.0.1:8000/v1", "member is none that is known"),
        ("triton+http://127.0.0.1:8000/v1", "member is none that is known"),
        ("vllm+http://127.0.0.1:8000/v1?x=y", "member is none that is known"),
        ("vllm+http://gpu.example:8000/v1", r"member begins with http://.*member_insecure = true"),
        ("vllm+https://me:hidden@gpu.example/v1", "member has a name or a password in it"),
        ("vllm+https:///v1", "member is no address"),
        ("vllm+ftp://127.0.0.1/v1", "member begins with ftp://"),
        ("ray://ray.example:8000", r"member begins with http://.*ray\+https://.*member_insecure = true"),
        ("ray+https://me:hidden@ray.example", "member has a name or a password in it"),
        ("ray:///", "member is no address"),
        ("rays://127.0.0.1:8000", "member is none that is known"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(member: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint) as error:
        ModelConfig(member=member)
    assert "hidden" not in str(error.value)


def test_the_address_is_completed() -> None:
    assert ModelConfig(member="vllm+http://localhost:8000").member_url == "http://localhost:8000/v1/completions"
    assert ModelConfig(member="vllm+https://a.example/x/v1/").member_url == "https://a.example/x/v1/completions"
    assert ModelConfig(member="vllm+http://gpu:1/v1", member_insecure=True).member_url == "http://gpu:1/v1/completions"
    assert ModelConfig(member="ray://127.0.0.1:8000").member_url == "http://127.0.0.1:8000/"
    assert ModelConfig(member="ray+https://a.example/x/").member_url == "https://a.example/x/"
    assert ModelConfig().member_url == ""
