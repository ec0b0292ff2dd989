"""TokenEnv: one token per step, a batch of one over the engine."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction
from numpy.typing import NDArray

from .single_env import SingleEnv
from .tasks.base import Task


class TokenEnv(SingleEnv[NDArray[np.int64], np.int64]):
    """A text task, one token per step.

    Observation: `Box(0, V, (L,), int64)`, the context (the prompt and everything said since), right-padded
    with V, which is never an action. Within an episode it only grows. Action: `Discrete(V)`, the next token.

    The end token or the budget closes an utterance, which pays its score (float64); the task then replies
    or the episode is terminated. `info["reward_clean"]` on a closing step is the utterance's score; text
    tasks add `prompt` and `completion`. `info["action_mask"]` is there where a task restricts actions; a masked
    action closes the utterance with the task's invalid reward.

    For the arguments see `SingleEnv`.
    """

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.int64], float, bool, bool, dict[str, Any]]:
        """Say one token.

        Raises:
            InvalidAction: if the action is not an integer in 0..V-1.
            ResetNeeded: if no episode is running, or the last step failed.
        """
        self._check_running()
        try:
            token = -1 if isinstance(action, bool) else operator.index(action)  # as in a batch: no bools
        except TypeError:
            token = -1
        if not 0 <= token < self.task.vocab_size:
            raise InvalidAction(not_a_token(action, self.task.vocab_size))
        return self._finish(self._engine.say(np.array([token])))

    def action_masks(self) -> NDArray[np.bool_]:
        """Return (V,), True where an action is legal now, in a fresh array."""
        return self._engine.action_masks()[0]

    def _spaces(self) -> tuple[spaces.Box, spaces.Discrete]:
        return token_context(self.task, self._engine.context_length), spaces.Discrete(self.task.vocab_size)

    def _observe(self) -> NDArray[np.int64]:
        return self._engine.tokens[0].copy()


def token_context(task: Task, context_length: int) -> spaces.Box:
    """Return the space of a context's token ids, padding included."""
    return spaces.Box(0, task.vocab_size, (context_length,), np.int64)


def not_a_token(action: Any, vocab_size: int) -> str:
    """Return what to tell who passed an action outside the space."""
    return (
        f"action {action!r} is not an integer in 0..{vocab_size - 1}; an action is a token id "
        f"(the observation's padding, {vocab_size}, is not one)"
    )
