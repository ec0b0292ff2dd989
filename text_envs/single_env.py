"""What TokenEnv and UtteranceEnv share: a batch of one, seeding, infos of one row, rendering."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic

import gymnasium as gym
import numpy as np
from gymnasium.core import ActType, ObsType
from gymnasium.error import ResetNeeded

from .attributes import METADATA, TaskAttributes, check_render_mode
from .engine import Engine, Outcome
from .streams import as_seed
from .tasks.base import Task


class SingleEnv(TaskAttributes, gym.Env[ObsType, ActType], Generic[ObsType, ActType]):
    """One row of the engine as a `gymnasium.Env`; a subclass says what an action and an observation are.

    Args:
        task: the task.
        dense: pay the score's differences token by token; the return is the same. A step of a whole utterance
            pays the same either way.
        reward_delay: pay the dense reward every n tokens, whatever `dense` says, the remainder at the end.
        reward_scale: factor on every reward.
        reward_noise: standard deviation of noise on the reward of a closed utterance.
        distractors: irrelevant random tokens before each prompt.
        render_mode: None, "ansi" or "human".
    """

    metadata = METADATA

    def __init__(
        self,
        task: Task,
        *,
        dense: bool = False,
        reward_delay: int | None = None,
        reward_scale: float = 1.0,
        reward_noise: float = 0.0,
        distractors: int = 0,
        render_mode: str | None = None,
    ) -> None:
        self.task = task
        self.render_mode = check_render_mode(render_mode)
        self._engine = Engine(
            task,
            1,
            dense=dense,
            reward_delay=reward_delay,
            reward_scale=reward_scale,
            reward_noise=reward_noise,
            distractors=distractors,
        )
        self.observation_space, self.action_space = self._spaces()
        self._seeded = False
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Begin an episode: the first one of `seed`, or the next one of the seed before.

        Raises:
            TypeError: if the seed is not an integer.
            ValueError: if the seed is negative.
        """
        super().reset(seed=None if seed is None else as_seed(seed))
        if seed is not None or not self._seeded:
            self._engine.seed([self._own_seed()])
            self._seeded = True
        self._engine.begin()
        self._running = True
        if self.render_mode == "human":
            self._print()
        return self._observe(), self._legal_info()

    def demonstrate(self) -> list[int]:
        """Return the token ids of a best utterance, or of the reference, from where the open one began.

        Raises:
            NotImplementedError: if the task knows neither.
            TooLarge: if it has too many states.
            ResetNeeded: if no episode is running.
        """
        self._check_running()
        return self.task.demonstrate(self._engine.said())[0]

    def render(self) -> str | None:  # type: ignore[override]
        """Return the episode so far as text ("ansi"), or print it ("human")."""
        if self.render_mode == "ansi":
            return self._engine.render(0)
        if self.render_mode == "human":
            self._print()
        return None

    @abstractmethod
    def _spaces(self) -> tuple[Any, Any]:
        """Return the spaces of observations and actions."""

    @abstractmethod
    def _observe(self) -> ObsType:
        """Return a fresh observation."""

    def _finish(self, outcome: Outcome) -> tuple[ObsType, float, bool, bool, dict[str, Any]]:
        """Return Gymnasium's five values."""
        reward, terminated = outcome.reward.item(), outcome.terminated.item()
        self._running = not terminated
        info: dict[str, Any] = {}
        if outcome.closed.size:
            info["reward_clean"] = outcome.clean.item()
            if outcome.scored.size:
                info.update(first_row(outcome.details))
        if not terminated:
            info.update(self._legal_info())
        if self.render_mode == "human":
            self._print()
        return self._observe(), reward, terminated, False, info

    def _legal_info(self) -> dict[str, Any]:
        return {"action_mask": self._engine.action_masks()[0]} if self._engine.restricts else {}

    def _check_running(self) -> None:
        if not self._running:
            raise ResetNeeded("no episode is running: call reset() before the first step and after the last")

    def _own_seed(self) -> int:
        seed = self.np_random_seed
        if seed < 0:  # the user set np_random: its seed is not known
            seed = int(self.np_random.integers(np.iinfo(np.int64).max))
        return seed

    def _print(self) -> None:
        print(self._engine.render(0))


def first_row(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first row of per-row values as Python objects; dicts nest."""
    row: dict[str, Any] = {}
    for name, values in details.items():
        if isinstance(values, Mapping):
            row[name] = first_row(values)
        else:
            value = values[0]
            row[name] = value.item() if isinstance(value, np.generic) else value
    return row
