"""What people ask for over HTTP: a sentence of what a camera sees, a profile that its device is to change to.

POST   /v1/cameras/SITE/CAMERA/sentence     nurse        its next verdict has one
POST   /v1/devices/SITE/CAMERA/commands     operator     {"profile": "strict"}
GET    /v1/devices/SITE/CAMERA/commands     operator     what was ordered, and what is in force
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, HTTPException, Query, Request
from fastapi import Path as InPath
from fastapi.responses import JSONResponse, Response
from sqlalchemy.engine import Engine

from cloud_bridge.api.queries import Missing
from cloud_bridge.api.tokens import Caller
from cloud_bridge.commands.desk import CommandDesk
from cloud_bridge.store.commands import TooManyCommands, UnknownCamera
from cloud_bridge.store.sentence_requests import ask_sentence
from wire.privacy.certificate import PROFILES

__all__ = ["add_orders"]

Lets = Callable[[Request], Caller]
"""A dependency that lets in whoever has a role, or more."""

_PATH = "/v1/devices/{site}/{camera}/commands"
_NONE = "this bridge signs no commands: [commands] operator_key names no key"
Part = Annotated[str, InPath(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Profile = Annotated[str, Body(embed=True, pattern=f"^({'|'.join(PROFILES)})$", description="of the device's own")]
Limit = Annotated[int, Query(ge=1, le=500)]


def add_orders(
    app: FastAPI,
    engine: Engine,
    desk: CommandDesk | None,
    nurse: Lets,
    operator: Lets,
    shard_name: Callable[[str], str],
) -> None:
    """Add the calls.

    Args:
        app: The API's.
        engine: The store's.
        desk: Signs and keeps commands; None: there is no operator's key here.
        nurse: Who may ask for a sentence.
        operator: Who may order.
        shard_name: `site/camera` -> the name by which it falls to a shard.
    """
    _commands(app, desk, operator)
    asks = Depends(nurse)

    @app.post("/v1/cameras/{site}/{camera}/sentence", status_code=202)
    def say(site: Part, camera: Part, caller: Caller = asks) -> dict[str, Any]:
        """Ask that the next verdict on a camera has a sentence; the stream and MQTT bring it, as every verdict."""
        name = f"{site}/{camera}"
        if not caller.sees(name):
            raise Missing(f"no camera {name!r}")
        return ask_sentence(engine, name, shard_name=shard_name(name))

    def unknown(request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, 404)

    def too_many(request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, 429, {"Retry-After": "600"})

    app.add_exception_handler(UnknownCamera, unknown)
    app.add_exception_handler(TooManyCommands, too_many)


def _commands(app: FastAPI, desk: CommandDesk | None, operator: Lets) -> None:
    asks = Depends(operator)

    def at(caller: Caller, camera: str) -> CommandDesk:
        if not caller.sees(camera):
            raise Missing(f"no camera {camera!r}")
        if desk is None:
            raise HTTPException(409, _NONE)
        return desk

    @app.post(_PATH, status_code=202)
    def order(site: Part, camera: Part, profile: Profile, caller: Caller = asks) -> dict[str, Any]:
        """Order a device to change to a profile. It obeys where its own configuration allows that profile."""
        name = f"{site}/{camera}"
        return at(caller, name).order(caller.name, name, profile)

    @app.get(_PATH)
    def past(site: Part, camera: Part, limit: Limit = 20, caller: Caller = asks) -> dict[str, Any]:
        """The newest commands to a device, and the profile that its newest state names."""
        name = f"{site}/{camera}"
        return at(caller, name).past(name, limit)
