"""Rewards made of functions with another signature: of one pair, or of chat messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from .base import Reward, RewardError, RewardFunction
from .calling import Pending, abandon, is_awaitable, is_failure, name_of, shown, together


class PerSample(Reward):
    """A reward made of a function of one prompt and one completion; see `per_sample`."""

    def __init__(self, function: Callable[[str, str], float | Awaitable[float]]) -> None:
        self.function = function

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> Any:
        """Return the function's value for each pair; of an async function, an awaitable of them all.

        Raises:
            RewardError: from what the function raised, with the pair it raised on.
        """
        values: list[Any] = []
        try:
            for prompt, completion in zip(prompts, completions, strict=True):
                try:
                    value = self.function(prompt, completion)
                except Exception as error:
                    raise self._failed(error, prompt, completion) from error
                if is_awaitable(value):
                    value = Pending(partial(self._awaited, value, prompt, completion), [value])
                values.append(value)
        except RewardError:
            abandon(values)
            raise
        return Pending(partial(together, values), values) if any(map(is_awaitable, values)) else values

    async def _awaited(self, value: Any, prompt: str, completion: str) -> Any:
        try:
            return await value
        except BaseException as error:
            if not is_failure(error):
                raise
            raise self._failed(error, prompt, completion) from error

    def _failed(self, error: BaseException, prompt: str, completion: str) -> RewardError:
        return RewardError(f"{name_of(self.function)} raised {error!r} on {shown(prompt, completion)}")


class Conversational(Reward):
    """A reward made of one that takes chat messages; see `conversational`."""

    def __init__(self, function: RewardFunction) -> None:
        self.function = function

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> Any:
        """Return the function's values on prompts and completions as messages."""
        asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
        said = [[{"role": "assistant", "content": completion}] for completion in completions]
        return self.function(prompts=asked, completions=said, **columns)


def per_sample(function: Callable[[str, str], float | Awaitable[float]]) -> PerSample:
    """Return a reward that calls `function(prompt, completion)` on each pair.

    Of an async function it is an async reward, which asks for all pairs at once. TRL does not see that it is one:
    put it into a WeightedSum there, which waits for its terms.
    """
    return PerSample(function)


def conversational(function: RewardFunction) -> Conversational:
    """Return a reward that hands prompts and completions to `function` as lists of chat messages.

    TRL's own rewards for chat data want `[{"role": ..., "content": ...}]` instead of strings.
    """
    return Conversational(function)
