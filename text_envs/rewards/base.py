"""What a reward is: one contract, the weighted sum of several, and how the engine asks for one.

    def reward(prompts: list[str], completions: list[str], **columns) -> list[float]

It is the contract of TRL's trainers, so a function moves between the two unchanged. Columns hold one value per
completion: the sample's own and `completion_ids`. The function may be `async def`. A reward that fails stops the
run: a failure is never a zero.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .calling import RewardError, RewardFunction, Values, call_all, is_finite, shown

__all__ = ["Reward", "RewardError", "RewardFunction", "Values", "WeightedSum", "evaluate", "load_reward"]


class Reward(ABC):
    """A reward with settings or resources.

    A reward is shared, never copied: Gymnasium copies an environment's keywords with every `spec`, and a copy of
    a reward may be a second model in memory. What it keeps in a `functools.cached_property` (a model, a lock) is
    left out of its pickle, and made again when it is first needed.
    """

    @abstractmethod
    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> Any:
        """Return one float per completion, None where the reward does not apply; or an awaitable of them."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return self."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings without the resources."""
        of = type(self)
        return {k: v for k, v in vars(self).items() if not isinstance(getattr(of, k, None), cached_property)}


class WeightedSum(Reward):
    """The weighted sum of named rewards, each reported in `info["reward_terms"]`.

    Async terms are awaited together, after the others have answered; the sum itself is an ordinary function.

    Args:
        terms: name -> (reward, weight). A term that returns None for a completion does not apply to it: it
            adds nothing there and is reported as NaN.

    Raises:
        ValueError: if there is no term, or a weight is not a finite number.
        TypeError: if the terms are not a mapping, or one is not a (callable, weight) pair.

    Example:
        >>> WeightedSum({"sentiment": (VaderSentiment(), 1.0), "length": (Length(), -0.1)})
    """

    def __init__(self, terms: Mapping[str, tuple[RewardFunction, float]]) -> None:
        if not isinstance(terms, Mapping):
            raise TypeError(f'the terms of a WeightedSum are a dict {{"name": (reward, weight)}}, got {terms!r}')
        if not terms:
            raise ValueError('a WeightedSum needs at least one term, such as {"length": (Length(), 0.1)}')
        for name, term in terms.items():
            if not (isinstance(term, tuple) and len(term) == 2 and callable(term[0])):
                raise TypeError(f"term {name!r} is (reward, weight), got {term!r}")
            _refuse_class(term[0], f"the reward of term {name!r}")
            if not is_finite(term[1]):
                raise ValueError(f"the weight of term {name!r} is a finite number, got {term[1]!r}")
        self.parts = dict(terms)

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the weighted sums.

        Raises:
            RewardError: if a term fails, none applies to a completion, or a sum overflows.
        """
        return self.report(prompts, completions, **columns)[0].tolist()

    def report(
        self, prompts: list[str], completions: list[str], **columns: Any
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
        """Return the (n,) sums and each term's (n,) unweighted values, NaN where it does not apply."""
        rewards = [reward for reward, _ in self.parts.values()]
        answers = call_all(rewards, prompts, completions, columns, none_allowed=True)
        terms = dict(zip(self.parts, answers, strict=True))
        values = np.stack(answers)  # (terms, n)
        nowhere = np.isnan(values).all(axis=0)
        if nowhere.any():
            at = int(np.argmax(nowhere))
            raise RewardError(
                f"no term of {list(terms)} applies to {shown(prompts[at], completions[at])}: all returned None; "
                "add a term that always applies"
            )
        weights = np.array([weight for _, weight in self.parts.values()], np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.nansum(values * weights[:, None], axis=0)
        overflows = ~np.isfinite(sums)
        if overflows.any():
            at = int(np.argmax(overflows))
            parts = {name: (float(term[at]), self.parts[name][1]) for name, term in terms.items()}
            raise RewardError(
                f"the weighted sum is {sums[at]} for {shown(prompts[at], completions[at])}: its terms and weights "
                f"are {parts}; make them smaller"
            )
        return sums, terms


def evaluate(
    reward: RewardFunction, prompts: list[str], completions: list[str], columns: Mapping[str, Any]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Call a reward once and check what it returns.

    Returns:
        The (n,) values, and the terms of a WeightedSum (else none).

    Raises:
        RewardError: if it raises, or does not return one finite number per completion.
    """
    if isinstance(reward, WeightedSum):
        return reward.report(prompts, completions, **columns)
    return call_all([reward], prompts, completions, columns, none_allowed=False)[0], {}


def load_reward(reward: RewardFunction | str) -> RewardFunction:
    """Return a reward: a callable as it is, "module:name" as the reward of that name, or as what a factory returns.

    A function or an object that takes `prompts` and `completions` is a reward; anything else is a factory and is
    called without arguments.

    Raises:
        ValueError: if the string has another form, or names nothing that can be imported.
        TypeError: if the result is a class or not callable, or the factory needs arguments.
    """
    if isinstance(reward, str):
        found = _imported(reward)
        reward = found if _takes_completions(found) or not callable(found) else _made(found, reward)
    _refuse_class(reward, "reward")
    if not callable(reward):
        raise TypeError(
            f"a reward is a callable (prompts, completions, **columns) -> list of floats, got {reward!r}"
        )
    return reward


def _imported(name: str) -> Any:
    """Return what "module:name" names."""
    module, _, path = name.partition(":")
    if not (module and path):
        raise ValueError(f'reward={name!r} is not of the form "module:name"')
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"reward={name!r} names nothing that can be imported: {error}") from error
    return found


def _takes_completions(found: Any) -> bool:
    """Whether something is itself a reward, and no factory."""
    return not inspect.isclass(found) and {"prompts", "completions"} <= set(_parameters(found))


def _made(factory: Any, name: str) -> Any:
    """Return what a factory returns."""
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    given = _parameters(factory).values()
    needed = [p.name for p in given if p.default is inspect.Parameter.empty and p.kind not in kinds]
    if needed:
        raise TypeError(
            f"reward={name!r} is called without arguments to make the reward, but needs {', '.join(needed)}; name "
            "a function that needs none, or the reward itself, a function of prompts and completions (per_sample "
            "makes one of a function of a single pair)"
        )
    return factory()


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a callable, none where Python does not know them."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _refuse_class(reward: Any, name: str) -> None:
    """Raise if somebody passed a reward's class, which can be called too.

    Raises:
        TypeError: with the remedy.
    """
    if inspect.isclass(reward):
        raise TypeError(f"{name} is the class {reward.__name__}; pass an instance, such as {reward.__name__}()")
