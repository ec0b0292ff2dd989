"""`python -m text_envs list` and `python -m text_envs play ID`: look at the environments from a terminal."""

from __future__ import annotations

import argparse
import ast
import os
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium as gym

from .registration import task_ids, task_summary
from .utterance_env import UtteranceEnv, not_a_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m text_envs", description="Text generation environments.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print every id and what it is")
    play = commands.add_parser("play", help="play an environment: type what the agent would say")
    play.add_argument("id", help="such as text_envs/Copy-v0")
    play.add_argument("--seed", type=int, default=None, help="seed of the first episode")
    play.add_argument("--episodes", type=int, default=0, help="stop after that many (default: never)")
    play.add_argument(
        *("--set", "-s"), action="append", default=[], metavar="KEY=VALUE", help="a keyword, such as length=4"
    )
    options = parser.parse_args(arguments)
    try:
        if options.command == "list":
            print("\n".join(f"{id:28}{task_summary(id)}" for id in task_ids()), flush=True)
            return 0
        return run(options.id, dict(map(_keyword, options.set)), options.seed, options.episodes)
    except BrokenPipeError:  # the reader has seen enough, as in `list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at the exit
        return 1
    except (gym.error.Error, TypeError, ValueError, ImportError) as error:
        print(f"text_envs: {error}", file=sys.stderr)
        return 2


def run(id: str, keywords: dict[str, Any], seed: int | None, episodes: int) -> int:
    """Let a person type the utterances of an environment until input ends."""
    env = gym.make(id, level="utterance", **keywords).unwrapped
    assert isinstance(env, UtteranceEnv)
    played = 0
    try:
        while not episodes or played < episodes:
            context, _ = env.reset(seed=seed if not played else None)
            total, terminated = 0.0, False
            while not terminated:
                print(f"\n{context}")
                said = input("> ")
                if said not in env.action_space:
                    print(not_a_text(said, env.action_space))
                    continue
                context, reward, terminated, _, info = env.step(said)
                total += reward
                print(f"reward {reward:.3f}" + "".join(_notes(info)))
            played += 1
            print(f"episode {played} earned {total:.3f}")
    except (EOFError, KeyboardInterrupt):
        print()
    return 0


def _notes(info: dict[str, Any]) -> list[str]:
    return [f", {name} {value!r}" for name, value in info.items() if name in ("completion", "reward_terms")]


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
