"""The trials of suite `real`: SmolLM2-135M-Instruct on the tasks of `real_tasks.py`.

PPO with LoRA against the model itself and the best of four of its samples; on Sentiment also TRL's GRPOTrainer with
the same prompts and reward. All are measured alike: held-out prompts, float32, one KL estimator. What a run costs
is counted in training seconds (evaluation excluded) and generated tokens.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from transformers import AutoTokenizer, TrainerCallback

from agents import PPO, TransformerPolicy
from agents.buffers import pack_buckets
from agents.models import load_model
from text_envs.sources import cache_folder, smollm2

from .evaluation import make_env
from .suite_real import BEST_OF
from .suites import Experiment, resolve
from .trial import EVALUATE, TRAIN, Report, derived_seed

CHECKPOINT = 256  # completions of an evaluation during training
EVAL_ENVS = 64
SIDE_BY_SIDE = 10


@dataclass(frozen=True)
class Completions:
    """What a policy says to held-out prompts, in the order (row, episode of the row)."""

    prompts: list[str]
    texts: list[str]
    rewards: NDArray[np.float64]
    log_ratio: NDArray[np.float64]  # (n,) sum over each completion's tokens of log policy - log reference, nats
    lengths: NDArray[np.int64]  # (n,) tokens


@dataclass(frozen=True)
class Measurement:
    """The figures of one evaluation; intervals are 1.96 standard errors over completions."""

    completions: int
    reward: float
    reward_error: float
    kl: float
    kl_error: float
    distinct_2: float
    repetition: float
    length: float


def measure(completions: Completions) -> Measurement:
    """Return the figures of some completions.

    `kl` is the mean over completions of the summed log-ratio of the sampled tokens, in nats; `distinct_2` the share
    of different word pairs among all (Li et al. 2016, arXiv:1510.03055); `repetition` the mean share of a
    completion's words that it has said before.
    """
    words = [text.lower().split() for text in completions.texts]
    pairs = list(chain.from_iterable(pairwise(said) for said in words))
    count = len(words)
    return Measurement(
        completions=count,
        reward=float(completions.rewards.mean()),
        reward_error=float(1.96 * completions.rewards.std(ddof=1) / np.sqrt(count)),
        kl=float(completions.log_ratio.mean()),
        kl_error=float(1.96 * completions.log_ratio.std(ddof=1) / np.sqrt(count)),
        distinct_2=len(set(pairs)) / max(1, len(pairs)),
        repetition=float(np.mean([1 - len(set(said)) / len(said) if said else 0.0 for said in words])),
        length=float(completions.lengths.mean()),
    )


class Evaluator:
    """Held-out prompts and the reference model, in float32: every agent of the suite is measured by it.

    Args:
        seed: of the prompts and of what is sampled; the same for all agents.
    """

    def __init__(self, experiment: Experiment, seed: int) -> None:
        self.seed = derived_seed(seed, EVALUATE)
        self.env = _make_env(experiment, EVAL_ENVS, "test")
        self.reference = self.policy(str(smollm2_folder()))

    def policy(self, model: Any) -> TransformerPolicy:
        """Return a policy in float32 for evaluation, from a folder or a module."""
        space, actions = self.env.single_observation_space, self.env.single_action_space
        return TransformerPolicy(space, actions, lambda _: 0.0, model=model).to(_device())  # type: ignore[arg-type]

    @torch.no_grad()
    def sample(self, policy: TransformerPolicy, count: int, draw: int = 0) -> Completions:
        """Return `count` sampled completions; every call has the same prompts in the same order."""
        torch.manual_seed(self.seed + draw)
        env, quota = self.env, -(-count // self.env.num_envs)
        pad = int(env.single_action_space.n)  # type: ignore[attr-defined]
        found: list[list[tuple[NDArray[np.int64], int, dict[str, Any]]]] = [[] for _ in range(env.num_envs)]
        with policy.cached():
            observations, _ = env.reset(seed=self.seed)
            begin = (observations != pad).sum(axis=1)
            while any(len(row) < quota for row in found):
                actions = policy(torch.as_tensor(observations, device=policy.device))[0].cpu().numpy()
                observations, _, terminated, _, infos = env.step(actions)
                for row in np.flatnonzero(terminated):
                    final = infos["final_obs"][row]
                    facts = {key: infos["final_info"][key][row] for key in ("prompt", "completion", "reward_clean")}
                    if len(found[row]) < quota:
                        found[row].append((final[final != pad], int(begin[row]), facts))
                begin[terminated] = (observations[terminated] != pad).sum(axis=1)
        said = list(chain.from_iterable(found))
        return Completions(
            prompts=[str(facts["prompt"]) for _, _, facts in said],
            texts=[str(facts["completion"]) for _, _, facts in said],
            rewards=np.array([float(facts["reward_clean"]) for _, _, facts in said]),
            log_ratio=self._log_ratio(policy, [(ids, begin) for ids, begin, _ in said]),
            lengths=np.array([len(ids) - begin for ids, begin, _ in said]),
        )

    def _log_ratio(
        self, policy: TransformerPolicy, said: Sequence[tuple[NDArray[np.int64], int]]
    ) -> NDArray[np.float64]:
        sums = np.zeros(len(said))
        for first in range(0, len(said), 32):
            part = said[first : first + 32]
            contexts = [ids for ids, _ in part]
            positions = [np.arange(begin, len(ids)) - 1 for ids, begin in part]
            packs, order = pack_buckets(contexts, positions, policy.device)
            tokens = np.concatenate([part[i][0][part[i][1] :] for i in order])
            owner = np.repeat(order, [len(positions[i]) for i in order])
            actions = torch.as_tensor(tokens, device=policy.device)
            ratio = policy.evaluate_packed(packs, actions)[1] - self.reference.evaluate_packed(packs, actions)[1]
            sums[first : first + len(part)] = np.bincount(owner, ratio.cpu().numpy(), minlength=len(part))
        return sums


class Clock:
    """Training seconds: stands still inside `paused`."""

    def __init__(self) -> None:
        self._started, self._paused = time.perf_counter(), 0.0

    def __call__(self) -> float:
        """Return the training seconds so far."""
        return time.perf_counter() - self._started - self._paused

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do something that is not training."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - begin


def measure_reference(experiment: Experiment, seed: int, report: Report) -> dict[str, Any]:
    """Return the row of the untrained model."""
    evaluator = Evaluator(experiment, seed)
    return _row(evaluator.sample(evaluator.reference, experiment.eval_episodes))


def measure_best_of(experiment: Experiment, seed: int, report: Report) -> dict[str, Any]:
    """Return the row of the best of several samples by the reward itself.

    Its KL is the closed form log n - (n - 1) / n, an upper bound (Beirami et al. 2024, arXiv:2401.01879).
    """
    evaluator = Evaluator(experiment, seed)
    draws = []
    for draw in range(BEST_OF):
        draws.append(evaluator.sample(evaluator.reference, experiment.eval_episodes, draw))
        report((draw + 1) / BEST_OF)
    best = np.argmax([draw.rewards for draw in draws], axis=0)
    kl = np.log(BEST_OF) - (BEST_OF - 1) / BEST_OF
    return _row(
        Completions(
            prompts=draws[0].prompts,
            texts=[draws[k].texts[i] for i, k in enumerate(best)],
            rewards=np.array([draws[k].rewards[i] for i, k in enumerate(best)]),
            log_ratio=np.full(len(best), kl),
            lengths=np.array([draws[k].lengths[i] for i, k in enumerate(best)]),
        )
    )


class Progress:
    """Collects a training's curve: the running figures, and held-out measurements at even intervals.

    Args:
        evaluator: measures.
        steps: tokens of the whole training.
        report: told the finished fraction.
        checkpoints: held-out measurements on the way.
    """

    def __init__(self, evaluator: Evaluator, steps: int, report: Report, checkpoints: int = 3) -> None:
        self.evaluator, self.steps, self.report = evaluator, steps, report
        self.every = steps / (checkpoints + 1)
        self.clock = Clock()
        self.training: list[tuple[float, int, float, float | None]] = []
        self.held_out: list[dict[str, Any]] = []

    def add(self, tokens: int, reward: float, kl: float | None, policy: Callable[[], TransformerPolicy]) -> None:
        """Note the mean reward and KL of an iteration; measure `policy()` when it is time."""
        self.training.append((round(self.clock(), 2), tokens, reward, kl))
        self.report(min(1.0, tokens / self.steps))
        if tokens >= self.every * (len(self.held_out) + 1) and tokens < self.steps - self.every / 2:
            self.measure(tokens, policy, CHECKPOINT)

    def measure(self, tokens: int, policy: Callable[[], TransformerPolicy], count: int) -> Completions:
        """Measure on held-out prompts while the clock stands still."""
        with self.clock.paused(), torch.random.fork_rng():
            completions = self.evaluator.sample(policy(), count)
        point = {"seconds": round(self.clock(), 2), "tokens": tokens, **asdict(measure(completions))}
        self.held_out.append(point)
        return completions

    def row(self, tokens: int, policy: Callable[[], TransformerPolicy], count: int) -> dict[str, Any]:
        """Return the row of a finished training."""
        seconds = self.clock()
        completions = self.measure(tokens, policy, count)
        return {
            **_row(completions),
            "train_seconds": round(seconds, 1),
            "tokens": tokens,
            "training": self.training,
            "held_out": self.held_out,
        }


def train_ppo(experiment: Experiment, seed: int, report: Report) -> dict[str, Any]:
    """Return the row of our PPO: LoRA rank 16 on all linear layers, bfloat16, KL to the base model."""
    evaluator = Evaluator(experiment, seed)
    env = _make_env(experiment, experiment.num_envs, "train")
    model = PPO(
        "TransformerPolicy",
        env,
        reference="initial",
        policy_kwargs={
            "model": str(smollm2_folder()),
            "lora": 16,
            "dtype": "bfloat16",
            "value_trunk": "detached",
        },
        seed=derived_seed(seed, TRAIN),
        **experiment.agent_kwargs,
    )
    progress = Progress(evaluator, experiment.steps, report)
    model.learn(experiment.steps, callback=_PPOCurve(progress))
    return progress.row(
        model.num_timesteps, lambda: evaluator.policy(model.policy.backbone.merged()), experiment.eval_episodes
    )


class _PPOCurve(BaseCallback):
    """Notes each iteration after its update."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress
        self.rewards: list[float] = []

    def _on_step(self) -> bool:
        self.rewards += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True

    def _on_rollout_start(self) -> None:
        if not self.rewards:
            return
        reward, self.rewards = float(np.mean(self.rewards)), []
        evaluator, model = self.progress.evaluator, cast(PPO, self.model)
        self.progress.add(
            self.num_timesteps, reward, model.kl.observed, lambda: evaluator.policy(model.policy.backbone.merged())
        )


def train_grpo(experiment: Experiment, seed: int, report: Report) -> dict[str, Any]:
    """Return the row of TRL's GRPOTrainer with the same prompts, reward, adapters and measure."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    evaluator = Evaluator(experiment, seed)
    env = _make_env(experiment, experiment.num_envs, "train")
    options = experiment.agent_kwargs
    batch, longest = options["batch"], experiment.env_kwargs["max_new_tokens"]
    folder = smollm2_folder()
    progress = Progress(evaluator, experiment.steps, report)

    with tempfile.TemporaryDirectory() as scratch:
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=env.task.reward,  # type: ignore[attr-defined]
            args=GRPOConfig(
                output_dir=scratch,
                per_device_train_batch_size=batch,
                max_completion_length=longest,
                learning_rate=options["learning_rate"],
                lr_scheduler_type="constant",
                beta=options["beta"],
                gradient_checkpointing=options["gradient_checkpointing"],
                max_steps=-(-experiment.steps // (batch * longest)),
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=_device() == "cpu",
                seed=derived_seed(seed, TRAIN),
            ),
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in env.task.prompts.texts]),  # type: ignore[attr-defined]
            processing_class=load_tokenizer(),
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )

        def policy() -> TransformerPolicy:
            return evaluator.policy(cast(Any, copy.deepcopy(trainer.model)).merge_and_unload())

        curve = _GRPOCurve(progress, policy, batch)
        trainer.add_callback(curve)
        progress.clock = Clock()
        trainer.train()
        return progress.row(curve.tokens, policy, experiment.eval_episodes)


class _GRPOCurve(TrainerCallback):
    """Notes each step of TRL's trainer; `tokens` (of `batch` completions a step) are those that it trained on."""

    def __init__(self, progress: Progress, policy: Callable[[], TransformerPolicy], batch: int) -> None:
        self.tokens = 0
        self._progress, self._policy, self._batch = progress, policy, batch

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Add a point, where the log is of a step."""
        logs: Mapping[str, float] = given["logs"]
        if "reward" not in logs:
            return
        length = logs["completions/mean_length"]
        self.tokens += round(self._batch * length)
        self._progress.add(self.tokens, logs["reward"], logs.get("kl", 0.0) * length, self._policy)


def smollm2_folder() -> Path:
    """Return a folder with the model and its tokenizer in transformers' format, made once from the GGUF file."""
    folder = cache_folder() / "SmolLM2-135M-Instruct"
    if not folder.exists():
        file = smollm2()
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".convert-") as scratch:
            load_model(file).save_pretrained(scratch)
            AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(scratch)
            with contextlib.suppress(OSError):  # another process was faster
                Path(scratch).rename(folder)
            Path(scratch).mkdir(exist_ok=True)
    return folder


@cache
def load_tokenizer() -> Any:
    """Return the model's tokenizer."""
    return AutoTokenizer.from_pretrained(smollm2_folder())


def _row(completions: Completions) -> dict[str, Any]:
    """Return the fields that every row of the suite has."""
    shown = [
        {"prompt": prompt, "completion": text, "reward": float(reward)}
        for prompt, text, reward in zip(completions.prompts, completions.texts, completions.rewards, strict=True)
    ]
    step = max(1, len(shown) // SIDE_BY_SIDE)
    return {"measurement": asdict(measure(completions)), "completions": shown[::step][:SIDE_BY_SIDE]}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _make_env(experiment: Experiment, num_envs: int, split: str) -> VectorEnv:
    keywords = {**experiment.env_kwargs, "split": split, "tokenizer": load_tokenizer()}
    if isinstance(named := keywords["prompts"], str) and ":" in named:
        keywords["prompts"] = resolve(named)()
    return make_env(experiment.env_id, num_envs, keywords)
