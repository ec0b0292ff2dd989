"""One trial: train an agent on an experiment with one seed, evaluate it, return what the row says of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import set_random_seed

from text_envs import TokenVectorEnv

from .evaluation import Evaluation, evaluate, make_env, normalize
from .own import as_agent
from .suites import Experiment, resolve
from .work import Report

CURVE_POINTS = 40
SAMPLES = 9
EVAL_ENVS = 256
PLAYED = 128  # episodes at a point of a `PlayedCurve`
_TRAINING_SHARE = 0.95  # of the progress bar; the rest is the evaluation
TRAIN, EVALUATE, _PLAY = range(3)  # streams of a trial's seed


def derived_seed(seed: int, stream: int) -> int:
    """Return a seed of its own for each use, so that neighbouring trials share no row of an environment."""
    return int(np.random.SeedSequence([seed, stream]).generate_state(1)[0] >> 1)


class LearningCurve(BaseCallback):
    """Records the mean clean return of the episodes that finished in each interval of training, and may stop it.

    Args:
        interval: environment steps between points.
        total: environment steps of the training, for progress.
        report: told the finished fraction.
        normalize: turns a mean return into a score, None where there is none.
        target: training stops at the first point whose score is at least this. None: never.
        seconds: training stops after that many. None: never.

    Attributes:
        steps: environment steps so far, of several trainings one after another all of them.
        points: (environment steps, seconds of training, mean return, score) each.
        reached: environment steps at which the target was reached, None before.
        paused: seconds that were not training.
    """

    def __init__(
        self,
        interval: int,
        total: int,
        report: Report,
        normalize: Callable[[float], float | None] = lambda value: None,
        target: float | None = None,
        seconds: float | None = None,
    ) -> None:
        super().__init__()
        self.steps = 0
        self.points: list[tuple[int, float, float, float | None]] = []
        self.reached: int | None = None
        self.paused = 0.0
        self._interval, self._total, self._report = interval, total, report
        self._normalize, self._target, self._seconds = normalize, target, seconds
        self._next = interval
        self._returns: list[float] = []
        self._clean: dict[int, float] = {}  # of the running episodes: a game pays in several turns
        self._before = 0  # steps of former trainings, where this one counts from 0 again
        self._started: float | None = None

    def _on_training_start(self) -> None:
        self._before = max(0, self.steps - self.num_timesteps)
        self._started = self._started or time.perf_counter()

    def _on_step(self) -> bool:
        self.steps = self._before + self.num_timesteps
        self._collect()
        if self.steps >= self._next:
            self._next = self.steps - self.steps % self._interval + self._interval
            self._add_point()
            self._report(min(1.0, self.steps / self._total))
        in_time = self._seconds is None or self._trained() < self._seconds
        return in_time and self.reached is None

    def _on_training_end(self) -> None:
        self._add_point()

    def _collect(self) -> None:
        """Note the returns of the episodes that ended in this step, in clean rewards where they are told."""
        for row, info in enumerate(self.locals["infos"]):
            if "reward_clean" in info:
                self._clean[row] = self._clean.get(row, 0.0) + float(info["reward_clean"])
            if "episode" in info:
                self._returns.append(self._clean.pop(row, float(info["episode"]["r"])))

    def _trained(self) -> float:
        """Return the seconds of training so far."""
        return 0.0 if self._started is None else time.perf_counter() - self._started - self.paused

    def _add_point(self) -> None:
        if not self._returns:
            return
        value = float(np.mean(self._returns))
        score = self._normalize(value)
        self.points.append((self.steps, self._trained(), value, score))
        self._returns = []
        if self.reached is None and self._target is not None and score is not None and score >= self._target:
            self.reached = self.steps


class PlayedCurve(LearningCurve):
    """The curve of an agent that learns from the episodes of others: at each point it plays some of its own.

    They are the same prompts at every point; what they take counts neither as steps nor as seconds.

    Args:
        env: where it plays.
        seed: of these episodes.
        arguments: those of `LearningCurve`.
    """

    def __init__(self, env: TokenVectorEnv, seed: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._env, self._seed = env, seed

    def _collect(self) -> None:
        """Note nothing: what ended was demonstrated."""

    def _add_point(self) -> None:
        if self.points and self.points[-1][0] == self.steps:  # training has ended, with an update since
            self.points.pop()
        began = time.perf_counter()
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            self._returns = evaluate(
                self.model, self._env, PLAYED, self._seed, deterministic=False
            ).returns.tolist()
        self.paused += time.perf_counter() - began
        super()._add_point()


def train_and_evaluate(experiment: Experiment, seed: int, report: Report) -> dict[str, Any]:
    """Return the measured fields of a row."""
    return _measure(experiment, seed, report, LearningCurve)


def clone_and_evaluate(experiment: Experiment, seed: int, report: Report) -> dict[str, Any]:
    """Return the measured fields of the row of an agent that imitates; its curve is that of its own episodes."""
    env = make_env(experiment.env_id, PLAYED, experiment.env_kwargs)
    return _measure(experiment, seed, report, partial(PlayedCurve, env, derived_seed(seed, _PLAY)))


def _measure(
    experiment: Experiment, seed: int, report: Report, curve_class: Callable[..., LearningCurve]
) -> dict[str, Any]:
    agent_seed = derived_seed(seed, TRAIN)
    set_random_seed(agent_seed)  # for what draws from the generators that Python, numpy and PyTorch share
    env = make_env(experiment.env_id, experiment.num_envs, experiment.env_kwargs)
    made = resolve(experiment.factory)(env, agent_seed, **experiment.agent_kwargs)
    agent = as_agent(made, experiment.factory, env.observation_space)
    share = _TRAINING_SHARE if experiment.steps and hasattr(agent, "learn") else 0.0
    trained = _train(agent, env, experiment, lambda done: report(share * done), curve_class)
    env.close()
    return {
        **trained,
        "device": str(getattr(agent, "device", "cpu")),
        **evaluation_fields(experiment, agent, seed, lambda done: report(share + (1 - share) * done)),
    }


def _train(
    agent: Any,
    env: TokenVectorEnv,
    experiment: Experiment,
    report: Report,
    curve_class: Callable[..., LearningCurve],
) -> dict[str, Any]:
    if not experiment.steps or not hasattr(agent, "learn"):
        return {"steps": 0, "train_seconds": 0.0, "steps_per_second": None, "curve": []}
    interval = max(1, experiment.steps // CURVE_POINTS)
    stops = experiment.target, experiment.seconds
    curve = curve_class(interval, experiment.steps, report, partial(normalize, env), *stops)
    started = time.perf_counter()
    agent.learn(experiment.steps, callback=curve)
    seconds = time.perf_counter() - started - curve.paused
    # not every agent counts, and one that trains several times may count from 0 each time
    steps = max(curve.steps, int(getattr(agent, "num_timesteps", experiment.steps)))
    return {
        "steps": steps,
        "train_seconds": round(seconds, 3),
        "steps_per_second": round(steps / seconds, 1),
        "curve": [[steps_then, round(then, 3), value, score] for steps_then, then, value, score in curve.points],
        **({} if experiment.target is None else {"reached": curve.reached}),
    }


def evaluation_fields(
    experiment: Experiment, agent: Any, seed: int, report: Report = lambda done: None
) -> dict[str, Any]:
    """Return `evaluation` (sampled and greedy, on the same fresh episodes) and `samples` of a row."""
    env = make_env(experiment.env_id, min(EVAL_ENVS, experiment.eval_episodes), experiment.env_kwargs)
    results = {}
    for part, (name, deterministic) in enumerate((("sampled", False), ("greedy", True))):
        evaluation_seed = derived_seed(seed, EVALUATE)
        set_random_seed(evaluation_seed)  # what is sampled must not depend on how training ended
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
