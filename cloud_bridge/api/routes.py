"""The API: who asks (a token), whether they may (a role, their sites), and what they get.

    GET    /v1/cameras, /v1/verdicts, /v1/alerts, /v1/alerts/ID, /v1/stream, /v1/health     viewer
    POST   /v1/alerts/ID/acknowledge, .../comments;  /v1/cameras/SITE/CAMERA/sentence (orders.py)     nurse
    GET    /v1/export/KIND;  /v1/devices/SITE/CAMERA/commands (orders.py)       operator
    DELETE /v1/data;  GET /v1/audit                                             admin
    GET    /health  without a token;  /metrics  viewer of all sites;  /openapi.json

Whatever is not the caller's does not exist for them: 404, as what does not exist at all.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, HTTPException, Query, Request
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from sqlalchemy.engine import Engine
from sse_starlette import EventSourceResponse
from starlette.background import BackgroundTask

from cloud_bridge.api import queries
from cloud_bridge.api.config import ApiConfig
from cloud_bridge.api.limits import BodyLimit, Rates
from cloud_bridge.api.live import Full, Hub
from cloud_bridge.api.metrics import CONTENT_TYPE, Metrics
from cloud_bridge.api.orders import add_orders
from cloud_bridge.api.queries import Missing, Wanted
from cloud_bridge.api.shown import AlertPage, AlertWithComments, describe_webhooks
from cloud_bridge.api.tokens import Caller, TokenFile
from cloud_bridge.api.wellness import judge
from cloud_bridge.commands.desk import CommandDesk
from cloud_bridge.store.database import writing
from cloud_bridge.store.export import EXPORTS, export
from cloud_bridge.store.retention import delete, write_audit
from cloud_bridge.web.facts import Facts
from cloud_bridge.web.routes import add_page
from wire import __version__
from wire.errors import DataError, StoreAway

__all__ = ["Health", "make_app"]

Health = Callable[[], dict[str, Any]]
"""The bridge's counts; "trouble" says why its store cannot be written."""

_GUESSES_PER_S, _GUESSES = 1.0, 20.0  # requests without a good token, of one address
_PING_S = 5
_SHOWN = 10  # faults that an answer names
_LATEST_S = 1e11

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*"
OneCamera = Annotated[str, Query(max_length=130, pattern=rf"^{_NAME}$", description="site/camera")]
CameraName = Annotated[str, Query(max_length=130, pattern=rf"^({_NAME})?$", description="site/camera; none: all yours")]
Label = Annotated[str, Query(max_length=64, pattern=r"^[\w -]*$")]
Moment = Annotated[float, Query(ge=0.0, le=_LATEST_S, allow_inf_nan=False, description="UTC, seconds since 1970")]
Limit = Annotated[int, Query(ge=1, le=500)]
After = Annotated[str, Query(max_length=400, pattern=r"^[A-Za-z0-9_=-]*$", description="`next` of the page before")]
AlertId = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]
Words = Annotated[str, Body(embed=True, min_length=1, max_length=1000)]


class _Guard:
    """Asks for a token, and counts requests."""

    def __init__(self, tokens: TokenFile, config: ApiConfig) -> None:
        self._tokens = tokens
        self._rates = Rates(config.requests_per_s, config.burst)
        self._guesses = Rates(_GUESSES_PER_S, _GUESSES)

    def role(self, role: str) -> Callable[[Request], Caller]:
        """A dependency that lets in whoever may do what `role` may."""

        def check(request: Request) -> Caller:
            caller = self._caller(request)
            if not caller.may(role):
                raise HTTPException(403, f"your token is for a {caller.role}; this asks for a {role}")
            return caller

        return check

    def known(self, request: Request) -> Caller | None:
        """Whose token a request bears, now: None where it has ended or was taken out since."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        return self._tokens.caller(token.strip()) if kind.lower() == "bearer" and len(token) < 200 else None

    def _caller(self, request: Request) -> Caller:
        caller = self.known(request)
        if caller is None:
            address = request.client.host if request.client else ""
            if not self._guesses.take(address):
                raise HTTPException(429, "too many requests without a valid token", {"Retry-After": "10"})
            raise HTTPException(
                401, "send Authorization: Bearer TOKEN, one that is valid", {"WWW-Authenticate": "Bearer"}
            )
        if not self._rates.take(caller.name):
            raise HTTPException(
                429, "too many requests; [api] requests_per_s and burst allow more", {"Retry-After": "1"}
            )
        return caller


def make_app(
    engine: Engine,
    tokens: TokenFile,
    config: ApiConfig,
    hub: Hub,
    health: Health,
    facts: Facts,
    metrics: Metrics,
    desk: CommandDesk | None = None,
    shard_name: Callable[[str], str] = str,
) -> FastAPI:
    """Make the application.

    Args:
        engine: The store's.
        tokens: Who may ask.
        config: How often.
        hub: Gives verdicts and alerts as they are made.
        health: The bridge's counts.
        facts: What the page tells beside the store.
        metrics: What Prometheus reads beside the counts.
        desk: Signs commands to devices; None: there are none.
        shard_name: `site/camera` -> the name by which it falls to a shard.
    """

    @asynccontextmanager
    async def live(app: FastAPI) -> AsyncIterator[None]:
        hub.begin()
        yield
        hub.end()

    app = FastAPI(
        title="Veilsight bridge",
        version=__version__,
        lifespan=live,
        docs_url=None,  # both pages load scripts of another host
        redoc_url=None,
    )
    app.add_middleware(BodyLimit)
    guard = _Guard(tokens, config)
    _errors(app)
    _reads(app, engine, guard)
    _writes(app, engine, guard, hub)
    _takes_out(app, engine, guard)
    _streams(app, guard, hub)
    _watches(app, engine, guard, hub, health, metrics)
    describe_webhooks(app)
    add_orders(app, engine, desk, guard.role("nurse"), guard.role("operator"), shard_name)
    add_page(app, engine, facts, health, guard.role("viewer"))
    return app


def _errors(app: FastAPI) -> None:
    """Errors of ours as statuses."""
    kinds: dict[type[Exception], int] = {Missing: 404, DataError: 422, StoreAway: 503}

    def answer(request: Request, error: Exception) -> Response:
        status = next(status for kind, status in kinds.items() if isinstance(error, kind))
        words = "the store does not answer; try again" if status == 503 else str(error)
        return JSONResponse({"detail": words}, status)

    def explain(request: Request, error: Exception) -> Response:
        """Which values cannot be; what was sent is not sent back."""
        found = error.errors() if isinstance(error, RequestValidationError) else []
        return JSONResponse({"detail": [{"loc": each["loc"], "msg": each["msg"]} for each in found[:_SHOWN]]}, 422)

    app.add_exception_handler(RequestValidationError, explain)
    for kind in kinds:
        app.add_exception_handler(kind, answer)


def _wanted(
    camera: CameraName = "",
    label: Label = "",
    since: Moment = 0.0,
    until: Moment = _LATEST_S,
    limit: Limit = 100,
    after: After = "",
) -> Wanted:
    return Wanted(camera, label, since, until, limit, after)


def _reads(app: FastAPI, engine: Engine, guard: _Guard) -> None:
    viewer, asked = Depends(guard.role("viewer")), Depends(_wanted)

    @app.get("/v1/cameras")
    def cameras(caller: Caller = viewer) -> list[dict[str, Any]]:
        """Your cameras: how far each was read, and which alerts are open."""
        return queries.cameras(engine, caller)

    @app.get("/v1/verdicts")
    def verdicts(wanted: Wanted = asked, caller: Caller = viewer) -> dict[str, Any]:
        """A page of verdicts, the newest first."""
        return queries.verdicts(engine, caller, wanted)

    @app.get("/v1/alerts", response_model=AlertPage)
    def alerts(wanted: Wanted = asked, caller: Caller = viewer) -> dict[str, Any]:
        """A page of changes of alerts, the newest first."""
        return queries.alerts(engine, caller, wanted)

    @app.get("/v1/alerts/{number}", response_model=AlertWithComments)
    def alert(number: AlertId, caller: Caller = viewer) -> dict[str, Any]:
        """One change of an alert, with its comments."""
        return queries.alert(engine, caller, number)


def _writes(app: FastAPI, engine: Engine, guard: _Guard, hub: Hub) -> None:
    nurse, admin = Depends(guard.role("nurse")), Depends(guard.role("admin"))

    @app.post("/v1/alerts/{number}/acknowledge", response_model=AlertWithComments)
    def acknowledge(number: AlertId, caller: Caller = nurse) -> dict[str, Any]:
        """Say that you have seen an alert. The first who says so stays."""
        found = queries.acknowledge(engine, caller, number)
        hub.publish("seen", {name: found[name] for name in ("camera", "id", "first_id", "seen_by", "seen_s")})
        return found

    @app.post("/v1/alerts/{number}/comments", response_model=AlertWithComments)
    def comment(number: AlertId, words: Words, caller: Caller = nurse) -> dict[str, Any]:
        """Add a comment to an alert."""
        found = queries.comment(engine, caller, number, words)
        about = {name: found[name] for name in ("camera", "id", "first_id")}
        hub.publish("comment", {**about, "count": len(found["comments"])})
        return found

    @app.delete("/v1/data")
    def remove(
        camera: OneCamera, since: Moment = 0.0, until: Moment = _LATEST_S, caller: Caller = admin
    ) -> dict[str, int]:
        """Delete releases, verdicts, alerts, comments and commands of a camera, for ever.

        Without a span, the list of its open alerts that the broker keeps as well.
        """
        if not caller.sees(camera):
            raise Missing(f"no camera {camera!r}")
        return delete(engine, caller.name, camera, since, until if until < _LATEST_S else math.inf)


def _takes_out(app: FastAPI, engine: Engine, guard: _Guard) -> None:
    operator, admin = Depends(guard.role("operator")), Depends(guard.role("admin"))

    @app.get("/v1/export/{kind}")
    def take_out(
        kind: Annotated[str, InPath(pattern=f"^({'|'.join(EXPORTS)})$")],
        camera: CameraName = "",
        since: Moment = 0.0,
        until: Moment = _LATEST_S,
        form: Annotated[str, Query(pattern="^(parquet|csv)$")] = "parquet",
        caller: Caller = operator,
    ) -> Response:
        """A file of releases, verdicts, alerts, comments or the audit log. One camera, where not all are yours."""
        if not caller.sees(camera) if camera else not caller.sees_all:
            raise Missing("name a camera that is yours: camera=site/camera")
        if kind == "audit" and not caller.may("admin"):
            raise HTTPException(403, "the audit log asks for an admin")
        folder = tempfile.TemporaryDirectory(prefix="veilsight-export-")
        file = Path(folder.name) / f"{kind}.{form}"
        try:
            count = export(engine, kind, file, camera, since, until)
            with writing(engine) as connection:
                write_audit(connection, caller.name, "export", f"{kind} of {camera or 'all cameras'}: {count}")
        except BaseException:
            folder.cleanup()
            raise
        return FileResponse(file, filename=file.name, background=BackgroundTask(folder.cleanup))

    @app.get("/v1/audit")
    def audit(limit: Limit = 100, caller: Caller = admin) -> list[dict[str, Any]]:
        """The newest entries of the audit log; for an admin of all sites."""
        if not caller.sees_all:
            raise HTTPException(403, "the audit log is of all sites; your token is not")
        return queries.audit_log(engine, limit)


def _streams(app: FastAPI, guard: _Guard, hub: Hub) -> None:
    viewer = Depends(guard.role("viewer"))

    @app.get("/v1/stream")
    async def stream(
        request: Request,
        kind: Annotated[str, Query(pattern="^(|verdict|alert|contour)$")] = "",
        camera: CameraName = "",
        caller: Caller = viewer,
    ) -> Response:
        """Verdicts and alerts as they are made; without a kind also who has seen them (text/event-stream).

        Contours only where `kind` names them, and of one camera.
        """
        if kind == "contour" and not camera:
            raise DataError("contours come for every release: name one camera, camera=site/camera")
        if camera and not caller.sees(camera):
            raise Missing(f"no camera {camera!r}")

        def wants(name: str) -> bool:
            now = guard.known(request)  # a token may end, or lose a site, while its stream is open
            return now is not None and now.sees(name) and camera in ("", name)

        if hub.full:
            raise HTTPException(503, "as many listeners as may be; try again later")

        async def told() -> AsyncIterator[dict[str, str]]:
            try:
                with hub.listening(kind, wants) as listener:
                    yield {"event": "ready", "data": "{}"}
                    async for event in listener.events():
                        yield {"event": str(event["type"]), "data": json.dumps(event)}
            except Full:
                return

        return EventSourceResponse(told(), ping=_PING_S)


def _watches(app: FastAPI, engine: Engine, guard: _Guard, hub: Hub, health: Health, measured: Metrics) -> None:
    viewer = Depends(guard.role("viewer"))

    @app.get("/health")
    def is_well() -> Response:
        """Whether the bridge can write: 200, or 503. Without a token, so it says no more."""
        well = not health().get("trouble")
        return JSONResponse({"status": "ok" if well else "failing"}, 200 if well else 503)

    @app.get("/v1/health", responses={503: {"description": "Something is failing, and what"}})
    def is_all_well(caller: Caller = viewer) -> Response:
        """Whether bridge, broker, database and your cameras are well: 200, or 503 with what is not."""
        told = judge(health(), caller)
        return JSONResponse(told, 200 if told["status"] == "ok" else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics(caller: Caller = viewer) -> Response:
        """Counts and histograms for Prometheus, of all cameras together."""
        if not caller.sees_all:
            raise HTTPException(403, "the metrics are of all sites; your token is not")
        told = measured.page(health(), queries.counts(engine), hub.count)
        return Response(told, media_type=CONTENT_TYPE)
