"""One trial: train an agent on an experiment with one seed, evaluate it, return what the row says of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from text_envs import TokenVectorEnv

from .evaluation import Evaluation, evaluate, make_env, normalize
from .suites import Experiment, resolve

Report = Callable[[float], None]  # called with the finished fraction of the trial

CURVE_POINTS = 40
SAMPLES = 9
EVAL_ENVS = 256
_TRAINING_SHARE = 0.95  # of the progress bar; the rest is the evaluation
_TRAIN, _EVALUATE = 0, 1


def derived_seed(seed: int, stream: int) -> int:
    """Return a seed of its own for each use, so that neighbouring trials share no row of an environment."""
    return int(np.random.SeedSequence([seed, stream]).generate_state(1)[0] >> 1)


class LearningCurve(BaseCallback):
    """Records the mean clean return of the episodes that finished in each interval of training.

    Args:
        interval: environment steps between points.
        total: environment steps of the training, for progress.
        report: told the finished fraction.
    """

    def __init__(self, interval: int, total: int, report: Report) -> None:
        super().__init__()
        self.points: list[tuple[int, float, float]] = []
        self._interval, self._total, self._report = interval, total, report
        self._next = interval
        self._returns: list[float] = []
        self._started = time.perf_counter()

    def _on_training_start(self) -> None:
        self._started = time.perf_counter()

    def _on_step(self) -> bool:
        if self.locals["dones"].any():
            for info in self.locals["infos"]:
                if "episode" in info:
                    self._returns.append(float(info.get("reward_clean", info["episode"]["r"])))
        if self.num_timesteps >= self._next:
            self._next = self.num_timesteps - self.num_timesteps % self._interval + self._interval
            self._add_point()
            self._report(min(1.0, self.num_timesteps / self._total))
        return True

    def _on_training_end(self) -> None:
        self._add_point()

    def _add_point(self) -> None:
        if self._returns:
            seconds = time.perf_counter() - self._started
            self.points.append((self.num_timesteps, seconds, float(np.mean(self._returns))))
            self._returns = []


def train_and_evaluate(experiment: Experiment, seed: int, report: Report) -> dict[str, Any]:
    """Return the measured fields of a row."""
    env = make_env(experiment.env_id, experiment.num_envs, experiment.env_kwargs)
    agent = resolve(experiment.factory)(env, derived_seed(seed, _TRAIN), **experiment.agent_kwargs)
    share = _TRAINING_SHARE if experiment.steps else 0.0
    trained = _train(agent, env, experiment, lambda done: report(share * done))
    env.close()
    return {
        **trained,
        **evaluation_fields(experiment, agent, seed, lambda done: report(share + (1 - share) * done)),
    }


def _train(agent: Any, env: TokenVectorEnv, experiment: Experiment, report: Report) -> dict[str, Any]:
    if not experiment.steps:
        return {"steps": 0, "train_seconds": 0.0, "steps_per_second": None, "curve": []}
    curve = LearningCurve(max(1, experiment.steps // CURVE_POINTS), experiment.steps, report)
    started = time.perf_counter()
    agent.learn(experiment.steps, callback=curve)
    seconds = time.perf_counter() - started
    steps = int(agent.num_timesteps)
    return {
        "steps": steps,
        "train_seconds": round(seconds, 3),
        "steps_per_second": round(steps / seconds, 1),
        "curve": [
            [steps_then, round(seconds_then, 3), value, normalize(env, value)]
            for steps_then, seconds_then, value in curve.points
        ],
    }


def evaluation_fields(
    experiment: Experiment, agent: Any, seed: int, report: Report = lambda done: None
) -> dict[str, Any]:
    """Return `evaluation` (sampled and greedy, on the same fresh episodes) and `samples` of a row."""
    env = make_env(experiment.env_id, min(EVAL_ENVS, experiment.eval_episodes), experiment.env_kwargs)
    results = {}
    for part, (name, deterministic) in enumerate((("sampled", False), ("greedy", True))):
        evaluation_seed = derived_seed(seed, _EVALUATE)
        torch.manual_seed(evaluation_seed)  # what is sampled must not depend on how training ended
        results[name] = evaluate(agent, env, experiment.eval_episodes, evaluation_seed, deterministic)
        report((part + 1) / 2)
    fields = {
        "evaluation": {name: _summary(env, result) for name, result in results.items()},
        "samples": [asdict(episode) for episode in results["sampled"].worst_to_best(SAMPLES)],
    }
    env.close()
    return fields


def _summary(env: TokenVectorEnv, result: Evaluation) -> dict[str, Any]:
    return {
        "episodes": len(result.returns),
        "mean": result.mean,
        "standard_error": result.standard_error,
        "normalized": normalize(env, result.mean),
    }
