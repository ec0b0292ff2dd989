"""The web app: the rooms it works on, its pages, and what happens when something goes wrong."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from ..accounts import Accounts
from ..attempts import Attempts
from ..database import Database, DatabaseError
from ..leases import Leases
from ..sessions import Sessions
from ..settings import Settings
from ..store import Store
from . import admin, compare, door
from .rooms import HERE, NobodyIn, Refused, Rooms
from .security import Guard

_log = logging.getLogger(__name__)
_TITLES = {404: "There is no such page", 405: "That is not how this page is asked"}


def make_app(database: Database, settings: Settings | None = None, accounts: Accounts | None = None) -> ASGIApp:
    """Return the web app of a database.

    Args:
        database: people's preferences.
        settings: None: the defaults.
        accounts: of that database, if their passwords are hashed in a way of their own.
    """
    settings = settings or Settings()
    store = Store(database)
    accounts = accounts or Accounts(store)
    rooms = Rooms(
        store,
        accounts,
        Sessions(store, settings.session_seconds, settings.idle_seconds),
        Attempts(database),
        Leases(store, settings.annotations_per_pair, settings.lease_seconds),
        settings.tls,
    )
    app = FastAPI(
        openapi_url=None, redirect_slashes=False
    )  # and so no pages that describe the app, which would load scripts from afar
    app.state.rooms = rooms
    for router in (door.router, compare.router, admin.router):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    _answer_errors(app, rooms)
    return Guard(app, settings.tls)


def _answer_errors(app: FastAPI, rooms: Rooms) -> None:
    """Answer each kind of error with a page of ours, which tells nothing of the inside."""

    def told(status: int, title: str, reason: str, headers: dict[str, str] | None = None) -> HTMLResponse:
        return rooms.page("error.html.j2", None, {"title": title, "reason": reason}, status, headers)

    @app.exception_handler(NobodyIn)
    def nobody(request: Request, error: NobodyIn) -> Response:
        if request.method in ("GET", "HEAD"):
            return RedirectResponse("/login", 303)
        return told(401, "You are not logged in", "What you sent was not kept. Log in again and go on.")

    @app.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> Response:
        return told(error.status, error.title, error.reason, error.headers)

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        fields = ", ".join(sorted({str(found["loc"][-1]) for found in error.errors()}))
        return told(400, "That form is not complete", f"These fields are missing or not as they must be: {fields}.")

    @app.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> Response:
        title = _TITLES.get(error.status_code, "That was not understood")
        return told(error.status_code, title, "Nothing was done.", dict(error.headers or {}))

    @app.exception_handler(DatabaseError)
    def failed(request: Request, error: DatabaseError) -> Response:
        _log.error("%s %s: %s", request.method, request.url.path, error)
        reason = "The database could not be read or written, and nothing was kept. Try again; if it stays so, tell "
        return told(503, "That did not work", reason + "who runs this page.")

    @app.exception_handler(Exception)
    def broken(request: Request, error: Exception) -> Response:
        return told(500, "Something is broken here", "Nothing was kept. Please tell who runs this page.")
