"""What the pages share: the store and its neighbours, who asks, and how a template becomes a page."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Form, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..accounts import ADMIN, Accounts
from ..agreement import Agreement, agreement
from ..attempts import Attempts
from ..leases import Leases
from ..sessions import Session, Sessions
from ..store import Store

HERE = Path(__file__).parent
_ANEW = 2.0  # seconds until agreement is counted anew
_RARELY = 50  # and times as long as that takes


class Refused(Exception):
    """A request that is answered by a page saying why it was not done."""

    def __init__(self, status: int, title: str, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.title, self.reason, self.headers = status, title, reason, headers


class NobodyIn(Exception):
    """A request of a browser that is not in, or not any more."""


@dataclass(frozen=True)
class Rooms:
    """What requests work on.

    Attributes:
        tls: whether the page is reached by https.
    """

    store: Store
    accounts: Accounts
    sessions: Sessions
    attempts: Attempts
    leases: Leases
    tls: bool
    pages: Environment = field(default_factory=lambda: _environment())
    agreed: Agreed = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "agreed", Agreed(self.store))

    @property
    def cookie(self) -> str:
        """The name of the session's cookie; under TLS, one that browsers take from this host over TLS only.

        Else no name that others take: browsers keep one jar for all ports of a host.
        """
        return "__Host-session" if self.tls else "text-envs-session"

    def page(
        self,
        template: str,
        session: Session | None,
        values: Mapping[str, object],
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> HTMLResponse:
        """Return a page.

        Args:
            template: its name.
            session: who looks at it; None: anybody.
            values: what the template asks for; it fails if one is missing.
            status: the answer's.
            headers: the answer's.
        """
        csrf = Markup('<input type="hidden" name="csrf" value="{}">').format(session.csrf if session else "")
        html = self.pages.get_template(template).render(values, session=session, csrf=lambda: csrf)
        return HTMLResponse(html, status, headers)


class Agreed:
    """How far annotators agree, counted anew now and then, by one thread for all."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._last: tuple[float, Agreement] | None = None  # until when it is good

    def now(self) -> Agreement:
        """Return what is known of it; it may be some seconds old."""
        last, now = self._last, self._store.database.now
        if last is not None and (now() < last[0] or self._lock.locked()):
            return last[1]
        with self._lock:
            found = self._last
            if found is None or found is last:  # nobody else has counted while this one waited
                began = now()
                answer = agreement(self._store.answers())
                found = self._last = (now() + max(_ANEW, _RARELY * (now() - began)), answer)
            return found[1]


async def find_rooms(request: Request) -> Rooms:
    """Return what the app works on."""
    return request.app.state.rooms


InRooms = Annotated[Rooms, Depends(find_rooms)]


def find_session(request: Request, rooms: InRooms) -> Session:
    """Return who asks.

    Raises:
        NobodyIn: if that is nobody we know.
    """
    session = rooms.sessions.find(request.cookies.get(rooms.cookie, ""))
    if session is None:
        raise NobodyIn
    return session


Asking = Annotated[Session, Depends(find_session)]


async def find_sender(session: Asking, csrf: Annotated[str, Form()] = "") -> Session:
    """Return who sent a form.

    Raises:
        Refused: if it is not a form of a page that this session was given.
    """
    if not hmac.compare_digest(csrf.encode("utf-8", "surrogatepass"), session.csrf.encode()):
        raise Refused(
            403, "This form is not yours", "It was made for another login, so nothing was done. Load the page anew."
        )
    return session


Sending = Annotated[Session, Depends(find_sender)]


async def find_sending_admin(session: Sending) -> Session:
    """Return the admin who sent a form; raise Refused as `find_sender` and `check_admin` do."""
    return await check_admin(session)


SendingAdmin = Annotated[Session, Depends(find_sending_admin)]


async def check_admin(session: Asking) -> Session:
    """Return who asks.

    Raises:
        Refused: if that is no admin.
    """
    if session.account.role != ADMIN:
        raise Refused(403, "For admins only", "Your account is an annotator's. Ask whoever runs this page.")
    return session


Administering = Annotated[Session, Depends(check_admin)]


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
