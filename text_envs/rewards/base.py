"""What a reward is: one contract, its checks, and ways to make rewards out of smaller ones.

    def reward(prompts: list[str], completions: list[str], **columns) -> list[float]

It is the contract of TRL's trainers, so a function moves between the two unchanged. Columns hold one value per
completion: the sample's own and `completion_ids`. A reward that fails stops the run: a failure is never a
zero.
"""

from __future__ import annotations

import importlib
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

RewardFunction = Callable[..., Sequence[float | None]]


class RewardError(RuntimeError):
    """A reward raised, or returned something that is not one finite number per completion."""


class Reward(ABC):
    """A reward with settings or resources.

    A reward is shared, never copied: Gymnasium copies an environment's keywords with every `spec`, and a copy of
    a reward may be a second model in memory.
    """

    @abstractmethod
    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        """Return one float per completion."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return self."""
        return self


class PerSample(Reward):
    """A reward made of a function of one prompt and one completion; see `per_sample`."""

    def __init__(self, function: Callable[[str, str], float]) -> None:
        self.function = function

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        """Return the function's value for each pair.

        Raises:
            RewardError: from what the function raised, with the pair it raised on.
        """
        values = []
        for prompt, completion in zip(prompts, completions, strict=True):
            try:
                value = self.function(prompt, completion)
            except Exception as error:
                raise RewardError(
                    f"{_name(self.function)} raised {error!r} on {_shown(prompt, completion)}"
                ) from error
            _refuse_async(self.function, value)
            values.append(value)
        return values


class Conversational(Reward):
    """A reward made of one that takes chat messages; see `conversational`."""

    def __init__(self, function: RewardFunction) -> None:
        self.function = function

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        """Return the function's values on prompts and completions as messages."""
        asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
        said = [[{"role": "assistant", "content": completion}] for completion in completions]
        return self.function(asked, said, **columns)  # type: ignore[return-value]


class WeightedSum(Reward):
    """The weighted sum of named rewards, each reported in `info["reward_terms"]`.

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
            if not _is_finite(term[1]):
                raise ValueError(f"the weight of term {name!r} is a finite number, got {term[1]!r}")
        self.parts = dict(terms)

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        """Return the weighted sums.

        Raises:
            RewardError: if a term fails, none applies to a completion, or a sum overflows.
        """
        return self.report(prompts, completions, **columns)[0].tolist()

    def report(
        self, prompts: list[str], completions: list[str], **columns: list[Any]
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
        """Return the (n,) sums and each term's (n,) unweighted values, NaN where it does not apply."""
        terms = {
            name: _checked(reward, prompts, completions, columns, none_allowed=True)
            for name, (reward, _) in self.parts.items()
        }
        values = np.stack(list(terms.values()))  # (terms, n)
        nowhere = np.isnan(values).all(axis=0)
        if nowhere.any():
            at = int(np.argmax(nowhere))
            raise RewardError(
                f"no term of {list(terms)} applies to {_shown(prompts[at], completions[at])}: all returned None; "
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
                f"the weighted sum is {sums[at]} for {_shown(prompts[at], completions[at])}: its terms and weights "
                f"are {parts}; make them smaller"
            )
        return sums, terms


def per_sample(function: Callable[[str, str], float]) -> PerSample:
    """Return a reward that calls `function(prompt, completion)` on each pair."""
    return PerSample(function)


def conversational(function: RewardFunction) -> Conversational:
    """Return a reward that hands prompts and completions to `function` as lists of chat messages.

    TRL's own rewards for chat data want `[{"role": ..., "content": ...}]` instead of strings.
    """
    return Conversational(function)


def evaluate(
    reward: RewardFunction, prompts: list[str], completions: list[str], columns: Mapping[str, list[Any]]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """Call a reward once and check what it returns.

    Returns:
        The (n,) values, and the terms of a WeightedSum (else none).

    Raises:
        RewardError: if it raises, or does not return one finite number per completion.
    """
    if isinstance(reward, WeightedSum):
        return reward.report(prompts, completions, **columns)
    return _checked(reward, prompts, completions, columns, none_allowed=False), {}


def load_reward(reward: RewardFunction | str) -> RewardFunction:
    """Return a reward: a callable as it is, "module:factory" as what the factory returns.

    Raises:
        ValueError: if the string has another form, or names nothing that can be imported.
        TypeError: if the result is not callable.
    """
    if isinstance(reward, str):
        module, _, name = reward.partition(":")
        if not (module and name):
            raise ValueError(f'reward={reward!r} is not of the form "module:factory"')
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"reward={reward!r} names nothing that can be imported: {error}") from error
        reward = found()
    if not callable(reward):
        raise TypeError(
            f"a reward is a callable (prompts, completions, **columns) -> list of floats, got {reward!r}"
        )
    return reward


def _checked(
    reward: RewardFunction,
    prompts: list[str],
    completions: list[str],
    columns: Mapping[str, list[Any]],
    *,
    none_allowed: bool,
) -> NDArray[np.float64]:
    """Return a reward's (n,) values, NaN for None where that is allowed."""
    name = _name(reward)
    copies = {column: list(known) for column, known in columns.items()}  # a reward may change what it is given
    try:
        values = reward(list(prompts), list(completions), **copies)
    except RewardError:
        raise
    except Exception as error:
        others = f" (the first of {len(prompts)})" if len(prompts) > 1 else ""
        raise RewardError(
            f"{name} raised {error!r} on {_shown(prompts[0], completions[0])}{others}; a failed reward is never "
            "counted as 0: mend the function, or let it return a value for such texts"
        ) from error
    _refuse_async(reward, values)
    shape = getattr(values, "shape", None)  # an array's or a tensor's
    if shape is None and isinstance(values, Sequence):
        shape = (len(values),)
    if shape is None or tuple(shape) != (len(completions),):
        if shape is None:
            count = f"{values!r:.200}"
        else:
            count = f"{shape[0]} values" if len(shape) == 1 else f"an array of shape {tuple(shape)}"
        raise RewardError(
            f"{name} returned {count} for {len(completions)} completions, the first "
            f"{_shown(prompts[0], completions[0])}; "
            "return a list, one float per completion (a function of a single pair goes through per_sample)"
        )
    for value, prompt, completion in zip(values, prompts, completions, strict=True):
        if value is None and none_allowed:
            continue
        if not _is_finite(value):
            hint = "; None is for terms of a WeightedSum" if value is None else ""
            shown = "an integer too large for a float" if isinstance(value, int) else repr(value)
            raise RewardError(
                f"{name} returned {shown} for {_shown(prompt, completion)}; return a finite float{hint}"
            )
    return np.array([math.nan if value is None else float(value) for value in values], np.float64)


def _is_finite(value: Any) -> bool:
    """Return whether a value is one number and finite as a float; an array or tensor of one number is not one."""
    try:
        return getattr(value, "shape", ()) == () and math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


def _refuse_async(function: Any, result: Any) -> None:
    if inspect.iscoroutine(result):
        result.close()  # it will never be awaited, and Python need not warn of it
        raise RewardError(
            f"{_name(function)} is an async function; a reward is an ordinary one here: let it call "
            "asyncio.run(...) and return the values"
        )


def _name(function: Any) -> str:
    return f"reward {getattr(function, '__qualname__', type(function).__qualname__)}"


def _shown(prompt: str, completion: str, most: int = 300) -> str:
    cut = [text if len(text) <= most else text[:most] + "..." for text in (prompt, completion)]
    return f"prompt {cut[0]!r}, completion {cut[1]!r}"
