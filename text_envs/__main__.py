"""`python -m text_envs list | info | play | page | judge | feedback`: what there is, from a terminal."""

from __future__ import annotations

import argparse
import ast
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym

from . import label
from .catalog import describe, entries, example, make
from .feedback.commands import add_feedback
from .feedback.errors import DatabaseError
from .page import ends, markdown, section, turns
from .play import play
from .registration import task_ids
from .rewards import RewardError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the process's exit status."""
    parser = argparse.ArgumentParser(prog="text-envs", description="Text generation environments.")
    commands = parser.add_subparsers(required=True, metavar="list | info | play | page | judge | feedback")
    commands.add_parser("list", help="a table of all environments").set_defaults(command=_list)
    info = commands.add_parser("info", help="all there is to know about one, and an example episode")
    info.set_defaults(command=_info)
    playing = commands.add_parser("play", help="type what the agent would say")
    playing.add_argument("--seed", type=int, default=None, help="seed of the first episode")
    playing.add_argument("--episodes", type=int, default=0, help="stop after that many (default: never)")
    playing.set_defaults(command=_play)
    for command in (info, playing):
        command.add_argument("id", help="such as text_envs/Copy-v0")
        command.add_argument(
            *("--set", "-s"),
            action="extend",
            nargs="+",
            default=[],
            metavar="KEY=VALUE",
            help="keywords, such as length=4",
        )
    page = commands.add_parser("page", help="write a page about all environments, in Markdown")
    page.add_argument("file", type=Path, help="such as docs/environments.md")
    page.set_defaults(command=_page)
    label.add_command(commands)
    add_feedback(commands)
    options = parser.parse_args(arguments)
    try:
        return options.command(options)
    except BrokenPipeError:  # the reader has seen enough, as in `list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at the exit
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except (gym.error.Error, RewardError, DatabaseError, TypeError, ValueError, ImportError, OSError) as error:
        print(f"text-envs: error: {error}", file=sys.stderr)
        return 2


def _list(options: argparse.Namespace) -> int:
    """Print a line for each environment as soon as its values are known."""
    print(
        f"{'id':<30}{'family':<13}{'turns':>6}{'actions':>8}{'tokens':>7}{'optimal':>18}{'random':>18}", flush=True
    )
    for id, entry in zip(task_ids(), entries(), strict=True):
        if isinstance(entry, ImportError):
            print(f"{id:<30}{entry}", flush=True)
            continue
        optimal, random = ends(entry.values)
        size = f"{turns(entry):>6}{entry.vocab_size:>8,}{entry.horizon:>7,}"
        print(f"{id:<30}{entry.family:<13}{size}{optimal:>18}{random:>18}", flush=True)
    return 0


def _info(options: argparse.Namespace) -> int:
    keywords = dict(map(_keyword, options.set))
    entry = describe(options.id, **keywords)
    print(section(entry, example(make(options.id, **keywords).task)))
    return 0


def _play(options: argparse.Namespace) -> int:
    return play(options.id, dict(map(_keyword, options.set)), options.seed, options.episodes)


def _page(options: argparse.Namespace) -> int:
    text = markdown()
    options.file.parent.mkdir(parents=True, exist_ok=True)
    options.file.write_text(text, encoding="utf-8")
    print(f"written to {options.file}")
    return 0


def _keyword(text: str) -> tuple[str, Any]:
    """Return the name and value of KEY=VALUE: true or false in any case, a Python literal, else a string."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not of the form KEY=VALUE")
    if value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


if __name__ == "__main__":
    sys.exit(main())
