"""Agents and environments of your own: what `--agent` and `--env` name becomes experiments of a suite."""

from __future__ import annotations

import inspect
import json
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import iterate
from numpy.typing import NDArray

from .errors import UserError
from .evaluation import make_env
from .suites import TAG, Experiment, Suite


@dataclass(frozen=True)
class Named:
    """What is typed after --agent and --env: `[NAME=]PATH[{"keyword": value}]`.

    Attributes:
        name: in tables and figures.
        path: "module:factory", or a Gymnasium id.
        keywords: of the factory or the environment.
    """

    name: str
    path: str
    keywords: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.name}={self.path}{json.dumps(self.keywords) if self.keywords else ''}"


class Function:
    """A function observation -> action as an agent; it learns nothing.

    Args:
        act: the function.
        observation_space: of a batch, whatever its size.
    """

    def __init__(self, act: Callable[[Any], Any], observation_space: spaces.Space[Any]) -> None:
        self._act, self._space = act, observation_space

    def predict(self, observation: Any, deterministic: bool = False) -> tuple[NDArray[Any], None]:
        """Return one action for each observation of a batch."""
        return np.array([self._act(row) for row in iterate(self._space, observation)]), None


def as_agent(made: Any, factory: str, observation_space: spaces.Space[Any]) -> Any:
    """Return what a factory made as an agent: with a `predict`, and perhaps a `learn`.

    Args:
        made: an agent, or a function of one observation.
        factory: what made it, for messages.
        observation_space: of the vector environment.

    Raises:
        TypeError: if it is neither an agent nor a function, or its `learn` takes no callback.
    """
    if callable(getattr(made, "predict", None)):
        if hasattr(made, "learn") and not _takes(made.learn, 0, callback=None):
            raise TypeError(
                f"{factory}: {type(made).__name__}.learn{inspect.signature(made.learn)} does not take "
                "(total_timesteps, callback=), as every SB3 algorithm does; it may ignore the callback"
            )
        return made
    if callable(made):
        return Function(made, observation_space)
    raise TypeError(
        f"{factory} returned {made!r}; an agent has predict(observations, deterministic=) and, if it learns, "
        "learn(total_timesteps, callback=), or it is a function of one observation that returns one action"
    )


def _takes(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> bool:
    """Return whether a call fits the signature of a function, as far as it has one."""
    try:
        inspect.signature(function).bind(*arguments, **keywords)
    except TypeError:
        return False
    except ValueError:  # of a builtin
        return True
    return True


def with_own(
    suite: Suite, agents: Sequence[Named] = (), envs: Sequence[Named] = (), steps: int | None = None
) -> Suite:
    """Return a suite of the given agents, or else of its own, on the given environments, or else on its tasks.

    An agent trains as long on a task as the suite's longest experiment there, and a suite's agent on an environment
    as long as in its own longest experiment. What was there of the suite and is not named is left out: rows of both
    lie side by side in one folder.

    Args:
        suite: the suite.
        agents: factories, called as factory(env, seed, **keywords).
        envs: Gymnasium ids.
        steps: of training, for all that train; None: as above.

    Raises:
        UserError: if a name stands for something else in the suite, the suite does not measure agents alike, or is
            about its own tasks.
    """
    found = suite.experiments
    if envs and suite.sections is not None:
        raise UserError(f"suite {suite.name!r} is about tasks of its own; run --env with another suite")
    _check_names("--agent", agents, {e.agent for e in found})
    _check_names("--env", envs, {e.task for e in found})
    if envs:
        found = tuple(
            replace(base, task=env.name, env_id=env.path, env_kwargs=env.keywords, tags=(*base.tags, TAG))
            for env in envs
            for base in _longest(found, lambda e: e.agent)
        )
    if agents:
        alike = [e for e in found if e.trial == Experiment.trial]
        if not alike:
            raise UserError(f"suite {suite.name!r} measures in a way of its own; run --agent with another suite")
        found = tuple(
            replace(base, agent=own.name, factory=own.path, agent_kwargs=own.keywords, tags=(TAG,),
                    steps=steps or base.steps)
            for base in _longest(alike, lambda e: e.task)
            for own in agents
        )  # fmt: skip
    elif steps is not None:
        found = tuple(replace(e, steps=steps) if e.steps else e for e in found)
    return replace(suite, experiments=found)


def options(experiment: Mapping[str, Any], suite: Suite) -> list[str]:
    """Return the options that make a suite hold an experiment as a row records it: none for one of its own."""
    agents, envs, steps = _named(experiment, suite)
    found = [text for own in agents for text in ("--agent", str(own))]
    found += [text for own in envs for text in ("--env", str(own))]
    return found if steps is None else [*found, "--steps", str(steps)]


def repeated(experiment: Mapping[str, Any], suite: Suite) -> Suite:
    """Return the suite that these options make."""
    return with_own(suite, *_named(experiment, suite))


def _named(experiment: Mapping[str, Any], suite: Suite) -> tuple[list[Named], list[Named], int | None]:
    """Return the agents, environments and steps that a suite does not hold itself."""
    agents, envs = [], []
    added = TAG in experiment["tags"]
    if added and experiment["agent"] not in {e.agent for e in suite.experiments}:
        agents = [Named(experiment["agent"], experiment["factory"], experiment["agent_kwargs"])]
    if added and experiment["task"] not in {e.task for e in suite.experiments}:
        envs = [Named(experiment["task"], experiment["env_id"], experiment["env_kwargs"])]
    names = experiment["task"], experiment["agent"]
    steps = {e.steps for e in with_own(suite, agents, envs).experiments if (e.task, e.agent) == names}
    return agents, envs, None if steps == {experiment["steps"]} else experiment["steps"]


def parse_agent(text: str) -> Named:
    """Return the agent that `--agent` names, after importing it.

    Raises:
        UserError: if there is no such factory, it takes other arguments, or its module cannot be imported.
    """
    agent = _parse("--agent", text, lambda path: path.partition(":")[2])
    module, _, name = agent.path.partition(":")
    if not module or not name:
        raise UserError(f"--agent {text}: {agent.path!r} is not MODULE:FACTORY, such as my_agent:make")
    found = getattr(_import(module, f"--agent {text}"), name, None)
    if not callable(found):
        there = "it has no" if found is None else f"{found!r} is no function: no"
        raise UserError(f"--agent {text}: {there} factory {name!r} in module {module!r}; give MODULE:FACTORY")
    if not _takes(found, None, 0, **agent.keywords):
        raise UserError(
            f"--agent {text}: {agent.path}{inspect.signature(found)} does not take (env, seed"
            f"{''.join(f', {key}=' for key in agent.keywords)}), with which it is called"
        )
    return agent


def parse_env(text: str) -> Named:
    """Return the environment that `--env` names, after making it once.

    Raises:
        UserError: if it cannot be made: an unknown id, other keywords, whatever it raises.
    """
    env = _parse("--env", text, lambda path: path.rpartition(":")[2].rpartition("/")[2])
    if ":" in env.path:
        _import(env.path.rpartition(":")[0], f"--env {text}")
    try:
        make_env(env.path, 1, env.keywords).close()
    except Exception as error:
        raise UserError(f"--env {text}: {type(error).__name__}: {error}") from error
    return env


def _parse(option: str, text: str, short: Callable[[str], str]) -> Named:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # a shell hands on any bytes
        raise UserError(f"{option} {text!a}: this is not UTF-8 text, and cannot be shown; give another") from error
    found = re.fullmatch(r"(?:(.*?)=)?([\w.:/ -]+)(\{.*)?", text, re.DOTALL)  # a name may hold "=" and "{", too
    name, path, given = found.groups("") if found else ("", text, "")
    try:
        keywords = json.loads(given or "{}")
    except ValueError as error:
        raise UserError(
            f'{option} {text}: keywords are a JSON object, such as {{"length": 4}} ({error})'
        ) from error
    path = path.strip(" :")
    said = ", ".join(f"{key}={value!r}" for key, value in keywords.items())
    return Named(name or short(path) + (f"({said})" if said else ""), path, keywords)


def _import(module: str, option: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise UserError(
                f"{option}: no module {error.name!r} is installed or lies in the current directory"
            ) from error
        raise _raised(module, option, error) from error
    except Exception as error:
        raise _raised(module, option, error) from error


def _raised(module: str, option: str, error: Exception) -> UserError:
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{error.filename}, line {error.lineno}" if isinstance(error, SyntaxError) else (
        f"{last.filename}, line {last.lineno}"
    )  # fmt: skip
    return UserError(f"{option}: importing {module!r} raised {type(error).__name__}: {error} ({where})")


def _check_names(option: str, named: Sequence[Named], taken: set[str]) -> None:
    for i, own in enumerate(named):
        if own.name in taken:
            raise UserError(
                f"{option} {own}: the suite has its own {own.name!r}; give yours a name, NAME={own.path}"
            )
        if own.name in {other.name for other in named[:i]}:
            raise UserError(f"{option} {own}: two are called {own.name!r}; give one a name, NAME={own.path}")


def _longest(experiments: Sequence[Experiment], group: Callable[[Experiment], str]) -> list[Experiment]:
    """Return the experiment with the most steps of each group, the first of equals, in the order of the groups."""
    found: dict[str, Experiment] = {}
    for experiment in experiments:
        best = found.setdefault(group(experiment), experiment)
        if experiment.steps > best.steps:
            found[group(experiment)] = experiment
    return list(found.values())
