"""What there is to know about an environment, gathered from its task: for tables, pages and the terminal."""

from __future__ import annotations

import inspect
import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from .engine import Engine
from .exact import TooLarge, Values
from .registration import find_spec, make_env, task_ids
from .tasks.base import Task
from .utterance_env import UtteranceEnv

EXAMPLE_SEED = 1
NOT_HERE = {  # keywords of `gym.make` that say nothing here, and why
    "level": "an environment is shown and played by whole utterances, and the page tells of all levels",
    "max_episode_steps": "a time limit stands around an environment, and the task itself is shown and played",
    "id": "the id is given once, before the keywords",
    "task": "the id names it",
}
FEW_TOKENS = 64
EXAMPLE_DRAWS = 100  # random episodes of which an example shows the best, where best play is not known


@dataclass(frozen=True)
class Turn:
    """One utterance of an example episode, and what came of it."""

    said: str
    reward: float
    reply: str


@dataclass(frozen=True)
class Example:
    """An episode: what was shown, and the turns; `how` says who spoke."""

    shown: str
    turns: tuple[Turn, ...]
    how: str


@dataclass(frozen=True)
class Entry:
    """An environment at its defaults.

    Attributes:
        id: what `gym.make` takes.
        family: of the task.
        summary: the first line of the task's docstring.
        about: the rest of it, up to the arguments.
        source: where the idea comes from.
        keywords: (name, default, meaning) of the task's own arguments.
        turns: most utterances of an episode, None where only the context bounds them.
        vocab_size: V.
        tokens: the V tokens as text, where they are few and one of our tokenizers has them; else none.
        horizon: most tokens that an episode's utterances can have.
        context_length: L.
        values: the exact ends of the scale, None where they are not known.
    """

    id: str
    family: str
    summary: str
    about: str
    source: str
    keywords: tuple[tuple[str, str, str], ...]
    turns: int | None
    vocab_size: int
    tokens: tuple[str, ...]
    horizon: int
    context_length: int
    values: Values | None


def entries(ids: Sequence[str] | None = None) -> Iterator[Entry | ImportError]:
    """Yield the entry of each id, or what its task needs that is not installed."""
    for id in task_ids() if ids is None else ids:
        try:
            yield describe(id)
        except ImportError as error:
            yield error


def describe(id: str, /, **keywords: Any) -> Entry:
    """Return what there is to know about an environment.

    Raises:
        gymnasium.error.Error: if there is no such id, or it is none of ours.
        ImportError: if its task needs an extra that is not installed, or the module it names cannot be found.
        TypeError: if a keyword says nothing here.
    """
    env = make(id, **keywords)
    task = env.task
    summary, about, source, _ = _sections(type(task))
    return Entry(
        id=id,
        family=task.family,
        summary=summary,
        about=about,
        source=source,
        keywords=keywords_of(type(task)),
        turns=task.turns,
        vocab_size=task.vocab_size,
        tokens=tuple(getattr(task.codec, "vocabulary", ())) if task.vocab_size <= FEW_TOKENS else (),
        horizon=task.context_length if task.turns is None else task.turns * task.max_new_tokens,
        context_length=task.context_length,
        values=exact_values(task),
    )


def make(id: str, /, **keywords: Any) -> UtteranceEnv:
    """Return an environment of ours at utterance level.

    Raises:
        gymnasium.error.Error: if there is no such id, or it is none of ours.
        ImportError: if the module that it names cannot be found.
        TypeError: if a keyword says nothing here.
    """
    for name in NOT_HERE.keys() & keywords:
        raise TypeError(f"{name}={keywords[name]!r} says nothing here: {NOT_HERE[name]}; leave it out")
    try:
        spec = find_spec(id)
    except gym.error.UnregisteredEnv as error:
        near = [known for known in task_ids() if id.lower() in known.lower()]
        hint = f"did you mean {' or '.join(near)}?" if near else "`text-envs list` shows those there are"
        raise gym.error.NameNotFound(f"{error} {hint}") from error
    if spec.entry_point != f"{make_env.__module__}:{make_env.__name__}":
        raise gym.error.Error(f"{id} is no environment of text_envs; ours: {', '.join(task_ids())}")
    env = gym.make(id, level="utterance", **keywords).unwrapped
    assert isinstance(env, UtteranceEnv)
    return env


def exact_values(task: Task) -> Values | None:
    """Return the exact ends of a task's scale, None where they cannot be had."""
    try:
        return task.values
    except (NotImplementedError, TooLarge):
        return None


def example(task: Task, seed: int = EXAMPLE_SEED) -> Example:
    """Play an episode: best utterances or references where they are known, else the best of random episodes."""
    engine = Engine(task, 1)
    engine.seed([seed])
    engine.begin()
    shown = engine.context(0)
    try:
        task.demonstrate(engine.said())
    except (NotImplementedError, TooLarge):
        return Example(shown, _best_random(task, seed), f"the best of {EXAMPLE_DRAWS} random episodes")
    turns: list[Turn] = []
    over = False
    while not over:
        for token in task.demonstrate(engine.said())[0]:
            turn, over = _say(engine, np.array([token]))[0]
        assert turn is not None
        turns.append(turn)
    return Example(shown, tuple(turns), "the reference" if exact_values(task) is None else "best play")


def keywords_of(made: type) -> tuple[tuple[str, str, str], ...]:
    """Return (name, default, meaning) of a class's arguments; a meaning may stand with a parent's."""
    meanings: dict[str, str] = {}
    for parent in reversed(inspect.getmro(made)):
        meanings |= _sections(parent)[3]
    parameters = inspect.signature(made).parameters.values()
    return tuple(
        (p.name, _default(p.default), meanings.get(p.name, ""))
        for p in parameters
        if p.default is not inspect.Parameter.empty
    )


def _default(value: Any) -> str:
    return f'"{value.value}"' if isinstance(value, Enum) else reprlib.repr(value)


def _best_random(task: Task, seed: int) -> tuple[Turn, ...]:
    """Return the best of some episodes of one prompt, said uniformly over the legal tokens."""
    engine = Engine(task, EXAMPLE_DRAWS)
    engine.seed([seed] * EXAMPLE_DRAWS)
    engine.begin()
    rng = np.random.default_rng(seed)
    episodes: list[list[Turn]] = [[] for _ in range(EXAMPLE_DRAWS)]
    live = np.arange(EXAMPLE_DRAWS)
    while live.size:
        legal = engine.action_masks()[live]
        actions = np.argmax(rng.random(legal.shape) * legal, axis=1)
        results = _say(engine, actions, live)
        for row, (turn, _) in zip(live.tolist(), results, strict=True):
            if turn is not None:
                episodes[row].append(turn)
        live = live[[not over for _, over in results]]
    return tuple(max(episodes, key=lambda turns: sum(turn.reward for turn in turns)))


def _say(
    engine: Engine, actions: NDArray[np.int64], rows: NDArray[np.intp] | None = None
) -> list[tuple[Turn | None, bool]]:
    """Say one token on each row; return the turn that it closed, if it did, and whether the episode is over."""
    acting = np.arange(engine.num_rows) if rows is None else rows
    starts, ends = engine.said(acting).start, engine.length[acting] + 1
    outcome = engine.say(actions, rows)
    decode = engine.task.codec.decode
    clean = dict(zip(outcome.closed.tolist(), outcome.clean.tolist(), strict=True))
    results: list[tuple[Turn | None, bool]] = []
    for row, start, end, over in zip(acting.tolist(), starts, ends, outcome.terminated.tolist(), strict=True):
        tokens = engine.tokens[row]
        turn = None
        if row in clean:
            turn = Turn(decode(tokens[start:end]), clean[row], decode(tokens[end : engine.length[row]]))
        results.append((turn, over))
    return results


def _sections(task: type) -> tuple[str, str, str, dict[str, str]]:
    """Return a task's summary, what follows it, its source, and its arguments' meanings."""
    text = inspect.getdoc(task) or ""
    head, _, tail = text.partition("\nArgs:\n")
    summary, _, about = head.partition("\n\n")
    listed, _, source = tail.partition("\nSource: ") if tail else ("", *about.partition("\nSource: ")[1:])
    about = about.partition("\nSource: ")[0]
    meanings: dict[str, str] = {}
    for line in listed.splitlines():
        if match := re.match(r"    (\w+): (.*)", line):
            name = match[1]
            meanings[name] = match[2]
        elif line.startswith("        ") and meanings:
            meanings[name] += " " + line.strip()
    return _flow(summary), _flow(about), _flow(source), meanings


def _flow(text: str) -> str:
    """Return paragraphs without the line breaks within them."""
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))
