"""One table of ids, one loop that registers them, and the two functions Gymnasium calls to make them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection
from typing import Any, Literal

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from .candidates import CandidateActions, CandidateVectorActions
from .tasks.base import Task
from .token_env import TokenEnv
from .utterance_env import UtteranceEnv
from .vector_env import TokenVectorEnv, UtteranceVectorEnv

Level = Literal["token", "utterance", "candidate"]
NAMESPACE = __package__

TASKS: dict[str, str] = {  # name in the id -> module:class
    "Bandit": f"{__package__}.tasks.bandit:Bandit",
    "Copy": f"{__package__}.tasks.copy:Copy",
    "Reverse": f"{__package__}.tasks.reverse:Reverse",
    "Sort": f"{__package__}.tasks.sort:Sort",
    "Recall": f"{__package__}.tasks.recall:Recall",
    "Password": f"{__package__}.tasks.password:Password",
    "Delay": f"{__package__}.tasks.delay:Delay",
    "Brackets": f"{__package__}.tasks.brackets:Brackets",
    "Arithmetic": f"{__package__}.tasks.arithmetic:Arithmetic",
    "Pattern": f"{__package__}.tasks.pattern:Pattern",
    "Lipogram": f"{__package__}.tasks.lipogram:Lipogram",
    "NGram": f"{__package__}.tasks.ngram:NGram",
    "GuessNumber": f"{__package__}.tasks.guess_number:GuessNumber",
    "TwentyQuestions": f"{__package__}.tasks.twenty_questions:TwentyQuestions",
    "Mastermind": f"{__package__}.tasks.mastermind:Mastermind",
    "Wordle": f"{__package__}.tasks.wordle:Wordle",
    "Sentiment": f"{__package__}.tasks.sentiment:Sentiment",
    "Keywords": f"{__package__}.tasks.keywords:Keywords",
    "Readability": f"{__package__}.tasks.readability:Readability",
    "Summarize": f"{__package__}.tasks.summarize:Summarize",
    "Style": f"{__package__}.tasks.style:Style",
    "ReasoningGym": f"{__package__}.adapters.reasoning_gym:ReasoningGym",
    "TextArena": f"{__package__}.adapters.textarena:TextArena",
}


def task_ids() -> list[str]:
    """Return the ids of all environments of this package."""
    return [f"{NAMESPACE}/{name}-v0" for name in TASKS]


def register_task(id: str, task: str) -> None:
    """Register a task of your own under an id, at both levels and as a batched environment.

    Args:
        id: such as "mine/Riddle-v0".
        task: "module:class", a subclass of Task whose arguments have defaults. A string, so that the
            environment's spec can be written as JSON and worker processes can find the class.

    Raises:
        TypeError: if the task is no such string.
    """
    if not isinstance(task, str) or not all(task.partition(":")):
        raise TypeError(f'a task is registered as "module:class", a string, got {task!r}')
    gym.register(
        id,
        entry_point=f"{__name__}:make_env",
        vector_entry_point=f"{__name__}:make_vector_env",
        kwargs={"task": task},
    )


def register_all() -> None:
    """Register every row of the table."""
    for id, task in zip(task_ids(), TASKS.values(), strict=True):
        register_task(id, task)


def find_spec(id: str) -> EnvSpec:
    """Return the registration of an id; "module:Name-v0" imports the module first, as `gym.make` does.

    Raises:
        gymnasium.error.Error: if there is none; the message names what is close.
        ImportError: if the module cannot be found.
    """
    module, _, name = id.rpartition(":")
    if module:
        importlib.import_module(module)
    return gym.spec(name)


def make_env(task: str, *, level: Level = "token", **keywords: Any) -> gym.Env:
    """Make a single environment; Gymnasium's entry point.

    Args:
        task: "module:class".
        level: "token" or "utterance", what a step says; or "candidate", which of `k` proposed utterances.
        keywords: the environment's and the task's arguments, each known to one of them; at level "candidate" also
            those of `CandidateActions`.

    Raises:
        ValueError: if there is no such level.
        TypeError: if neither the environment nor the task knows a keyword, or the task calls one of its own as the
            environment does.
    """
    if level == "candidate":
        return _make_candidates(CandidateActions, UtteranceEnv, task, keywords)
    return _make(TokenEnv if _is_token(level) else UtteranceEnv, task, keywords)


def make_vector_env(task: str, num_envs: int = 1, *, level: Level = "token", **keywords: Any) -> VectorEnv:
    """Make a batched environment; Gymnasium's vector entry point. See `make_env`."""
    keywords["num_envs"] = num_envs
    if level == "candidate":
        return _make_candidates(CandidateVectorActions, UtteranceVectorEnv, task, keywords)
    return _make(TokenVectorEnv if _is_token(level) else UtteranceVectorEnv, task, keywords)


def _is_token(level: str) -> bool:
    if level not in ("token", "utterance"):
        raise ValueError(f'level is "token", "utterance" or "candidate", got {level!r}')
    return level == "token"


def _make_candidates(
    wrapper: Callable[..., Any], environment: Callable[..., Any], path: str, keywords: dict[str, Any]
) -> Any:
    """Give each keyword to the wrapper, the environment or the task."""
    ours = _names(wrapper) - {"env"}
    others = {keyword: value for keyword, value in keywords.items() if keyword not in ours}
    env = _make(environment, path, others, also=ours)
    return wrapper(env, **{keyword: value for keyword, value in keywords.items() if keyword in ours})


def _make(environment: Callable[..., Any], path: str, keywords: dict[str, Any], also: Collection[str] = ()) -> Any:
    """Give each keyword to the environment or the task, whichever knows it; `also` are the wrapper's."""
    task = _task(path)
    ours, its = _names(environment) - {"task"}, _names(task)
    if taken := its & {*ours, *also, "level", "task"}:
        raise TypeError(
            f"{task.__name__} has the keyword {', '.join(map(repr, sorted(taken)))}, which is the environment's "
            "own here and would never reach the task; give it another name"
        )
    unknown = [keyword for keyword in keywords if keyword not in ours | its]
    if unknown:
        hint = '; they are for level="candidate"' if set(unknown) <= _names(CandidateActions) else ""
        raise TypeError(
            f"{task.__name__} has no keyword {', '.join(map(repr, unknown))}{hint}. Its own: {_listed(its)}. "
            f"Every environment's: {_listed(ours | {'level', *also})}"
        )
    built = task(**{keyword: value for keyword, value in keywords.items() if keyword in its})
    return environment(built, **{keyword: value for keyword, value in keywords.items() if keyword in ours})


def _task(path: str) -> type[Task]:
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if not (inspect.isclass(found) and issubclass(found, Task)):
        raise TypeError(f'{path!r} names no subclass of Task, but {found!r}; it is of the form "module:class"')
    return found


def _names(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
