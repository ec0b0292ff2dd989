"""SB3 callbacks: exact checkpoints, measures of what is said, early stops; sample texts are in `samples.py`.

Evaluation on an environment of its own is SB3's `EvalCallback`, and stopping at its score
`StopTrainingOnRewardThreshold`; both work with our agents as they are. Where an environment restricts actions it is
sb3-contrib's `MaskableEvalCallback`: SB3's hands no masks to `predict`, which warns of it.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from .algorithm import TextAlgorithm, attribute
from .checkpoint import locked
from .on_policy import check_sizes
from .runs import checkpoint_path, checkpoints, save_run, steps_of
from .samples import reward_terms, says_tokens


class Checkpoint(BaseCallback):
    """Saves the run so that `resume` goes on exactly as if it had never stopped.

    A checkpoint is made between rollouts, at the first chance after every `every` steps and when training ends;
    one that is half written never takes the place of the former.

    Args:
        folder: where checkpoint_000000010000.zip and so on go.
        every: environment steps between checkpoints.
        keep: the latest checkpoints that stay.
        environment: save the environment too. False for one that cannot be pickled: the resumed run then begins
            new episodes and is not exact.
        verbose: 1 tells each checkpoint.

    Raises:
        ValueError: at the start of training, if the folder holds later checkpoints: they are another run's.
        FolderInUseError: at the start of training, if another process is training into the folder.
        TypeError: at the start of training, if the environment cannot be pickled.
    """

    def __init__(
        self,
        folder: str | Path,
        every: int = 10_000,
        keep: int = 3,
        *,
        environment: bool = True,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        check_sizes(every=every, keep=keep)
        self.folder, self.every, self.keep, self.environment = Path(folder), every, keep, environment

    def _on_training_start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = locked(self.folder)
        for left in self.folder.glob(".new-*.zip"):  # by a process that was killed while it wrote
            left.unlink(missing_ok=True)
        found = checkpoints(self.folder)
        if found and steps_of(found[-1]) > self.num_timesteps:
            raise ValueError(
                f"{self.folder} holds {found[-1].name}, but this run is at step {self.num_timesteps}; "
                f"resume({str(self.folder)!r}) goes on from there, a new run needs another folder"
            )
        self._last = self.num_timesteps if found and steps_of(found[-1]) == self.num_timesteps else None
        self._within_rollout = False

    def _on_rollout_start(self) -> None:
        steps = self.model.num_timesteps
        if self._last is None or steps // self.every > self._last // self.every:
            self._save(steps)
        self._within_rollout = True

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._within_rollout = False

    def _on_training_end(self) -> None:
        if self.model.num_timesteps != self._last:
            self._save(self.model.num_timesteps)
        self._lock.close()

    def _save(self, steps: int) -> None:
        path = checkpoint_path(self.folder, steps)
        save_run(self.model, path, environment=self.environment, between_rollouts=not self._within_rollout)
        self._last = steps
        for old in checkpoints(self.folder)[: -self.keep]:
            old.unlink(missing_ok=True)
        if self.verbose:
            print(f"saved {path}")


class TextMetrics(BaseCallback):
    """Records what SB3 does not, through its logger.

    - text/length, text/ended, text/reward_clean: of episodes since the last log: mean tokens, share that said the
      end token (the others ran out of room), mean return without noise and scale
    - reward/NAME: mean of each reward term
    - text/entropy: nats a token, as the mean of -log p of the tokens sampled in the last rollout
    - time/rollout_tokens_per_second, time/train_tokens_per_second: a token counts once for each time it is
      trained on
    """

    def _on_training_start(self) -> None:
        self._end_token = attribute(self.training_env, "end_token_id") if says_tokens(self.training_env) else None
        self._rollout = _Rate("time/rollout_tokens_per_second")
        self._train = _Rate("time/train_tokens_per_second")
        self._updates = self.model._n_updates
        self._trained_tokens = getattr(self.model, "trained_tokens", 0)
        self._steps, self._rollout_steps = self.num_timesteps, 0
        self._clock = time.perf_counter()
        self._clean: dict[int, float] = {}  # of the running episodes: a game pays in several turns

    def _on_rollout_start(self) -> None:
        updates = self.model._n_updates - self._updates
        self._updates += updates
        seconds = self._lap()
        if updates:
            self._train.record(self.logger, self._trained_on(updates), seconds)

    def _trained_on(self, updates: int) -> int:
        """Return the tokens since the last call; stock algorithms do not count them, so `updates` tell how many."""
        if isinstance(self.model, TextAlgorithm):
            before, self._trained_tokens = self._trained_tokens, self.model.trained_tokens
            return self._trained_tokens - before
        replayed = getattr(self.model, "replay_buffer", None) is not None
        return updates * (self.model.batch_size if replayed else self._rollout_steps)  # type: ignore[attr-defined]

    def _on_step(self) -> bool:
        for row, (info, done) in enumerate(zip(self.locals["infos"], self.locals["dones"], strict=True)):
            if "reward_clean" in info:
                self._clean[row] = self._clean.get(row, 0.0) + float(info["reward_clean"])
            if not done:
                continue
            values = {f"reward/{name}": value for name, value in reward_terms(info).items()}
            if "episode" in info:
                values["text/length"] = info["episode"]["l"]
            if row in self._clean:
                values["text/reward_clean"] = self._clean.pop(row)
            if self._end_token is not None:
                values["text/ended"] = float(self.locals["actions"][row] == self._end_token)
            for name, value in values.items():
                self.logger.record_mean(name, value)
        return True

    def _on_rollout_end(self) -> None:
        self._rollout_steps, self._steps = self.num_timesteps - self._steps, self.num_timesteps
        self._rollout.record(self.logger, self._rollout_steps, self._lap())
        buffer = getattr(self.model, "rollout_buffer", None)
        if buffer is not None and hasattr(buffer, "log_probs"):  # demonstrations were not sampled
            self.logger.record("text/entropy", -float(buffer.log_probs.mean()))

    def _lap(self) -> float:
        """Return the seconds since the last call."""
        before, self._clock = self._clock, time.perf_counter()
        return self._clock - before


class _Rate:
    """Tokens a second since the last log."""

    def __init__(self, name: str) -> None:
        self._name, self._tokens, self._seconds = name, 0, 0.0

    def record(self, logger: Logger, tokens: int, seconds: float) -> None:
        if self._name not in logger.name_to_value:  # it was logged, so a new stretch begins
            self._tokens, self._seconds = 0, 0.0
        self._tokens += tokens
        self._seconds += seconds
        logger.record(self._name, self._tokens / max(self._seconds, 1e-9))


class _StopBetweenRollouts(BaseCallback):
    """Stops training in the first step of the rollout before which `_reached` tells a reason."""

    def _on_training_start(self) -> None:
        self._stop = False

    def _on_rollout_start(self) -> None:
        reason = self._reached()
        self._stop = reason is not None
        if self._stop and self.verbose:
            print(f"stopped after {self.model.num_timesteps:,} steps: {reason}")

    def _on_step(self) -> bool:
        return not self._stop

    @abstractmethod
    def _reached(self) -> str | None:
        """Return why training is over, None while it goes on."""


class StopAtScore(_StopBetweenRollouts):
    """Stops training when the mean return of the latest training episodes reaches a score.

    Args:
        score: the mean return.
        episodes: how many; at most the algorithm's `stats_window_size`, whose window a checkpoint keeps.
        verbose: 1 tells why training stopped.

    Raises:
        ValueError: at the start of training, if the algorithm's window is shorter.
    """

    def __init__(self, score: float, episodes: int = 100, verbose: int = 1) -> None:
        super().__init__(verbose)
        if not math.isfinite(score):
            raise ValueError(f"score={score}; give a finite mean return")
        check_sizes(episodes=episodes)
        self.score, self.episodes = score, episodes

    def _on_training_start(self) -> None:
        super()._on_training_start()
        window = self.model._stats_window_size
        if self.episodes > window:
            raise ValueError(
                f"episodes={self.episodes}, but the algorithm keeps the returns of {window}; give it "
                f"stats_window_size={self.episodes}"
            )

    def _reached(self) -> str | None:
        known = self.model.ep_info_buffer
        if known is None or len(known) < self.episodes:
            return None
        mean = float(np.mean([episode["r"] for episode in list(known)[-self.episodes :]]))
        if mean < self.score:
            return None
        return f"the last {self.episodes} episodes returned {mean:.3f}, at least {self.score}"


class StopAtKL(_StopBetweenRollouts):
    """Stops training when the policy is further from its reference than wanted.

    PPO measures the distance on the episodes that end in a rollout, GRPO on each update (as the mean of its
    estimate for a token times the mean length of the latest episodes). `target_kl` of the algorithms is another
    thing: it ends the passes over one rollout when the policy has left the one that sampled it.

    Args:
        nats: KL to the reference an episode.
        verbose: 1 tells why training stopped.

    Raises:
        ValueError: at the start of training, if the algorithm has no reference, or does not measure the KL to it.
    """

    def __init__(self, nats: float, verbose: int = 1) -> None:
        super().__init__(verbose)
        if not nats > 0:
            raise ValueError(f"nats={nats}; give a positive distance")
        self.nats = nats

    def _on_training_start(self) -> None:
        super()._on_training_start()
        if getattr(self.model, "reference_policy", None) is None:
            raise ValueError(
                f"{type(self.model).__name__} has no reference to be far from; give it reference='initial', or a "
                "model"
            )
        if not (hasattr(self.model, "kl") or hasattr(self.model, "kl_coef")):
            raise ValueError(f"{type(self.model).__name__} measures no KL; PPO and GRPO do")

    def _reached(self) -> str | None:
        nats = self._measured()
        if nats <= self.nats:
            return None
        return f"{nats:.3g} nats an episode from the reference, more than {self.nats}"

    def _measured(self) -> float:
        coefficient = getattr(self.model, "kl", None)
        if coefficient is not None:
            return coefficient.observed
        a_token = self.logger.name_to_value.get("train/kl_to_reference", 0.0)
        episodes = self.model.ep_info_buffer
        return a_token * float(np.mean([episode["l"] for episode in episodes])) if episodes else 0.0
