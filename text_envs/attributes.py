"""What an agent can see of any text environment, whatever its level and batch size."""

from __future__ import annotations

from typing import Any

from .tasks.base import Task

METADATA: dict[str, Any] = {"render_modes": ["ansi", "human"], "render_fps": 4}


class TaskAttributes:
    """Attributes that every environment takes over from its task."""

    task: Task

    @property
    def tokenizer(self) -> Any:
        """The tokenizer as it was given to the task."""
        return self.task.tokenizer

    @property
    def end_token_id(self) -> int | None:
        """The action that closes an utterance, None where there is none."""
        return self.task.end_token_id

    @property
    def vocab_size(self) -> int:
        """V: actions are 0..V-1, and V pads observations."""
        return self.task.vocab_size

    @property
    def restricts(self) -> bool:
        """Whether `action_masks` ever masks an action."""
        return self.task.restricts

    def optimal_return(self) -> float:
        """Return the largest expected clean return of an episode.

        Raises:
            NotImplementedError: if the task knows none.
        """
        return self.task.optimal_return()

    def random_return(self) -> float:
        """Return the expected clean return of actions uniform over the legal ones.

        Raises:
            NotImplementedError: if the task knows none.
        """
        return self.task.random_return()

    def normalize(self, return_: float) -> float:
        """Return a mean clean return on the scale where random is 0 and optimal is 1.

        Raises:
            NotImplementedError: if the task does not know both ends.
            ValueError: if both ends are equal: there is nothing to learn.
        """
        low, high = self.random_return(), self.optimal_return()
        if low == high:
            raise ValueError(f"random and optimal both earn {low}: the task has nothing to learn; change it")
        return (return_ - low) / (high - low)


def check_render_mode(render_mode: str | None) -> str | None:
    """Return `render_mode`.

    Raises:
        TypeError: if there is no such mode (Stable-Baselines3 asks every id for "rgb_array" and takes a TypeError
            for a no).
    """
    if render_mode is not None and render_mode not in METADATA["render_modes"]:
        raise TypeError(f"render_mode is None, 'ansi' or 'human', got {render_mode!r}")
    return render_mode
