"""Learned rewards under the contract of TRL's trainers and of text_envs; training one is `reward_training.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from stable_baselines3.common.utils import get_device

from .reward_training import FittedReward, noted_separator, train_reward_model
from .scorer import Scorer, load_scorer

__all__ = ["FittedReward", "RewardEnsemble", "RewardModel", "train_reward_model"]


class RewardModel:
    """What a reward model makes of completions: the score of prompt, separator and completion as one text.

    It is shared, never copied, and pickled without its weights, which are loaded again when they are needed.

    Args:
        folder: of `train_reward_model`, of TRL's RewardTrainer, or any sequence classifier with one output.
        separator: put between prompt and completion, as in training; None: as `train_reward_model` has noted it
            in the folder, else nothing.
        device: as in SB3.

    Raises:
        FileNotFoundError: if there is no such folder.
        CheckpointError: if it holds something else, or is damaged.
    """

    def __init__(
        self, folder: str | Path, *, separator: str | None = None, device: torch.device | str = "auto"
    ) -> None:
        self.folder, self.device = Path(folder).expanduser(), device
        self._scorer: Scorer | None = self._load()  # now, so that what is wrong with it is told early
        self.separator = noted_separator(self.folder) if separator is None else separator

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return one score a completion, in log-odds; only differences between a prompt's mean anything.

        Raises:
            ValueError: if a text is too long, or has characters that the tokenizer does not know.
        """
        if self._scorer is None:
            self._scorer = self._load()
        return self._scorer.score([p + self.separator + c for p, c in zip(prompts, completions, strict=True)])

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return self."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings."""
        return {**vars(self), "_scorer": None}

    def _load(self) -> Scorer:
        return load_scorer(self.folder).requires_grad_(False).to(get_device(self.device))


class RewardEnsemble:
    """The mean of several rewards less their spread: what they disagree on is not worth chasing.

    Args:
        members: rewards, such as reward models trained with different seeds; at least two.
        coefficient: of the standard deviation between them.

    Raises:
        ValueError: if there are fewer than two, or the coefficient is negative or not finite.

    Source: Coste et al. 2023, arXiv:2310.02743, who subtract the variance; the standard deviation is in the unit
    of the reward.
    """

    def __init__(self, members: Sequence[Callable[..., Sequence[float]]], coefficient: float = 1.0) -> None:
        if len(members) < 2:
            raise ValueError(f"an ensemble of {len(members)} has no spread; give at least two members")
        if not 0 <= coefficient < np.inf:
            raise ValueError(f"coefficient={coefficient}; give a finite number, at least 0")
        self.members, self.coefficient = list(members), coefficient

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return mean minus coefficient times standard deviation of each completion."""
        values = np.array([member(prompts, completions, **columns) for member in self.members], float)
        return (values.mean(axis=0) - self.coefficient * values.std(axis=0)).tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return self."""
        return self
