"""The member on Ray Serve: what is asked and answered, against anything at all; the replica and its command."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_bridge.inference import ray_serve
from cloud_bridge.inference.member import FamilyMember, Reading
from cloud_bridge.inference.ray_forms import READINGS, SENTENCES, Form
from cloud_bridge.inference.ray_member import form_of
from cloud_bridge.ingest.events import Event
from familial.model.checkpoint import load, save
from familial.model.config import nano
from familial.model.family import Family
from tests.support.any_json import ANY_JSON
from wire.artifact.checkpoint import checkpoint_hash
from wire.errors import CheckpointError, ConfigError, RemoteError

SPECIAL = ("<pad>", "<end>", "<normal>", "<fall>", "<fight>", "<empty>", "<low>")
WORDS = (*SPECIAL, "a", "falls", "person", "walks")
FORM = Form("ab" * 32, (3, 2, 2), ("normal", "fall"), ("low", "empty"), frozenset({"a", "person", "falls"}), 4)


def events(count: int, shape: tuple[int, int, int] = FORM.shape) -> list[Event]:
    rng, found = np.random.default_rng(5), list[Event]()
    for number in range(count):
        present = np.array([release != number % shape[0] for release in range(shape[0])])
        z = rng.integers(-(2**31), 2**31, shape, np.int64).astype(np.int32) if number % 2 else np.zeros(shape, np.int32)
        found.append(Event("lab/door", 1, number, number + 2, z, present))
    return found


def test_a_question_arrives_as_it_was_asked() -> None:
    some = events(64)
    question = FORM.asked(FORM.question(READINGS, some))
    assert (question.checkpoint, question.ask) == (FORM.checkpoint, READINGS)
    assert all(np.array_equal(a.z, b.z) for a, b in zip(question.events, some, strict=True))
    assert all(np.array_equal(a.present, b.present) for a, b in zip(question.events, some, strict=True))
    assert {event.camera for event in question.events} == {""}  # nobody there knows whose it is
    assert len(FORM.question(SENTENCES, some)) <= FORM.most_asked < 64 * 1024


def test_an_answer_arrives_as_it_was_made() -> None:
    made = [
        Reading({"normal": 1 / 3, "fall": 2 / 3}, {"low": 0.1, "empty": 0.9}),
        Reading({"normal": 0.0, "fall": 1.0}, {"low": 1.2345678901234567e-300, "empty": 1.0}),
    ]
    assert FORM.readings(FORM.answer(READINGS, made), 2) == made
    assert FORM.sentences(FORM.answer(SENTENCES, ["a person falls", ""]), 2) == ["a person falls", ""]


def good() -> dict[str, Any]:
    return {"checkpoint": FORM.checkpoint, "readings": [[[0.25, 0.75], [0.5, 0.5]], [[1, 0], [0.0, 1.0]]]}


def reading(value: Any) -> dict[str, Any]:
    return good() | {"readings": [value, good()["readings"][1]]}


NONSENSE: dict[str, Any] = {
    "no JSON": b"<html>hello</html>",
    "nothing": b"",
    "a list": [good()],
    "deep": b'{"a":' * 50_000,
    "huge": good() | {"more": "x" * 100_000},
    "many values": good() | {"more": [0] * 500},
    "another checkpoint": good() | {"checkpoint": "cd" * 32},
    "another checkpoint, honestly": {"checkpoint": "cd" * 32},
    "no readings": {"checkpoint": FORM.checkpoint},
    "one too few": good() | {"readings": good()["readings"][:1]},
    "one too many": good() | {"readings": [*good()["readings"], good()["readings"][0]]},
    "no attributes": reading([[0.25, 0.75]]),
    "a label too few": reading([[1.0], [0.5, 0.5]]),
    "a label too many": reading([[0.25, 0.25, 0.5], [0.5, 0.5]]),
    "a sum of more than 1": reading([[0.5, 0.75], [0.5, 0.5]]),
    "a sum of less than 1": reading([[0.25, 0.5], [0.5, 0.5]]),
    "negative": reading([[-0.5, 1.5], [0.5, 0.5]]),
    "NaN": reading([[math.nan, 0.5], [0.5, 0.5]]),
    "endless": reading([[math.inf, 0.5], [0.5, 0.5]]),
    "a text": reading([["0.5", 0.5], [0.5, 0.5]]),
    "a truth": reading([[True, False], [0.5, 0.5]]),
    "a reading that is a text": reading("no"),
    "digits": json.dumps(good()).replace("0.25", "0." + "25" * 4000).encode(),
}


def as_bytes(document: Any) -> bytes:
    return document if isinstance(document, bytes) else json.dumps(document).encode()


@pytest.mark.parametrize("case", NONSENSE)
def test_of_nonsense_nothing_is_believed(case: str) -> None:
    assert FORM.readings(as_bytes(good()), 2)[0].probabilities == {"normal": 0.25, "fall": 0.75}
    with pytest.raises(RemoteError) as error:
        FORM.readings(as_bytes(NONSENSE[case]), 2)
    assert "hello" not in str(error.value) and not error.value.again


@pytest.mark.parametrize("said", [None, 7, ["a"], "a stranger", "a  falls", "a a a a a", "A", "<b>", "<normal>", "a\n"])
def test_a_sentence_of_strange_words_is_none(said: Any) -> None:
    with pytest.raises(RemoteError, match="sentence"):
        FORM.sentences(as_bytes({"checkpoint": FORM.checkpoint, "sentences": [said]}), 1)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | ANY_JSON.map(as_bytes))
def test_both_ends_take_anything(body: bytes) -> None:
    with pytest.raises(RemoteError):
        FORM.readings(body, 2)
    with pytest.raises(RemoteError):
        FORM.sentences(body, 2)
    with pytest.raises((ValueError, RecursionError)):
        FORM.asked(body)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["checkpoint", "ask", "present", "z"]), ANY_JSON)
def test_any_field_of_a_question_may_be_anything(field: str, value: Any) -> None:
    question = json.loads(FORM.question(READINGS, events(2))) | {field: value}
    try:
        found = FORM.asked(as_bytes(question))
    except (ValueError, RecursionError) as error:
        assert len(str(error)) < 300
        return
    assert found.checkpoint != FORM.checkpoint or (len(found.events) == 2 and found.ask in (READINGS, SENTENCES))


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"present": []}, "1 to 64 events"),
        ({"present": ["111"] * 65}, "1 to 64 events|too many"),
        ({"present": ["111", "11"]}, "3 digits"),
        ({"present": ["111", "112"]}, "3 digits"),
        ({"z": "AAAA"}, "not those of int32"),
        ({"z": "é"}, "no base64"),
        ({"ask": "everything"}, "none of readings, sentences"),
        ({"checkpoint": 5}, "checkpoint is no text"),
        ({"z": "A" * 1_000_000}, "at most"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(change: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        FORM.asked(as_bytes(json.loads(FORM.question(READINGS, events(2))) | change))


# --- the replica, without a cluster


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(1)
    family = Family(
        dataclasses.replace(nano(WORDS), attributes=("empty", "low"), label_bias=(0.0, 0.3, -0.2), tied=False)
    )
    with torch.no_grad():
        family.adapter.summary.weight.mul_(20.0)  # untrained: readings and sentences differ so
    save(family, folder)
    return folder


def batch(function: Callable[[list[Any]], Awaitable[list[Any]]], **options: Any) -> Callable[[Any], Awaitable[Any]]:
    """Stands in for `serve.batch`, which works in a cluster alone: what waits is handed over together."""
    assert options == {"max_batch_size": 16, "batch_wait_timeout_s": 0.0}
    waiting = list[tuple[Any, asyncio.Future[Any]]]()

    async def one(question: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        waiting.append((question, future))
        await asyncio.sleep(0.05)
        taken, waiting[:] = [*waiting], []
        answers = await function([each for each, _ in taken]) if taken else []
        for (_, waits), answer in zip(taken, answers, strict=True):
            waits.set_result(answer)
        return await future

    return one


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The replica's module."""
    module = pytest.importorskip("cloud_bridge.inference.ray_replica", reason="scripts/setup --all installs Ray")
    monkeypatch.setattr(module.serve, "batch", batch)
    return module


def ask(replica: Any, bodies: list[bytes], token: str = "") -> list[tuple[int, bytes]]:
    """Ask all at once, as Serve's proxy does."""
    from starlette.requests import Request

    def request(body: bytes) -> Request:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        headers = [(b"authorization", token.encode())] if token else []
        return Request({"type": "http", "method": "POST", "headers": headers}, receive)

    async def all_of_them() -> list[tuple[int, bytes]]:
        answers = await asyncio.gather(*(replica(request(body)) for body in bodies))
        return [(answer.status_code, bytes(answer.body)) for answer in answers]

    return asyncio.run(all_of_them())


def key(event: Event) -> tuple[bytes, bytes]:
    """What an event says, whoever asks."""
    return np.asarray(event.z, np.int32).tobytes(), np.asarray(event.present, bool).tobytes()


def test_a_replica_reads_as_this_process_does(checkpoint: Path, replicas: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, family = checkpoint_hash(checkpoint), load(checkpoint)
    form, here, forwards = form_of(family, digest), FamilyMember(family), list[list[Event]]()
    replica = replicas.Replica(str(checkpoint), digest, 1, "")
    read = replica._member.read

    def counted(some: list[Event]) -> list[Reading]:
        forwards.append(some)
        return list(read(some))

    monkeypatch.setattr(replica._member, "read", counted)
    every = events(68, form.shape)
    some = [every[:1], every[1:4], every[4:]]
    answers = ask(replica, [form.question(READINGS, each) for each in some])
    assert [status for status, _ in answers] == [200] * 3
    # the same batches: sums of float32 in another order would move what events so large say
    wanted = {key(event): reading for batch in forwards for event, reading in zip(batch, here.read(batch), strict=True)}
    for each, (_, body) in zip(some, answers, strict=True):
        for event, found in zip(each, form.readings(body, len(each)), strict=True):
            expected = wanted[key(event)]
            assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
            assert dict(found.attributes) == pytest.approx(dict(expected.attributes), abs=1e-6)
    assert sum(map(len, forwards)) == 68 and len(forwards) < 3  # what waits is read together
    (_, body), (_, other) = ask(replica, [form.question(SENTENCES, some[1]), form.question(READINGS, some[0])])
    assert form.sentences(body, 3) == here.describe(some[1]) and len(form.readings(other, 1)) == 1


def test_a_replica_trusts_nobody(checkpoint: Path, replicas: Any, tmp_path: Path) -> None:
    digest, token = checkpoint_hash(checkpoint), tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    replica, form = replicas.Replica(str(checkpoint), digest, 1, str(token)), form_of(load(checkpoint), digest)
    question = form.question(READINGS, events(1, form.shape))
    assert [ask(replica, [question], shown)[0][0] for shown in ("", "Bearer secre", "secret", "Bearer é")] == [401] * 4
    bodies = [question, b"", b"{}", b"x" * (form.most_asked + 1), b'{"a":' * 9000]
    assert [status for status, _ in ask(replica, bodies, "Bearer secret")] == [200, 400, 400, 413, 400]
    other = form_of(load(checkpoint), "cd" * 32).question(READINGS, events(1, form.shape))
    ((status, body),) = ask(replica, [other], "Bearer secret")
    assert (status, json.loads(body)) == (200, {"checkpoint": digest})
    with pytest.raises(CheckpointError, match="copy the same checkpoint to every node"):
        replicas.Replica(str(checkpoint), "cd" * 32, 1, "")
    with pytest.raises(ConfigError, match="--token-file .*missing"):
        replicas.Replica(str(checkpoint), digest, 1, str(tmp_path / "missing"))
    token.write_text("\n")
    with pytest.raises(ConfigError, match="no token; write one line"):
        replicas.Replica(str(checkpoint), digest, 1, str(token))


# --- the command


def command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert ray_serve.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("ray_serve: ") and "Traceback" not in said
    return said


def test_the_command_names_the_cure(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = ["--checkpoint", str(checkpoint)]
    assert "familial.train" in command(["--checkpoint", str(tmp_path / "none")], capsys)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        assert "pip install 'veilsight[ray]'" in command(good, capsys)
    pytest.importorskip("ray", reason="scripts/setup --all installs it")
    assert "Ray Client is not used" in command([*good, "--cluster", "ray://127.0.0.1:10001"], capsys)
