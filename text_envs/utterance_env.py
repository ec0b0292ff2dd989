"""UtteranceEnv: one utterance per step, in free text."""

from __future__ import annotations

from typing import Any

from gymnasium.error import InvalidAction

from .single_env import SingleEnv
from .spaces import UnicodeText, first_surrogate
from .tasks.base import Task

MOST_CHARACTERS = 2**16  # of an action: many times what is said at once, and encoded in milliseconds


class UtteranceEnv(SingleEnv[str, str]):
    """A text task, one whole utterance per step; the same task and the same return as TokenEnv.

    Observation: the context as text. Action: the utterance, any text of up to 65,536 characters (more, where the
    budget has room for more). Its tokens are said one after the other, then the end token where the task has one,
    so the budget closes a longer text early: what lies beyond is not said. A text that has no tokens in the task's
    vocabulary, or a masked one, closes the utterance with the task's invalid reward. `action_space.sample()` draws
    texts that the budget has room for.

    For the arguments see `SingleEnv`.
    """

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Say one utterance.

        Raises:
            InvalidAction: if the action is not a text of the action space.
            ResetNeeded: if no episode is running, or the last step failed.
        """
        self._check_running()
        if action not in self.action_space:
            raise InvalidAction(not_a_text(action, self.action_space))
        return self._finish(self._engine.utter([action]))

    def _spaces(self) -> tuple[UnicodeText, UnicodeText]:
        return text_of(self.task, self._engine.context_length), utterance_of(self.task)

    def _observe(self) -> str:
        return self._engine.context(0)


def text_of(task: Task, tokens: int) -> UnicodeText:
    """Return the space of texts that up to `tokens` tokens can make."""
    return UnicodeText(tokens * task.codec.max_token_length)


def utterance_of(task: Task) -> UnicodeText:
    """Return the space of utterances: the budget, not the space, cuts what a language model says at length."""
    budget = task.max_new_tokens * task.codec.max_token_length
    return UnicodeText(max(MOST_CHARACTERS, budget), longest_sample=budget)


def not_a_text(action: Any, space: Any) -> str:
    """Return what to tell who passed an action outside the space."""
    if not isinstance(action, str):
        return f"action {action!r} is a {type(action).__name__}; pass a str, the utterance"
    if (place := first_surrogate(action)) is not None:
        return (
            f"action {action!r} holds a lone surrogate, {action[place]!r} at {place}, which is half a "
            'character; mend it with action.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
        )
    return (
        f"action {action[:80]!r}... has {len(action)} characters, more than the {space.max_length} of an "
        "action; shorten it"
    )
