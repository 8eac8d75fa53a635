"""The page's routes, beside those of the API.

    GET  /, /static/NAME                         the page for staff; without a token, so without a word about anybody
    GET  /visitor, /visitor/SITE[/CAMERA]        the page for visitors
    GET  /v1/visitor                             its numbers: those of the certificate, which is public
    GET  /v1/overview, /v1/minute, /v1/devices/SITE/CAMERA, /v1/bounds, /v1/qr      viewer

The page for visitors is the same for every name, known or not: it cannot be asked which cameras there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import segno
from fastapi import Depends, FastAPI, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response
from sqlalchemy.engine import Engine

from cloud_bridge.api.tokens import Caller
from cloud_bridge.web import views
from cloud_bridge.web.bounds import bounds
from cloud_bridge.web.facts import Facts
from cloud_bridge.web.files import Files, SafeHeaders

__all__ = ["add_page"]

Health = Callable[[], Mapping[str, Any]]
Viewer = Callable[[Request], Caller]
_PART = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
_VISITS_S = (2, 10, 60, 300)
Part = Annotated[str, InPath(pattern=_PART)]
Link = Annotated[str, Query(max_length=300, pattern=r"^https?://[\x21-\x7e]+$", description="what the code says")]


def add_page(app: FastAPI, engine: Engine, facts: Facts, health: Health, viewer: Viewer) -> None:
    """Add the page to the application.

    Args:
        app: The API's.
        engine: The store's.
        facts: What is not in the store.
        health: The bridge's counts; "trouble" says why its store cannot be written.
        viewer: A dependency that lets in whoever may read.
    """
    app.add_middleware(SafeHeaders)
    _files(app)
    _numbers(app, facts, viewer)
    _views(app, engine, facts, health, viewer)


def _files(app: FastAPI) -> None:
    files = Files()

    def static(name: str, request: Request) -> Response:
        return files.answer(name, request)

    def page(request: Request) -> Response:
        return files.answer("index.html", request)

    def visitor(request: Request) -> Response:
        return files.answer("visitor.html", request)

    def place(request: Request, site: Part) -> Response:
        return files.answer("visitor.html", request)

    def camera(request: Request, site: Part, camera: Part) -> Response:
        return files.answer("visitor.html", request)

    routes: dict[str, Callable[..., Response]] = {
        "/": page,
        "/static/{name}": static,
        "/visitor": visitor,
        "/visitor/{site}": place,
        "/visitor/{site}/{camera}": camera,
    }
    for path, answer in routes.items():
        app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)


def _numbers(app: FastAPI, facts: Facts, viewer: Viewer) -> None:
    def worked_out() -> dict[str, Any]:
        return bounds(tuple(facts.certificates), facts.views)

    worked_out()  # it takes long: before anybody asks, who needs no token for it

    @app.get("/v1/bounds", dependencies=[Depends(viewer)])
    def known() -> dict[str, Any]:
        """How much can be known at most about somebody in view for so many seconds; every digit is rounded up."""
        return worked_out()

    @app.get("/v1/visitor")
    def told() -> dict[str, Any]:
        """What the page for visitors says: numbers of the certificate, which is public. Without a token."""
        found = worked_out()
        in_view = [row for row in found["cameras"][str(found["views"])] if row["seconds"] in _VISITS_S]
        engine = {name: facts.engine()[name] for name in ("n", "slot_s")}
        about = {"labels": list(facts.labels), **engine, "views": found["views"]}
        return {**about, "spans": found["spans"], "in_view": in_view}

    @app.get("/v1/qr", dependencies=[Depends(viewer)])
    def code(link: Link) -> dict[str, Any]:
        """Draw a link as a QR code: its size in modules with the quiet zone, and the outline as an SVG path."""
        matrix = segno.make(link, error="m", micro=False).matrix_iter(border=4)
        rows = [[bool(dark) for dark in row] for row in matrix]
        path = "".join(f"M{x} {y}h1v1h-1z" for y, row in enumerate(rows) for x, dark in enumerate(row) if dark)
        return {"size": len(rows), "path": path}


def _views(app: FastAPI, engine: Engine, facts: Facts, health: Health, viewer: Viewer) -> None:
    reader = Depends(viewer)

    @app.get("/v1/overview")
    def overview(caller: Caller = reader) -> dict[str, Any]:
        """Everything that a page must know when it begins: you, your cameras, the alerts that somebody must see."""
        return {**views.overview(engine, caller, facts), "well": not health().get("trouble")}

    @app.get("/v1/minute")
    def minute(caller: Caller = reader) -> dict[str, Any]:
        """The verdicts of the last minute, a short row each: UTC, label, probability, late, unsure."""
        return views.minute(engine, caller)

    @app.get("/v1/devices/{site}/{camera}")
    def device(site: Part, camera: Part, caller: Caller = reader) -> dict[str, Any]:
        """One camera: its key, its engine, how far it was read, and what was refused since the bridge's start."""
        return views.device(engine, caller, f"{site}/{camera}", facts)
