"""The API on a real port: who may see and do what, in pages that end, whatever is sent to it."""

from __future__ import annotations

import base64
import io
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_bridge.api.__main__ import main
from cloud_bridge.api.config import ApiConfig
from cloud_bridge.api.limits import Rates
from cloud_bridge.api.server import ApiServer
from cloud_bridge.api.tokens import ROLES, TokenFile, add_token, remove_token
from cloud_bridge.store import tables
from cloud_bridge.web.facts import Facts
from tests.support.api_server import Api
from tests.support.services import until
from wire.errors import ConfigError
from wire.protocol.message import trace_id

# --- what is there


def test_cameras_verdicts_and_alerts(shared: Api) -> None:
    cameras = shared.ask("/v1/cameras").json()
    assert [(each["camera"], each["next_slot"], each["open"]) for each in cameras] == [
        ("lab/door", 12, ["fall"]),
        ("lab/hall", 12, []),
    ]
    verdicts = shared.rows("/v1/verdicts?camera=lab/door")
    assert [each["last_slot"] for each in verdicts] == [11, 10, 9, 8, 7]
    assert verdicts[0]["label"] == "fall" and verdicts[0]["boot_id"] == "0000000000000001" and verdicts[0]["trace"]
    (alert,) = shared.rows("/v1/alerts")
    assert (alert["camera"], alert["label"], alert["raised"], alert["seen_by"]) == ("lab/door", "fall", True, "")


def test_an_alert_names_the_trace_of_its_release(shared: Api) -> None:
    """The same in the pages, in the answer for one, and as anybody can make it from a message."""
    (alert,) = shared.rows("/v1/alerts")
    alone = shared.ask(f"/v1/alerts/{alert['id']}").json()
    (message,) = shared.harness.alerts()
    assert message.id == alert["id"] and alert["trace"] == alone["trace"]
    assert alert["trace"] == trace_id("lab/door", message.boot_id, message.slot)
    assert alert["trace"] in {verdict["trace"] for verdict in shared.rows("/v1/verdicts?camera=lab/door&label=fall")}
    row = next(row for row in shared.ask("/v1/overview").json()["alerts"] if row["id"] == alert["id"])
    assert row["trace"] == alert["trace"]


def test_the_description_has_every_field_of_an_alert_and_of_a_letter(shared: Api) -> None:
    document = shared.ask("/openapi.json", "").json()
    schemas, answers = document["components"]["schemas"], document["paths"]["/v1/alerts/{number}"]["get"]["responses"]
    assert answers["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/AlertWithComments"}
    alone = shared.ask(f"/v1/alerts/{shared.alert}").json()
    assert schemas["AlertWithComments"]["required"] == list(alone)
    (row,) = shared.rows("/v1/alerts")
    assert schemas["AlertRow"]["required"] == list(row) and [*alone] == [*row, "comments"]
    body = document["webhooks"]["alert"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/WebhookBody"} and "trace" in schemas["WebhookBody"]["required"]


def test_filters(shared: Api) -> None:
    assert len(shared.rows("/v1/verdicts?label=fall")) == 3
    assert {each["last_slot"] for each in shared.rows("/v1/verdicts?since=1008&until=1010")} == {8, 9}
    assert shared.rows("/v1/alerts?label=fight") == [] == shared.rows("/v1/verdicts?since=2000")


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_pages_end_and_neither_skip_nor_repeat(shared: Api, limit: int) -> None:
    found, after = [], ""
    for _ in range(20):
        page = shared.ask(f"/v1/verdicts?limit={limit}&after={after}").json()
        assert len(page["rows"]) <= limit
        found += [(row["camera"], row["last_slot"]) for row in page["rows"]]
        after = page["next"]
        if not after:
            break
    assert len(found) == 10 == len(set(found)) and not after


def test_health_needs_no_token_and_says_little(api: Api) -> None:
    assert api.ask("/health", "").json() == {"status": "ok"}
    api.harness.bridge.trouble, api.harness.bridge._looked_s = "the disk of ward 3 is full", -1e9
    api.harness.bridge.look()
    answer = api.ask("/health", "")
    assert (answer.status_code, answer.json()) == (503, {"status": "failing"})


def test_metrics_count(api: Api) -> None:
    api.harness.bridge._looked_s = -1e9
    api.harness.bridge.look()
    lines = api.ask("/metrics").text.splitlines()
    assert "veilsight_bridge_verdicts_total 10.0" in lines and "veilsight_bridge_open_alerts 1.0" in lines
    assert "veilsight_bridge_well 1.0" in lines and "veilsight_bridge_verdict_seconds_count 10.0" in lines


def test_the_description_is_served_and_no_page_of_another_host(shared: Api) -> None:
    found = shared.ask("/openapi.json", "").json()
    assert {"/v1/alerts/{number}/acknowledge", "/v1/stream", "/v1/data", "/metrics"} <= found["paths"].keys()
    assert [shared.ask(path, "").status_code for path in ("/docs", "/redoc")] == [404, 404]


# --- who may

READS = ("/v1/cameras", "/v1/verdicts", "/v1/alerts", "/v1/stream?kind=nothing", "/metrics", "/v1/audit")


@pytest.mark.parametrize("path", [*READS, "/v1/export/alerts"])
@pytest.mark.parametrize("who", ["", "old", "vs_nonsense", "viewer'--", "x" * 5000])
def test_nobody_gets_in_without_a_valid_token(shared: Api, path: str, who: str) -> None:
    assert shared.ask(path, who).status_code in (401, 429)


def test_each_role_may_what_it_may(api: Api) -> None:
    asks = {
        "viewer": ("GET", "/v1/alerts", 200),
        "nurse": ("POST", f"/v1/alerts/{api.alert}/acknowledge", 200),
        "operator": ("GET", "/v1/export/alerts", 200),
        "admin": ("DELETE", "/v1/data?camera=lab/hall", 200),
    }
    for place, role in enumerate(ROLES):
        for needs, (method, path, good) in asks.items():
            expected = good if ROLES.index(needs) <= place else 403
            assert api.ask(path, role, method).status_code == expected, (role, needs)


def test_another_site_s_cameras_do_not_exist(api: Api) -> None:
    assert api.ask("/v1/cameras", "stranger").json() == []
    assert api.rows("/v1/verdicts", "stranger") == api.rows("/v1/alerts", "stranger") == []
    hidden = [
        api.ask(path, "stranger", method)
        for method, path in (
            ("GET", "/v1/verdicts?camera=lab/door"),
            ("GET", f"/v1/alerts/{api.alert}"),
            ("POST", f"/v1/alerts/{api.alert}/acknowledge"),
            ("DELETE", "/v1/data?camera=lab/door"),
            ("GET", "/v1/export/alerts?camera=lab/door"),
            ("GET", "/v1/stream?camera=lab/door"),
        )
    ]
    assert [answer.status_code for answer in hidden] == [404] * 6
    unknown = api.ask("/v1/verdicts?camera=lab/nobody")
    assert unknown.status_code == 404
    assert hidden[0].json()["detail"].replace("door", "nobody") == unknown.json()["detail"]
    assert api.ask("/v1/export/alerts", "stranger").status_code == 404
    assert [api.ask(path, "stranger").status_code for path in ("/v1/audit", "/metrics")] == [403, 403]
    assert len(api.rows("/v1/alerts", "lab")) == 1 and api.count(tables.releases) == 24


def test_a_token_that_is_taken_out_ends(api: Api, tmp_path: Path) -> None:
    assert api.ask("/v1/alerts").status_code == 200
    remove_token(tmp_path / "tokens.json", "viewer")
    until(lambda: api.ask("/v1/alerts").status_code in (401, 429))
    (tmp_path / "tokens.json").write_text("{")
    until(lambda: api.ask("/v1/alerts", "nurse").status_code in (401, 429))


def test_tokens_are_kept_as_hashes(tmp_path: Path) -> None:
    token = add_token(tmp_path / "t.json", "nora", "nurse", ["ward-3"], 1.0)
    assert token not in (tmp_path / "t.json").read_text() and (tmp_path / "t.json").stat().st_mode & 0o777 == 0o600
    caller = TokenFile(tmp_path / "t.json").caller(token)
    assert caller is not None and caller.sees("ward-3/x") and not caller.sees("ward-33/x") and not caller.sees("x")


@pytest.mark.parametrize(
    "row", [{"role": "king"}, {"sites": []}, {"sites": ["a/b"]}, {"name": "a b"}, {"until_s": None}, {"sha256": "x"}]
)
def test_a_damaged_file_of_tokens_is_refused(tmp_path: Path, row: Mapping[str, object]) -> None:
    good = {"name": "n", "role": "nurse", "sites": ["a"], "until_s": 1.0, "sha256": "0" * 64}
    file = tmp_path / "t.json"
    for text in (json.dumps({"tokens": [{**good, **row}]}), "[", "[]", '{"tokens": 3}', "[" * 10_000):
        file.write_text(text)
        with pytest.raises(ConfigError):
            TokenFile(file)


def test_the_command_makes_and_ends_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "t.json")
    assert main(["--tokens", file, "--add", "nora", "--role", "nurse", "--sites", "ward-3"]) == 0
    token = capsys.readouterr().out.strip()
    assert TokenFile(Path(file)).caller(token) is not None
    assert main(["--tokens", file, "--add", "nora", "--sites", "ward-3"]) == 2
    assert main(["--tokens", file, "--add", "olga"]) == 2
    assert main(["--tokens", file, "--remove", "nora"]) == 0 and main(["--tokens", file, "--remove", "nora"]) == 2
    assert "remove it first" in (err := capsys.readouterr().err) and "name at least one" in err


# --- what is changed


def test_the_first_who_saw_an_alert_stays(api: Api) -> None:
    path = f"/v1/alerts/{api.alert}/acknowledge"
    assert api.ask(path, "nurse", "POST").json()["seen_by"] == "nurse"
    assert api.ask(path, "admin", "POST").json()["seen_by"] == "nurse"
    assert [(e["who"], e["what"]) for e in api.ask("/v1/audit", "admin").json()] == [("nurse", "acknowledge")]


def test_comments_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_bridge.api.queries._MOST_COMMENTS", 2)
    path = f"/v1/alerts/{api.alert}/comments"
    words = "Schwester: «ist gestürzt»\nRobert'); DROP TABLE alerts;--"
    assert api.ask(path, "nurse", "POST", json={"words": words}).json()["comments"][0]["words"] == words
    for bad in ("", "   ", "x" * 1001, "a\0b", "a\x1b[31m", 3, None, ["x"]):
        assert api.ask(path, "nurse", "POST", json={"words": bad}).status_code == 422, bad
    assert api.ask(path, "nurse", "POST", json={"words": "two"}).status_code == 200
    assert api.ask(path, "nurse", "POST", json={"words": "three"}).status_code == 422
    assert api.count(tables.comments) == 2


def test_data_are_deleted_by_camera_and_span(api: Api) -> None:
    assert api.ask("/v1/data", "admin", "DELETE").status_code == 422  # no camera
    found = api.ask("/v1/data?camera=lab/door&since=1010", "lab", "DELETE").json()
    assert found["releases"] == 2 and api.count(tables.releases) == 22
    assert api.ask("/v1/data?camera=lab/door&since=9&until=8", "lab", "DELETE").status_code == 422
    (entry,) = api.ask("/v1/audit", "admin").json()
    assert (entry["who"], entry["what"]) == ("lab", "delete") and entry["detail"].startswith("lab/door, 1010 to inf")


def test_an_export_is_a_file(api: Api) -> None:
    answer = api.ask("/v1/export/verdicts?camera=lab/door", "lab")
    assert pyarrow.parquet.read_table(io.BytesIO(answer.content)).num_rows == 5
    assert api.ask("/v1/export/alerts?form=csv", "operator").text.count("\n") == 2
    assert api.ask("/v1/export/audit", "operator").status_code == 403
    assert api.ask("/v1/export/cameras", "operator").status_code == 422
    assert api.ask("/v1/export/comments?camera=lab/door", "operator").status_code == 422


# --- hostile

TEXTS = [
    "' OR '1'='1",
    "lab/door'--",
    "lab/door' UNION SELECT * FROM audit--",
    "{{7*7}}",
    "${jndi:ldap://x}",
    "../../etc/passwd",
    "lab/%00",
    "%",
    "lab/\u202edoor",
    "x" * 3000,
]
NUMBERS = ["-1", "0", "501", "9" * 400, "1e999", "nan", "inf", "0x10", "1.5", "true", "[]", "²"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_that_is_no_name_gets_nothing(shared: Api, text: str) -> None:
    for name in ("camera", "label", "after"):
        for path in ("/v1/verdicts", "/v1/alerts"):
            answer = shared.http.get(
                path, params={name: text}, headers={"Authorization": f"Bearer {shared.tokens['viewer']}"}
            )
            assert answer.status_code == 422 or (name == "label" and answer.json()["rows"] == []), (name, answer.text)
    assert shared.ask(f"/v1/alerts/{'0' * 31}'").status_code == 422
    assert shared.count(tables.alerts) == 1


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_that_cannot_be_are_refused(shared: Api, number: str) -> None:
    assert shared.ask(f"/v1/verdicts?limit={number}").status_code == 422
    for name in ("since", "until"):
        assert shared.ask(f"/v1/verdicts?{name}={number}").status_code in (200, 422)


def cursor(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
def test_no_cursor_stops_it(shared: Api, raw: bytes) -> None:
    for text in (base64.urlsafe_b64encode(raw).decode(), cursor(raw.hex())):
        assert shared.ask(f"/v1/verdicts?after={text}").status_code in (200, 422)


FORGED = [[1e9, 999, "f" * 16, 2**61], [1e9, 2**63, "f", 1], [1e9, 1, "\0", 1], [True, 1, "f", 1], [[]] * 4, {}, 3]


@pytest.mark.parametrize("value", FORGED, ids=repr)
def test_a_forged_cursor_shows_nothing_that_is_another_s(shared: Api, value: object) -> None:
    answer = shared.ask(f"/v1/verdicts?after={cursor(value)}", "stranger")
    assert answer.status_code == 422 or answer.json() == {"rows": [], "next": ""}


def test_a_long_body_is_refused_stated_or_not(shared: Api) -> None:
    path = f"/v1/alerts/{shared.alert}/comments"
    assert shared.ask(path, "nurse", "POST", content=b"x" * 20_000).status_code == 413

    def parts() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 1000

    assert shared.ask(path, "nurse", "POST", content=parts()).status_code == 413
    for stated in (b"-5", b"99999999999", b"x"):
        with socket.create_connection(("127.0.0.1", shared.server.port), 60) as raw:
            raw.sendall(b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: " + stated + b"\r\n\r\n")
            assert raw.recv(100).split()[1] in (b"400", b"413")
    assert shared.ask("/v1/alerts").status_code == 200


def test_deep_and_broken_json_is_refused(shared: Api) -> None:
    path, head = f"/v1/alerts/{shared.alert}/comments", {"Content-Type": "application/json"}
    for body in (b"[" * 10_000, b'{"words":', b"\xff\xfe", b"null", b'{"words": 1e99999}', b"9" * 10_000, b""):
        assert shared.ask(path, "nurse", "POST", content=body, headers=head).status_code in (400, 422), body[:20]


def test_too_many_requests_of_one_token_do_not_stop_another(tmp_path: Path) -> None:
    with Api(tmp_path, 0.001, 5.0) as api:
        assert [api.ask("/v1/cameras").status_code for _ in range(7)] == [200] * 5 + [429] * 2
        assert api.ask("/v1/cameras", "nurse").status_code == 200


def test_guesses_are_slowed(tmp_path: Path) -> None:
    with Api(tmp_path) as api:
        found = [api.ask("/v1/cameras", f"vs_{n}").status_code for n in range(60)]
        assert found[:20] == [401] * 20 and 429 in found
        assert api.ask("/v1/cameras").status_code == 200  # a valid one passes


def test_rates_forget_whom_they_have_not_seen_for_long() -> None:
    rates = Rates(1.0, 1.0, lambda: 0.0)
    for number in range(20_000):
        rates.take(str(number))
    assert len(rates._left) == 10_000


def test_a_store_that_is_away_is_said(api: Api) -> None:
    engine = api.harness.bridge._store.engine
    engine.dispose()
    file = Path(str(engine.url.database))
    file.rename(file.with_suffix(".gone"))
    file.mkdir()
    answer = api.ask("/v1/alerts")
    assert answer.status_code == 503 and "try again" in answer.json()["detail"]
    file.rmdir()
    file.with_suffix(".gone").rename(file)
    assert api.ask("/v1/alerts").status_code == 200


# --- the section of the file


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"listen": "8443"}, "write an address and a port"),
        ({"listen": "localhost:1"}, "write an address and a port"),
        ({"listen": "127.0.0.1:99999", "tokens": "t"}, "port 99999"),
        ({"listen": "127.0.0.1:1"}, "tokens is not"),
        ({"listen": "0.0.0.0:1", "tokens": "t"}, "a token would be read by everybody"),
        ({"listen": "127.0.0.1:1", "tokens": "t", "cert": "c"}, "cert and key go together"),
    ],
)
def test_an_api_that_cannot_be_meant_is_refused(values: Mapping[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ApiConfig(**values)


def test_a_port_that_is_taken_ends_the_start(shared: Api, tmp_path: Path) -> None:
    add_token(tmp_path / "t.json", "n", "viewer", ["*"], 1.0)
    config = ApiConfig(f"127.0.0.1:{shared.server.port}", str(tmp_path / "t.json"))
    with pytest.raises(ConfigError, match="free the port or name another"):
        ApiServer(config, shared.harness.bridge._store.engine, dict, Facts(lambda: shared.harness.bridge.models, {}))
