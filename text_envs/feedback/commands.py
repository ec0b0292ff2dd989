"""`text-envs feedback ...`: a database of people's preferences from a terminal."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .keys import ENVIRONMENT, Key

if TYPE_CHECKING:
    from .store import Store

Run = Callable[[argparse.Namespace, "Store"], int]
_EXTRA = ("annotator", "when", "seconds", "policies")


def add_feedback(commands: Any) -> None:
    """Add `feedback` and its commands to a parser's."""
    from . import web_commands

    feedback = commands.add_parser(
        "feedback",
        help="people's preferences: collect, keep, import, export",
        description="People's preferences in one file. Where it is to be encrypted, its key is in the environment "
        f"variable {ENVIRONMENT} or in a file that --key-file names.",
    )
    below = feedback.add_subparsers(required=True, metavar="COMMAND")
    add_commands(below)
    web_commands.add_commands(below)


def add_commands(commands: Any) -> None:
    """Add this module's commands."""
    add_command(commands, "init", _init, "make a new database", new=True)

    taking = add_command(commands, "import", _import, "take in pairs, comparisons or ratings from a .jsonl file")
    taking.add_argument("file", type=Path, metavar="FILE", help="see text_envs/feedback/exchange.py for its lines")
    taking.add_argument("--annotator", metavar="NAME", help="whose answers those of nobody are (default: FILE's)")

    export = add_command(commands, "export", _export, "write comparisons as prompt, chosen, rejected")
    export.add_argument("--ties", action="store_true", help='write ties too, as "tie": true')
    ratings = add_command(commands, "ratings", _ratings, "write ratings as prompt, completion, rating")
    for command in (export, ratings):
        command.add_argument("file", type=Path, metavar="FILE", help="such as comparisons.jsonl")
        command.add_argument("--extra", nargs="+", default=[], choices=_EXTRA, help="more fields")

    add_command(commands, "status", _status, "check the file; say how far the work is and how far annotators agree")

    forget = add_command(commands, "forget", _forget, "remove an annotator and their answers, for good")
    forget.add_argument("annotator", metavar="ANNOTATOR", help="their name or pseudonym")
    forget.add_argument("--anonymise", action="store_true", help="keep the answers, which then lead to nobody")

    add_command(
        commands, "scrub", _scrub, "write the file anew, without a byte of what was deleted; forget does it"
    )


def add_command(commands: Any, name: str, run: Run, help: str, *, new: bool = False) -> argparse.ArgumentParser:
    """Add a command on a database and return its parser.

    Args:
        commands: what `add_subparsers` returned.
        name: what is typed.
        run: called with the options and the store; returns the exit status.
        help: one line.
        new: whether the database is to be made, or must be there.
    """
    parser = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
    parser.add_argument("database", type=Path, metavar="DATABASE", help="the file, such as people.db")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="holds the key of an encrypted database "
                        f"(default: the environment variable {ENVIRONMENT}, if it is set)")  # fmt: skip
    parser.set_defaults(command=partial(_with_store, run, new))
    return parser


def _with_store(run: Run, new: bool, options: argparse.Namespace) -> int:
    from .database import Database
    from .store import Store

    if options.database.exists() == new:
        raise (
            FileExistsError(f"{options.database} is there already")
            if new
            else FileNotFoundError(
                f"{options.database} is not there; make it: text-envs feedback init {options.database}"
            )
        )
    with Database(options.database, _key(options.key_file)) as database:
        return run(options, Store(database))


def _key(file: Path | None) -> Key | None:
    if file is not None:
        return Key.from_file(file)
    return Key.from_environment() if ENVIRONMENT in os.environ else None


def _init(options: argparse.Namespace, store: Store) -> int:
    print(f"made {options.database}, {_kind(store)}")
    return 0


def _import(options: argparse.Namespace, store: Store) -> int:
    from .exchange import import_file

    done = import_file(store, options.file, annotator=options.annotator)
    print(f"new: {done.pairs} pairs, {done.comparisons} comparisons, {done.ratings} ratings; "
          f"there already: {done.known}")  # fmt: skip
    if done.forgotten:
        print(f"left out: {done.forgotten} answers of annotators who were forgotten here")
    return 0


def _export(options: argparse.Namespace, store: Store) -> int:
    from .exchange import export_comparisons

    number = export_comparisons(store, options.file, extra=options.extra, ties=options.ties)
    print(f"wrote {number} comparisons to {options.file}")
    return 0


def _ratings(options: argparse.Namespace, store: Store) -> int:
    from .exchange import export_ratings

    print(f"wrote {export_ratings(store, options.file, extra=options.extra)} ratings to {options.file}")
    return 0


def _status(options: argparse.Namespace, store: Store) -> int:
    from .agreement import agreement

    last = store.check()
    sealed = f"{last.number} entries, the last sealed {last.seal[:16]}" if last else "no entries"
    progress = store.progress()
    print(f"{options.database}: sound, {_kind(store)}; audit: {sealed}")
    print(f"{progress.answered} of {progress.pairs} pairs compared, {progress.comparisons} comparisons, "
          f"{progress.skipped} skipped")  # fmt: skip
    agreed = agreement(store.answers())
    alpha = "undefined" if agreed.alpha is None else f"{agreed.alpha:.3f}"
    print(f"Krippendorff's alpha: {alpha}, over {agreed.shared} pairs that two or more have compared")
    print(f"{'annotator':<20}{'name':<24}{'comparisons':>12}{'ties':>6}{'skipped':>9}{'ratings':>9}{'agrees':>8}")
    for counts in store.counts():
        share = agreed.with_others.get(counts.pseudonym)
        print(f"{counts.pseudonym:<20}{counts.name or '-':<24}{counts.comparisons:>12}{counts.ties:>6}"
              f"{counts.skipped:>9}{counts.ratings:>9}{'-' if share is None else f'{share:.2f}':>8}")  # fmt: skip
    return 0


def _forget(options: argparse.Namespace, store: Store) -> int:
    store.forget(options.annotator, "anonymise" if options.anonymise else "delete")
    kept = "their answers are nobody's now" if options.anonymise else "their answers are deleted"
    print(f"{options.annotator} is forgotten; {kept}")
    return 0


def _scrub(options: argparse.Namespace, store: Store) -> int:
    store.database.scrub()
    print(f"wrote {options.database} anew")
    return 0


def _kind(store: Store) -> str:
    return "encrypted" if store.database.encrypted else "not encrypted"
