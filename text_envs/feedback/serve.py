"""Serving the page: where it may listen, and what the terminal tells meanwhile."""

from __future__ import annotations

import ipaddress
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..rewards.packages import missing
from .errors import DatabaseError
from .store import Store

if TYPE_CHECKING:
    from .settings import Settings

PORT = 8765
_TOLD_EVERY = {True: 2.0, False: 60.0}  # seconds, on a terminal and in a file


@dataclass(frozen=True)
class Tls:
    """The files that let browsers come by https."""

    certificate: Path
    private_key: Path

    def check(self) -> None:
        """Read both.

        Raises:
            ValueError: if they cannot be read, or are no certificate and its key.
        """
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                self.certificate, self.private_key, password=lambda: b""
            )
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"{self.certificate} and {self.private_key} are not PEM files of a certificate and its private key "
                f"without a password: {error}"
            ) from error


def serve(
    store: Store, settings: Settings, host: str = "127.0.0.1", port: int = PORT, tls: Tls | None = None
) -> int:
    """Serve the page until Ctrl-C or a TERM signal; requests under way come to their end.

    Args:
        store: what people compare.
        settings: how the page works.
        host: the address to listen on; others than loopback's need TLS files, and an account.
        port: 0: any that is free.
        tls: None: http.

    Raises:
        ValueError: if it may not or cannot listen there, or nobody could enter.
        ImportError: if the extra is not installed.
    """
    try:
        import uvicorn

        from .accounts import Accounts
        from .web.app import make_app
    except ImportError as error:
        raise missing("the page", error.name or "fastapi", "feedback") from error
    if tls is not None:
        tls.check()
    accounts = Accounts(store)
    with _listening(host, port, tls, bool(accounts.all())) as listener:
        config = uvicorn.Config(
            make_app(store.database, settings, accounts),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # or whoever connects could name the address that its wrong logins count for
            ws="none",
            lifespan="off",
            timeout_keep_alive=75,  # people read for a while between two requests
            timeout_graceful_shutdown=10,
            ssl_certfile=None if tls is None else tls.certificate,
            ssl_keyfile=None if tls is None else tls.private_key,
        )
        where = f"{'https' if tls else 'http'}://{_written(listener)}/"
        print(f"people compare texts at {where} (Ctrl-C ends it)", flush=True)
        with _told(store, sys.stdout), _ending_by_signal():
            uvicorn.Server(config).run(sockets=[listener])
    print("ended; all answers are in the database")
    return 0


def _listening(host: str, port: int, tls: Tls | None, has_accounts: bool) -> socket.socket:
    """Return a socket that listens, where it may.

    Raises:
        ValueError: if it may not, or cannot.
    """
    if not has_accounts:
        raise ValueError("nobody has an account, so nobody could enter: feedback account add DATABASE NAME")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError) as error:
        raise ValueError(f"host={host!r} and port={port} are no address of this machine: {error}") from error
    family, _, _, _, address = found[0]
    ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if not ip.is_loopback and tls is None:
        raise ValueError(
            f"host={host!r} is reached from other machines, and passwords and texts would go to them unencrypted: "
            "give --tls-cert and --tls-key, or listen on 127.0.0.1 and let people come through an SSH tunnel"
        )
    both = family == socket.AF_INET6 and ip.is_unspecified and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        raise ValueError(f"{host} port {port} cannot be used ({error.strerror}); name another: --port") from error


def _written(listener: socket.socket) -> str:
    """Return where a browser on this machine finds it, or one elsewhere if a host was named."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        host = socket.gethostname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def _ending_by_signal() -> Iterator[None]:
    """Let uvicorn's clean end be the end: after it, the server sends itself again the signal that ended it."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: None) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _how_far(store: Store) -> str:
    try:
        progress = store.progress()
    except DatabaseError as error:  # which may pass; who looks at the terminal is told meanwhile
        return str(error)
    return f"{progress.answered:,} of {progress.pairs:,} pairs compared, {progress.comparisons:,} answers"


@contextmanager
def _told(store: Store, out: TextIO) -> Iterator[None]:
    """Tell how far the work is, whenever that has changed: in place on a terminal, else a line a minute."""
    ended = threading.Event()

    def tell() -> None:
        last = ""
        terminal = out.isatty()
        while not ended.wait(_TOLD_EVERY[terminal]):
            text = _how_far(store)
            if text != last:
                print(f"\r{text}" if terminal else text, end="" if terminal else "\n", file=out, flush=True)
            last = text
        if terminal and last:
            print(file=out)

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
