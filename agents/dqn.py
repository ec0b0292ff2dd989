"""DQN on token environments: SB3's algorithm with cached acting, whole-episode replay and packed updates."""

from __future__ import annotations

import math
import warnings
from contextlib import nullcontext
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import RolloutReturn, Schedule
from torch import Tensor

from .algorithm import check_buffer, check_buffer_options
from .buffers import PackedTensors
from .losses import (
    dqn_loss,
    guided_charges,
    guided_log_probs,
    later_charges,
    q_targets,
    soft_q_targets,
    top_actions,
)
from .masks import ask_masks, check_masks, mask_scores, random_legal, restricts, unpack_masks
from .on_policy import check_sizes
from .policies import TransformerQPolicy, choose
from .reference import ReferenceAlgorithm, ReferencePolicy, ReferenceSource
from .replay import EpisodeReplayBuffer, ReplayBatch, split_states
from .transfer import to_device
from .updates import Update, memory_advice

Exploration = Literal["epsilon", "boltzmann", "reference"]


class DQN(ReferenceAlgorithm, stable_baselines3.DQN):
    """Deep Q-learning, Mnih et al. 2015, with double Q-learning, van Hasselt et al. 2016, arXiv:1509.06461.

    The arguments are SB3's, in SB3's order; `batch_size` counts transitions. What differs: a batch is whole
    episodes, exploration is drawn for each row, gamma is 1. Where the environment restricts actions, only legal
    ones are tried, and the value of a next state is that of its legal actions.

    With a reference policy, actions are drawn from reference * exp(Q / temperature), and targets and the greedy
    policy match: the next value is temperature * log sum reference * exp(Q / temperature), and the greedy action
    is the likeliest (Schulman et al. 2017, arXiv:1704.06440). So a large vocabulary can be explored at all, and
    no maximum over thousands of untried tokens overestimates. With `top_k` only the reference's k likeliest
    actions are drawn, and the next value is the maximum over them.

    Args:
        policy: "TransformerQPolicy" or a subclass of it.
        env: an id, a Gymnasium environment or vector environment, or an SB3 VecEnv.
        n_steps: length of the returns; at least the episode's length gives whole-episode returns. With a reference
            and no `top_k` the steps between pay for their KL, as the soft values do. Returns of several steps are
            those of the policies that made the episodes, older ones than the present.
        double_q: choose the next action with the online network and value it with the target network; a soft
            next value chooses none.
        micro_batch_size: tokens of one forward and backward, padding among them; a minibatch's gradient is summed
            over them. None takes a minibatch at once. Less memory, the same gradient.
        exploration: "epsilon" draws uniform actions at the exploration rate, "boltzmann" draws all actions from
            exp(Q / temperature), "reference" from reference * exp(Q / temperature); the two leave the rate unused.
            Before `learning_starts` Q is taken for 0.
        temperature: of these exponentials, in units of reward; with a reference the price of a nat of KL to it.
        reference: for exploration="reference": a model or a policy, or "initial", the policy's own base model with
            LoRA's adapters off; see `ReferencePolicy`.
        top_k: for exploration="reference": actions that are left of the reference; None: all.
        learning_rate, buffer_size, learning_starts, batch_size, tau, gamma, train_freq, gradient_steps,
            target_update_interval, exploration_* and the rest: as in SB3.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"TransformerQPolicy": TransformerQPolicy}
    policy: TransformerQPolicy  # type: ignore[assignment]
    replay_buffer: EpisodeReplayBuffer

    def __init__(
        self,
        policy: str | type[TransformerQPolicy],
        env: Any,
        learning_rate: float | Schedule = 5e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 1000,
        batch_size: int = 128,
        tau: float = 1.0,
        gamma: float = 1.0,
        train_freq: int | tuple[int, str] = 8,
        gradient_steps: int = 8,
        replay_buffer_class: type[EpisodeReplayBuffer] = EpisodeReplayBuffer,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        target_update_interval: int = 1000,
        exploration_fraction: float = 0.3,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.02,
        max_grad_norm: float = 10,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        double_q: bool = True,
        exploration: Exploration = "epsilon",
        temperature: float = 0.1,
        reference: ReferenceSource | None = None,
        top_k: int | None = None,
        micro_batch_size: int | None = None,
    ) -> None:
        check_buffer("replay_buffer_class", replay_buffer_class, EpisodeReplayBuffer)
        check_buffer_options("replay_buffer_kwargs", replay_buffer_kwargs, "seed", "gamma", "n_steps")
        _check_exploration(exploration, temperature, reference, top_k)
        check_sizes(
            n_steps=n_steps, batch_size=batch_size, buffer_size=buffer_size, micro_batch_size=micro_batch_size
        )
        if not isinstance(train_freq, tuple) and train_freq < 1:
            raise ValueError(f"train_freq={train_freq}; give at least 1 step")
        super().__init__(
            policy,  # type: ignore[arg-type]
            env,
            learning_rate=learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            target_update_interval=target_update_interval,
            exploration_fraction=exploration_fraction,
            exploration_initial_eps=exploration_initial_eps,
            exploration_final_eps=exploration_final_eps,
            max_grad_norm=max_grad_norm,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.n_steps, self.double_q, self.exploration = n_steps, double_q, exploration
        self.micro_batch_size = micro_batch_size
        self.temperature, self.reference, self.top_k = temperature, reference, top_k
        self.rng = np.random.default_rng(seed)
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        given = self.replay_buffer_kwargs
        self.n_steps = given.pop("n_steps", self.n_steps)  # where the first checkpoints kept it
        self.replay_buffer_kwargs = {**given, "seed": self.seed}
        with warnings.catch_warnings():
            # SB3 asks that n_steps be handed to a buffer of one's own; `_tell_buffer` does so.
            warnings.filterwarnings("ignore", message="`n_steps=")
            super()._setup_model()
        self.replay_buffer_kwargs = given
        self._tell_buffer()

    def _tell_buffer(self) -> None:
        """Let the buffer build its returns by the options as they are now: any of them may have been changed."""
        buffer = self.replay_buffer
        buffer.gamma, buffer.n_steps, buffer.max_tokens = self.gamma, self.n_steps, self.micro_batch_size

    def _check_options(self) -> None:
        _check_exploration(self.exploration, self.temperature, self.reference, self.top_k)
        check_sizes(
            n_steps=self.n_steps,
            batch_size=self.batch_size,
            buffer_size=self.buffer_size,
            micro_batch_size=self.micro_batch_size,
        )

    def _setup_learn(  # type: ignore[override]
        self,
        total_timesteps: int,
        callback: Any = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps or self._last_obs is None:  # SB3 resets the environment
            self.replay_buffer.drop_unfinished()
        assert self.env is not None
        self._restricted = restricts(self.env)
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        """Load the episodes that `save_replay_buffer` wrote; returns are built by this agent's own options.

        Unfinished episodes of its environment are dropped.
        """
        super().load_replay_buffer(path, truncate_last_traj)
        self.replay_buffer.n_envs = self.n_envs
        self.replay_buffer.drop_unfinished()
        self._tell_buffer()

    def predict(  # type: ignore[override]
        self,
        observation: np.ndarray,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Return actions: greedy, or drawn for each row as `exploration` says.

        `action_masks` (B, V) are the legal ones, as in sb3-contrib; without them it warns, once, where the
        environment restricts actions.
        """
        self._warn_of_masks(action_masks)
        if self.exploration != "epsilon":
            return self._draw(observation, deterministic, action_masks), state
        actions, state = self.policy.predict(observation, state, episode_start, True, action_masks)
        if not deterministic:
            explore = self.rng.random(actions.shape) < self.exploration_rate
            actions = np.where(explore, self._random_actions(actions.shape, action_masks), actions)
        return actions, state

    def _random_actions(self, shape: tuple[int, ...], action_masks: np.ndarray | None) -> np.ndarray:
        """Return uniform actions, legal ones where masks are given."""
        n_actions = self.policy.backbone.vocab_size
        if action_masks is None:
            return self.rng.integers(n_actions, size=shape)
        return random_legal(check_masks(action_masks, math.prod(shape), n_actions), self.rng).reshape(shape)

    @torch.no_grad()
    def _draw(
        self, observation: np.ndarray, deterministic: bool, action_masks: np.ndarray | None, warm_up: bool = False
    ) -> np.ndarray:
        """Return the likeliest actions, or actions drawn from reference * exp(Q / temperature)."""
        self.policy.set_training_mode(False)
        obs, batched = self.policy.obs_to_tensor(observation)
        legal = None
        if action_masks is not None:
            checked = check_masks(action_masks, len(obs), self.policy.backbone.vocab_size)
            legal = to_device(checked, self.device)
        prior = None
        if self.reference_policy is not None:
            prior = self.reference_policy.step_log_probs(obs, legal)  # type: ignore[arg-type]
            legal = self._kept(prior, legal)
        q_values = torch.zeros_like(prior) if prior is not None and warm_up else self.policy.q_net(obs)
        if deterministic and self.top_k is not None:
            prior = None  # the greedy action of the maximum that is backed up
        log_probs = guided_log_probs(mask_scores(q_values, legal), self.temperature, prior)
        actions = choose(log_probs, deterministic).cpu().numpy()
        return actions if batched else actions[0]

    def _kept(self, prior: Tensor, legal: Tensor | None) -> Tensor | None:
        """Return the actions (N, V) that are left of the reference, None: all."""
        if self.top_k is None:
            return legal
        kept = top_actions(prior, self.top_k)
        return kept if legal is None else kept & legal

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the actions to take and to store, legal ones; the buffer keeps the masks."""
        assert self.env is not None and self._last_obs is not None
        legal = ask_masks(self.env) if self._restricted else None
        if legal is not None:
            self.replay_buffer.remember_masks(legal)
        warm_up = self.num_timesteps < learning_starts
        if warm_up and self.exploration == "reference":
            actions = self._draw(self._last_obs, False, legal, warm_up=True)  # type: ignore[arg-type]
        elif warm_up:
            actions = self._random_actions((n_envs,), legal)
        else:
            actions, _ = self.predict(self._last_obs, action_masks=legal)  # type: ignore[arg-type]
        return actions, actions

    @memory_advice()
    def collect_rollouts(self, *args: Any, **kwargs: Any) -> RolloutReturn:
        """Collect transitions with the key-value cache."""
        reference = nullcontext() if self.reference_policy is None else self.reference_policy.cached()
        with self.policy.cached(), reference:
            collected = super().collect_rollouts(*args, **kwargs)
        if not collected.continue_training:
            self._last_obs = None  # the step that a callback stopped in was not kept, so new episodes begin
        return collected

    @memory_advice()
    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Make gradient steps on sampled episodes."""
        if not self.replay_buffer.episodes:
            return
        self._tell_buffer()
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        update = Update(self.policy.optimizer, self.max_grad_norm, self.micro_batch_size is not None)
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            update.step(update.backward(batch, self.loss))
        update.check()
        self.trained_tokens += update.tokens
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", torch.stack(update.losses).mean().item())

    def loss(self, batch: ReplayBatch) -> torch.Tensor:
        """Return the Huber loss of a batch: one forward of the trained network serves states and next states."""
        network = self.policy.q_net
        states, following = split_states(network.reader.packed_hidden(batch.packs), batch.n_states)
        targets = self._targets(batch, following)
        return dqn_loss(network.read(states), batch.actions, targets)

    @torch.no_grad()
    def _targets(self, batch: ReplayBatch, following: Tensor) -> Tensor:
        """Return (N,) targets; `following` are the trained network's hidden states (N, D) on the next states."""
        if self.reference_policy is not None and self.top_k is None:
            return self._soft_targets(batch, self.reference_policy)
        legal = self._legal(batch.next_masks)
        if self.reference_policy is not None:
            legal = self._kept(self.reference_policy.packed_log_probs(_following(batch), legal), legal)
        late = self.policy.q_net_target.evaluate_packed(_following(batch))
        online = self.policy.q_net.read(following) if self.double_q else None
        return q_targets(batch.rewards, batch.discounts, late, online, legal)

    def _soft_targets(self, batch: ReplayBatch, reference: ReferencePolicy) -> Tensor:
        """Return (N,) targets from the reference's log-probabilities; one forward serves states and next states."""
        target, rewards, legal = self.policy.q_net_target, batch.rewards, self._legal(batch.next_masks)
        if self.n_steps == 1:
            prior, late = (
                reference.packed_log_probs(_following(batch), legal),
                target.evaluate_packed(_following(batch)),
            )
        else:
            read = split_states(target.reader.packed_hidden(batch.packs), batch.n_states)
            before, late = map(target.read, read)
            priors, prior = reference.split_log_probs(batch.packs, batch.n_states, self._legal(batch.masks), legal)
            charges = guided_charges(before, self.temperature, priors)
            n_steps = min(self.n_steps, max(batch.longest))
            rewards = rewards - later_charges(charges, batch.left, n_steps, self.gamma)
        return soft_q_targets(rewards, batch.discounts, late, prior, self.temperature)

    def _legal(self, bits: Tensor | None) -> Tensor | None:
        return None if bits is None else unpack_masks(bits, self.policy.backbone.vocab_size)


def _following(batch: ReplayBatch) -> list[PackedTensors]:
    """Return the packs of a batch at the next states' positions only."""
    return [
        PackedTensors(p.ids, p.row[n:], p.position[n:]) for p, n in zip(batch.packs, batch.n_states, strict=True)
    ]


def _check_exploration(exploration: str, temperature: float, reference: object, top_k: int | None) -> None:
    """Raise unless the arguments on exploration go together."""
    if exploration not in get_args(Exploration):
        raise ValueError(f"exploration={exploration!r}; choose from {', '.join(get_args(Exploration))}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature={temperature} divides Q-values; give a positive number")
    if exploration == "reference" and reference is None:
        raise ValueError("exploration='reference' needs a reference; pass a model, a policy or (LoRA) 'initial'")
    if exploration != "reference" and (reference is not None or top_k is not None):
        raise ValueError(
            f"reference={reference!r:.100} and top_k={top_k} are for exploration='reference', not {exploration!r}"
        )
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k}; give at least 1, or None for all actions")
