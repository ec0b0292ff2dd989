"""A person plays an environment in a terminal, one utterance a turn."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import Any

from .catalog import Entry, describe, exact_values, make
from .page import ends
from .utterance_env import UtteranceEnv, not_a_text

_DIM, _BOLD, _GREEN, _RED, _PLAIN = "2", "1", "32", "31", "0"


def play(id: str, keywords: dict[str, Any], seed: int | None = None, episodes: int = 0) -> int:
    """Let a person type the utterances until input ends, or for some episodes; return the exit status."""
    env = make(id, **keywords)
    best = exact_values(env.task)
    _introduce(describe(id, **keywords))
    returns: list[float] = []
    try:
        while not episodes or len(returns) < episodes:
            returns.append(_episode(env, seed if not returns else None))
            print(_paint(_BOLD, f"episode {len(returns)} earned {returns[-1]:.3f}"))
    except (EOFError, KeyboardInterrupt):
        print()
    if returns:
        mean = sum(returns) / len(returns)
        print(f"{len(returns)} episodes, mean return {mean:.3f}" + _beside(mean, best))
    return 0


def _introduce(entry: Entry) -> None:
    """Say what the task is, what can be said, and how to stop."""
    print(_paint(_BOLD, entry.summary) + "\n\n" + textwrap.fill(entry.about.partition("\n\n")[0], 100))
    if entry.tokens:
        print("\n" + textwrap.fill("Tokens: " + " ".join(token for token in entry.tokens if token.strip()), 100))
    print("\nCtrl-D or Ctrl-C ends the game.")


def _episode(env: UtteranceEnv, seed: int | None) -> float:
    """Return what a person earned in one episode."""
    context, _ = env.reset(seed=seed)
    total, terminated, shown = 0.0, False, ""
    while not terminated:
        print("\n" + _paint(_DIM, shown) + context.removeprefix(shown))
        said = _typed()
        if said not in env.action_space:
            print(_paint(_RED, not_a_text(said, env.action_space)))
            continue
        shown = context
        context, reward, terminated, _, info = env.step(said)
        total += reward
        if terminated and context != shown:
            print(_paint(_DIM, shown) + context.removeprefix(shown))
        print(_paint(_GREEN if reward > 0 else _RED if reward < 0 else _DIM, f"reward {reward:.3f}") + _notes(info))
    return total


def _typed() -> str:
    """Return a line that a person typed.

    Raises:
        EOFError: if there is none.
    """
    try:
        said = input("> ")
    except RuntimeError as error:  # there is no standard input
        raise EOFError(str(error)) from error
    if not sys.stdin.isatty():
        print(said)  # a terminal has shown it already
    return said


def _beside(mean: float, values: Any) -> str:
    if values is None:
        return ""
    optimal, random = ends(values)
    scale = values.optimal - values.random
    normalized = f", normalised {(mean - values.random) / scale:.3f}" if scale else ""
    return f" (optimal {optimal}, random {random}{normalized})"


def _notes(info: dict[str, Any]) -> str:
    return "".join(f", {name} {value!r}" for name, value in info.items() if name in ("completion", "reward_terms"))


def _paint(code: str, text: str) -> str:
    """Return text in a colour where a terminal shows it (NO_COLOR turns it off)."""
    if not text or not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\x1b[{code}m{text}\x1b[{_PLAIN}m"
