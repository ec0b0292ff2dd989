"""The agents that suites name: uniform random, stock SB3 and sb3-contrib given a fair chance, and ours.

Each is made by a function of the environment and a seed; `suites.AGENTS` says which.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array
from numpy.typing import NDArray
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import LinearSchedule
from torch import Tensor

import agents


class RandomAgent:
    """Uniform over the legal actions; it learns nothing.

    Args:
        rng: the source of the actions.
        start: the smallest action.
    """

    def __init__(self, rng: np.random.Generator, start: int = 0) -> None:
        self._rng, self._start = rng, start

    def predict(
        self, observation: NDArray[np.int64], action_masks: NDArray[np.bool_], deterministic: bool = False
    ) -> tuple[NDArray[np.int64], None]:
        """Return actions (B,) for observations (B, L) and masks (B, V)."""
        draws = self._rng.random(action_masks.shape)
        return self._start + np.where(action_masks, draws, -1.0).argmax(axis=1), None


class RandomSamples:
    """Samples of any space of actions; it learns nothing.

    Args:
        space: of one action.
        seed: of the samples.
    """

    def __init__(self, space: spaces.Space[Any], seed: int) -> None:
        self._space = copy.deepcopy(space)
        self._space.seed(seed)

    def predict(
        self,
        observation: Any,
        state: None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[Any, None]:
        """Return as many actions as there are rows in `episode_start` (B,)."""
        rows = 1 if episode_start is None else len(episode_start)
        out: Any = create_empty_array(self._space, n=rows)
        return concatenate(self._space, [self._space.sample() for _ in range(rows)], out), None


class OneHotExtractor(BaseFeaturesExtractor):
    """Token ids (B, L) as one-hot vectors (B, L * (V + 1)), the padding too: a fair input for an MLP."""

    def __init__(self, observation_space: spaces.Box) -> None:
        self._symbols = int(observation_space.high.max()) + 1
        super().__init__(observation_space, int(np.prod(observation_space.shape)) * self._symbols)

    def forward(self, observations: Tensor) -> Tensor:
        """Return the flattened one-hot vectors."""
        one_hot = torch.nn.functional.one_hot(observations.long(), self._symbols)
        return one_hot.flatten(start_dim=1).float()


class RowwiseDQN:
    """Stable-Baselines3's DQN, trained as it is; when it then acts in a batch, each row explores on its own.

    The stock `predict` draws once for the whole batch: in a step all rows explore or none does, so the episodes of
    an evaluation would not be independent.

    Args:
        model: the stock DQN.
        rng: decides who explores and what is said.
    """

    def __init__(self, model: stable_baselines3.DQN, rng: np.random.Generator) -> None:
        self.model, self._rng = model, rng

    @property
    def policy(self) -> Any:
        """Of the stock DQN."""
        return self.model.policy

    @property
    def device(self) -> torch.device:
        """Of the stock DQN."""
        return self.model.device

    @property
    def num_timesteps(self) -> int:
        """Steps of training."""
        return self.model.num_timesteps

    def learn(self, total_timesteps: int, callback: MaybeCallback = None) -> None:
        """Train the stock DQN."""
        self.model.learn(total_timesteps, callback=callback)

    def predict(self, observation: NDArray[np.int64], deterministic: bool = False) -> tuple[NDArray[Any], None]:
        """Return actions (B,) for observations (B, L)."""
        actions, _ = self.model.predict(observation, deterministic=True)
        if deterministic:
            return actions, None
        explores = self._rng.random(len(actions)) < self.model.exploration_rate
        n_actions = int(cast(spaces.Discrete, self.model.action_space).n)
        return np.where(explores, self._rng.integers(n_actions, size=len(actions)), actions), None


_ONE_HOT = {"features_extractor_class": OneHotExtractor}


def random_agent(env: VectorEnv, seed: int) -> RandomAgent | RandomSamples:
    """Return the uniform random agent."""
    space = env.single_action_space
    if isinstance(space, spaces.Discrete):
        return RandomAgent(np.random.default_rng(seed), int(space.start))
    return RandomSamples(space, seed)


def stock_ppo(env: VectorEnv, seed: int, one_hot: bool, **options: Any) -> stable_baselines3.PPO:
    """Return Stable-Baselines3's PPO with its MlpPolicy, at gamma = 1.

    Its other defaults stay, with `n_steps` divided by the number of rows, so that an update still sees SB3's
    2,048 transitions.
    """
    return stable_baselines3.PPO(
        "MlpPolicy",
        agents.VectorEnvAdapter(env),
        **{**_stock_rollout(env), **options},
        policy_kwargs=dict(_ONE_HOT) if one_hot else {},
        seed=seed,
        device="cpu",
    )


def maskable_ppo(env: VectorEnv, seed: int, **options: Any) -> Any:
    """Return sb3-contrib's MaskablePPO, which says only what is legal, on one-hot inputs; else as `stock_ppo`.

    Raises:
        ImportError: if sb3-contrib is not installed.

    Source: Huang & Ontañón 2020, "A closer look at invalid action masking", arXiv:2006.14171.
    """
    try:
        from sb3_contrib import MaskablePPO
    except ImportError as error:
        raise ImportError("MaskablePPO needs sb3-contrib: pip install 'text-envs[benchmarks]'") from error
    return MaskablePPO(
        "MlpPolicy",
        agents.VectorEnvAdapter(env),
        **{**_stock_rollout(env), **options},
        policy_kwargs=dict(_ONE_HOT),
        seed=seed,
        device="cpu",
    )


def _stock_rollout(env: VectorEnv) -> dict[str, Any]:
    return {"gamma": 1.0, "n_steps": max(2, 2048 // env.num_envs)}


def stock_dqn(env: VectorEnv, seed: int, **options: Any) -> RowwiseDQN:
    """Return Stable-Baselines3's DQN with its MlpPolicy on one-hot inputs, at gamma = 1.

    Its other defaults stay, a gradient step for every four transitions among them: a step of B rows is followed by
    B / 4 of them.
    """
    model = stable_baselines3.DQN(
        "MlpPolicy",
        agents.VectorEnvAdapter(env),
        **{"gamma": 1.0, "train_freq": 1, "gradient_steps": max(1, env.num_envs // 4), **options},
        policy_kwargs=dict(_ONE_HOT),
        seed=seed,
        device="cpu",
    )
    return RowwiseDQN(model, np.random.default_rng(seed))


def our_ppo(env: VectorEnv, seed: int, **options: Any) -> agents.PPO:
    """Return our PPO."""
    return agents.PPO("TransformerPolicy", env, seed=seed, **options)


def our_dqn(env: VectorEnv, seed: int, **options: Any) -> agents.DQN:
    """Return our DQN."""
    return agents.DQN("TransformerQPolicy", env, seed=seed, **options)


def our_grpo(env: VectorEnv, seed: int, **options: Any) -> agents.GRPO:
    """Return our GRPO."""
    return agents.GRPO("TransformerPolicy", env, seed=seed, **options)


def our_cloning(env: VectorEnv, seed: int, **options: Any) -> agents.BehaviourCloning:
    """Return our behaviour cloning of the environment's own demonstrations: a best utterance, solved exactly."""
    return agents.BehaviourCloning("TransformerPolicy", env, seed=seed, **options)


def candidate_ppo(env: VectorEnv, seed: int, **options: Any) -> stable_baselines3.PPO:
    """Return Stable-Baselines3's PPO with our CandidatePolicy, learning as our PPO does by default.

    Args:
        env: an environment at level "candidate".
        seed: of the agent.
        options: of `stable_baselines3.PPO`.
    """
    like_ours = {"learning_rate": LinearSchedule(1e-3, 0.0, 1.0), "batch_size": 256, "n_epochs": 4}
    return stable_baselines3.PPO(
        agents.CandidatePolicy,  # type: ignore[arg-type]  # the protocol of a policy without its layers
        agents.VectorEnvAdapter(env),
        **{**_stock_rollout(env), **like_ours, **options},
        policy_kwargs=_candidates(env),
        seed=seed,
    )


def candidate_dqn(env: VectorEnv, seed: int, **options: Any) -> RowwiseDQN:
    """Return Stable-Baselines3's DQN with our CandidateQPolicy, learning as our DQN does by default.

    Args:
        env: an environment at level "candidate".
        seed: of the agent.
        options: of `stable_baselines3.DQN`.
    """
    like_ours = {
        "learning_rate": 5e-4,
        "learning_starts": 1000,
        "batch_size": 128,
        "train_freq": 8,
        "gradient_steps": 8,
        "target_update_interval": 1000,
        "exploration_fraction": 0.3,
        "exploration_final_eps": 0.02,
    }
    model = stable_baselines3.DQN(
        agents.CandidateQPolicy,  # type: ignore[arg-type]  # likewise
        agents.VectorEnvAdapter(env),
        **{"gamma": 1.0, **like_ours, **options},
        policy_kwargs=_candidates(env),
        seed=seed,
    )
    return RowwiseDQN(model, np.random.default_rng(seed))


def _candidates(env: Any) -> dict[str, Any]:
    return {"layout": tuple(env.candidate_layout)}
