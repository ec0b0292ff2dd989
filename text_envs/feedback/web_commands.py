"""`text-envs feedback serve` and `... account`: the page for people, and who may enter."""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .commands import add_command

if TYPE_CHECKING:
    from .accounts import Accounts
    from .store import Store


def add_commands(commands: Any) -> None:
    """Add this module's commands."""
    serve = add_command(commands, "serve", _serve, "let people compare texts in a browser")
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only); "
                       "others need TLS files")  # fmt: skip
    serve.add_argument("--port", type=int, default=8765, help="default: 8765; 0: any that is free")
    serve.add_argument("--tls-cert", type=Path, metavar="FILE", help="a certificate, PEM")
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM")
    serve.add_argument("--annotations-per-pair", type=int, default=1, metavar="N", help="how many are to compare "
                       "each pair (default: 1; with 2 or more, agreement is measured)")  # fmt: skip
    serve.add_argument("--lease-minutes", type=float, default=10, metavar="N", help="how long a pair is kept for "
                       "the browser that shows it (default: 10)")  # fmt: skip
    serve.add_argument("--session-hours", type=float, default=12, metavar="N", help="when everybody has to log in "
                       "again (default: 12; sooner after an hour without a request)")  # fmt: skip

    account = commands.add_parser("account", help="who may enter", description="Who may enter.")
    accounts = account.add_subparsers(required=True, metavar="add | remove | password | list")
    adding = add_command(accounts, "add", _add, "let somebody in; the password is asked for, or read from a pipe")
    adding.add_argument("--admin", action="store_true", help="who also sees everybody's answers, and exports them")
    removing = add_command(accounts, "remove", _remove, "let somebody in no longer; what they answered stays")
    password = add_command(accounts, "password", _password, "give somebody a new password; they log in again")
    for command in (adding, removing, password):
        command.add_argument("name", metavar="NAME", help="what they type")
    add_command(accounts, "list", _list, "show who may enter")


def _serve(options: argparse.Namespace, store: Store) -> int:
    from .serve import Tls, serve
    from .settings import Settings

    if (options.tls_cert is None) != (options.tls_key is None):
        raise ValueError("--tls-cert and --tls-key go together: a certificate, and its private key")
    tls = None if options.tls_cert is None else Tls(options.tls_cert, options.tls_key)
    settings = Settings(
        annotations_per_pair=options.annotations_per_pair,
        lease_seconds=60 * options.lease_minutes,
        session_seconds=3600 * options.session_hours,
        tls=tls is not None,
    )
    return serve(store, settings, options.host, options.port, tls)


def _add(options: argparse.Namespace, store: Store) -> int:
    from .accounts import ADMIN, ANNOTATOR

    role = ADMIN if options.admin else ANNOTATOR
    _accounts(store).add(options.name, _asked_password(options.name), role)
    print(f"{options.name} may enter as {role}")
    return 0


def _remove(options: argparse.Namespace, store: Store) -> int:
    _accounts(store).remove(options.name)
    print(f"{options.name} may not enter any more; `forget` removes what they answered, too")
    return 0


def _password(options: argparse.Namespace, store: Store) -> int:
    _accounts(store).set_password(options.name, _asked_password(options.name))
    print(f"{options.name} has a new password, and logs in with it again")
    return 0


def _list(options: argparse.Namespace, store: Store) -> int:
    print(f"{'name':<24}{'role':<12}{'since':<12}{'pseudonym'}")
    for account in _accounts(store).all():
        since = time.strftime("%Y-%m-%d", time.localtime(account.created))
        print(f"{account.name:<24}{account.role:<12}{since:<12}{account.pseudonym}")
    return 0


def _accounts(store: Store) -> Accounts:
    from .accounts import Accounts

    return Accounts(store)


def _asked_password(name: str) -> str:
    """Return a password that somebody types twice without its being shown, or the first line of a pipe."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass(f"password of {name}: ")
    if getpass.getpass("again: ") != password:
        raise ValueError("these were two different passwords; nothing was done")
    return password
