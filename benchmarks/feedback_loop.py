"""One trial of the loop: simulated preferences -> reward model -> PPO on it, held against the known reward."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from transformers import PreTrainedModel

import agents
from agents.preferences import Agreement, agreement
from agents.reward_model import RewardEnsemble, RewardModel, train_reward_model
from text_envs import TokenVectorEnv
from text_envs.feedback.annotators import Annotator, scale_of_noise, simulate
from text_envs.rewards.base import RewardFunction, evaluate
from text_envs.streams import RowRandom
from text_envs.tasks.base import Samples, Score, Task, Utterances

from . import evaluation
from .evaluation import make_env
from .feedback import SCORES, TEST, WEAK
from .frontier import play, with_error
from .suites import Experiment
from .trial import Report, derived_seed

ASIDE = 0.1  # of the comparisons to learn from: they choose when training stops
FIT: dict[str, Any] = {"epochs": 12, "batch_size": 32, "learning_rate": 1e-3, "patience": 8}
POINTS = 20  # of a curve
EPISODES = 1024  # of a point
PROMPTS = 12_000
ROWS = 64
_LONGEST = 200_000  # steps of the run that is compared
_RUN, _SAY, _COMPARE, _FIT, _PPO, _MEASURE, _TEST = range(7)  # streams of random numbers
_LEARN: dict[str, Any] = {"n_steps": 16, "batch_size": 256}  # small rollouts: checkpoints lie close to their scores


class Judged(Task):
    """A task of one turn that pays what a reward function says; its own score is `gold`, in infos and columns.

    Args:
        task: whose prompts, tokens and score.
        reward: see `text_envs.rewards.base`.
    """

    def __init__(self, task: Task, reward: RewardFunction) -> None:
        super().__init__(
            task.tokenizer,
            max_prompt_tokens=task.max_prompt_tokens,
            max_new_tokens=task.max_new_tokens,
            context_length=task.context_length,
        )
        self.task, self.reward = task, reward

    def sample(self, random: RowRandom) -> Samples:
        """Return the task's own prompts."""
        return self.task.sample(random)

    def score(self, said: Utterances) -> Score:
        """Return the reward of completions."""
        worth = self.task.score(said).value
        texts = self.texts(said)
        prompts, completions = [prompt for prompt, _ in texts], [text for _, text in texts]
        value, _ = evaluate(self.reward, prompts, completions, {"gold": worth.tolist()})
        return Score(value, {"gold": worth})

    def texts(self, said: Utterances) -> list[tuple[str, str]]:
        """Return each row's prompt and completion."""
        rows = zip(said.tokens, said.start, said.length, strict=True)
        decode = self.codec.decode
        return [(decode(row[:start].tolist()), decode(row[start:end].tolist())) for row, start, end in rows]


def gold(prompts: list[str], completions: list[str], *, gold: list[float], **columns: Any) -> list[float]:
    """Return what a judged task's own score is."""
    return gold


class Standardized:
    """A reward shifted and scaled so that some completions have mean 0 and standard deviation 1.

    Args:
        reward: the reward.
        prompts: n of these completions.
        completions: n.
        columns: n values each.
    """

    def __init__(
        self, reward: Callable[..., list[float]], prompts: list[str], completions: list[str], **columns: Any
    ) -> None:
        self.reward = reward
        values = np.array(reward(prompts, completions, **columns))
        self.mean, self.deviation = float(values.mean()), float(values.std())

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the shifted and scaled rewards."""
        return [(value - self.mean) / self.deviation for value in self.reward(prompts, completions, **columns)]


class Source(NamedTuple):
    """A run on the gold reward whose checkpoints wrote the texts that are compared.

    Attributes:
        task: what it was trained on.
        model: the language model of the checkpoint that the loop begins with.
        prompts: n.
        texts: for each checkpoint n completions.
        gold: (checkpoints, n), what they earn.
    """

    task: Task
    model: PreTrainedModel
    prompts: list[str]
    texts: list[list[str]]
    gold: NDArray[np.float64]


@cache
def source(env_id: str, keywords: tuple[tuple[str, Any], ...], seed: int, count: int) -> Source:
    """Return the run of a seed, and what its checkpoints say to `count` prompts.

    It is kept for the next trial of the process: it depends on nothing but the arguments.
    """
    env = make_env(env_id, ROWS, {**dict(keywords), "dense": True})
    agent = agents.PPO("TransformerPolicy", env, seed=derived_seed(seed, _RUN), **_LEARN)
    snapshots: list[PreTrainedModel] = []
    agent.learn(_LONGEST, callback=_Snapshots(env, snapshots))
    env.close()
    fresh = make_env(env_id, count, dict(keywords))
    heard = []
    for model in snapshots:
        agent.policy.backbone.model.load_state_dict(model.state_dict())
        torch.manual_seed(derived_seed(seed, _SAY))
        heard.append(evaluation.evaluate(agent, fresh, count, derived_seed(seed, _SAY), deterministic=False))
    worth = np.stack([said.returns for said in heard])
    prompts = [episode.prompt for episode in heard[0].episodes]
    texts = [[episode.completion for episode in said.episodes] for said in heard]
    return Source(fresh.task, snapshots[WEAK], prompts, texts, worth)


class _Snapshots(BaseCallback):
    """Copies the language model when the last 100 episodes first reach each of `SCORES`; then training ends."""

    def __init__(self, env: TokenVectorEnv, into: list[PreTrainedModel]) -> None:
        super().__init__()
        self.env, self.into = env, into

    def _on_rollout_start(self) -> None:
        recent = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        score = self.env.normalize(float(np.mean(recent))) if recent else SCORES[0]
        if len(self.into) < len(SCORES) and score >= SCORES[len(self.into)]:
            self.into.append(self.model.policy.backbone.merged())  # type: ignore[operator,union-attr]

    def _on_step(self) -> bool:
        return len(self.into) < len(SCORES)

    def _on_training_end(self) -> None:
        if len(self.into) < len(SCORES):
            raise RuntimeError(
                f"training reached {SCORES[: len(self.into)]} of {SCORES} in {self.num_timesteps} steps; the texts "
                "to compare need checkpoints from across a whole run"
            )


class Compared(NamedTuple):
    """Simulated comparisons.

    Attributes:
        train: to learn from, as `agents.preferences` reads them.
        aside: of other prompts, to choose when to stop.
        test: of again others.
        best: the largest accuracy on the latter that any reward can be expected to reach.
        scale: of the annotator.
    """

    train: list[dict[str, Any]]
    aside: list[dict[str, Any]]
    test: list[dict[str, Any]]
    best: float
    scale: float


def compare(found: Source, count: int, noise: float, seed: int, **annotator: float) -> Compared:
    """Return comparisons of completions by two different checkpoints each, drawn uniformly.

    Args:
        found: their texts.
        count: comparisons to learn from.
        noise: share of the answers that go against the gold reward, where that differs.
        seed: of the draws.
        annotator: further traits of the annotator.

    Raises:
        ValueError: if there are too few prompts.
    """
    rng = np.random.default_rng([seed, _COMPARE])
    sides = _sides(found.prompts, (TEST, round(ASIDE * count), count - round(ASIDE * count)), rng)
    which = np.concatenate(sides)
    checkpoints = rng.random((len(found.prompts), len(found.texts))).argsort(axis=1)[which, :2]
    worth = np.stack([found.gold[checkpoints[:, side], which] for side in (0, 1)], axis=1)
    person = Annotator(scale=scale_of_noise(worth[:TEST], noise), **annotator)
    pairs = [(found.texts[a][i], found.texts[b][i]) for i, (a, b) in zip(which, checkpoints, strict=True)]
    prompts = [found.prompts[i] for i in which]
    known = {
        (prompt, text): value
        for prompt, pair, values in zip(prompts, pairs, worth.tolist(), strict=True)
        for text, value in zip(pair, values, strict=True)
    }

    def told(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        return [known[both] for both in zip(prompts, completions, strict=True)]

    ends = np.cumsum([len(side) for side in sides])
    test, aside, train = (
        simulate(prompts[end - len(side) : end], pairs[end - len(side) : end], told, person, rng)
        for side, end in zip(sides, ends, strict=True)
    )
    lengths = np.array([[len(a), len(b)] for a, b in pairs[:TEST]])
    return Compared(train, aside, test, person.best_accuracy(worth[:TEST], lengths), person.scale)


def _sides(prompts: list[str], sizes: tuple[int, int, int], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return so many indices of prompts each, for test, for choosing and for training, that share no prompt.

    The test is the same, whatever the sizes of the others.

    Raises:
        ValueError: if there are too few.
    """
    different = rng.permutation(sorted(set(prompts)))
    quarter, eighth = len(different) // 4, max(1, len(different) // 8)
    parts = np.split(different, [quarter, quarter + eighth])
    found = [np.flatnonzero(np.isin(prompts, part))[:size] for part, size in zip(parts, sizes, strict=True)]
    if [len(side) for side in found] != list(sizes):
        raise ValueError(
            f"{len(prompts)} prompts, {len(different)} of them different, are too few for {sizes} comparisons; "
            "draw more"
        )
    return found


def trial(experiment: Experiment, seed: int, report: Report) -> dict[str, Any]:
    """Return the fields of a row: the reward model's agreement, and PPO's curve on it."""
    options = dict(experiment.agent_kwargs)
    found = source(experiment.env_id, tuple(experiment.env_kwargs.items()), seed, PROMPTS)
    report(0.1)
    fields: dict[str, Any] = {}
    reward: Any = gold
    price = options.pop("kl_coef")
    with tempfile.TemporaryDirectory() as scratch:
        if options:
            reward, fields = learn_reward(
                found, seed, Path(scratch), lambda done: report(0.1 + 0.4 * done), **options
            )
        curve, seconds = follow(found, reward, experiment.steps, seed, price, lambda done: report(0.5 + 0.5 * done))
    return {
        **fields,
        "checkpoints": found.gold.mean(axis=1).tolist(),
        "steps": experiment.steps,
        "train_seconds": round(seconds, 3),
        "points": curve,
    }


def learn_reward(
    found: Source,
    seed: int,
    folder: Path,
    report: Report,
    *,
    comparisons: int,
    noise: float,
    members: int = 1,
    **annotator: float,
) -> tuple[Callable[..., list[float]], dict[str, Any]]:
    """Return a reward learned from simulated comparisons, and what the row says of it.

    Args:
        found: the texts that are compared.
        seed: of the draws.
        folder: an empty one for the models.
        report: told the finished fraction.
        comparisons: to learn from.
        noise: see `compare`.
        members: of the ensemble; one is no ensemble.
        annotator: further traits of the annotator.
    """
    compared = compare(found, comparisons, noise, seed, **annotator)
    fits, models = [], []
    for member in range(members):
        place = folder / str(member)
        fits.append(
            train_reward_model(
                compared.train,
                place,
                model=found.model,
                tokenizer=found.task.tokenizer,
                heldout=compared.aside,
                seed=derived_seed(seed, _FIT + 100 * member),
                progress_bar=False,
                **FIT,
            )
        )
        models.append(RewardModel(place))
        report((member + 1) / members)
    reward = RewardEnsemble(models) if members > 1 else models[0]
    return reward, {
        "reward_model": {
            "test": asdict(_agreement(reward, compared.test, np.random.default_rng([seed, _TEST]))),
            "best_accuracy": compared.best,
            "scale": compared.scale,
            "steps": [fit.steps for fit in fits],
            "comparisons": len(compared.train) + len(compared.aside),
        },
    }


def _agreement(
    reward: Callable[..., list[float]], comparisons: list[dict[str, Any]], rng: np.random.Generator
) -> Agreement:
    """Return how well a reward foretells comparisons."""
    prompts, chosen, rejected = ([c[name] for c in comparisons] for name in ("prompt", "chosen", "rejected"))
    return agreement(np.array(reward(prompts, chosen)) - np.array(reward(prompts, rejected)), prompts, rng)


def follow(
    found: Source, reward: Callable[..., list[float]], steps: int, seed: int, kl_coef: float, report: Report
) -> tuple[list[dict[str, float]], float]:
    """Return gold reward, proxy reward and KL as PPO on the proxy goes on, and the seconds it trained.

    It begins with the weak checkpoint.

    The proxy is standardised over what that checkpoint says, so that a nat costs the same under every reward.
    """
    weak = found.texts[WEAK]
    first = slice(EPISODES)
    scale = Standardized(reward, found.prompts[first], weak[first], gold=found.gold[WEAK, first].tolist())
    judged = Judged(found.task, scale)
    env = TokenVectorEnv(judged, ROWS, autoreset_mode=AutoresetMode.SAME_STEP)
    fresh = TokenVectorEnv(judged, EPISODES, autoreset_mode=AutoresetMode.SAME_STEP)
    agent = agents.PPO(
        "TransformerPolicy",
        env,
        reference="initial",
        kl_coef=kl_coef,
        policy_kwargs={"model": found.model},
        seed=derived_seed(seed, _PPO),
        **_LEARN,
    )
    curve = _Curve(fresh, derived_seed(seed, _MEASURE), steps, report)
    began = time.perf_counter()
    agent.learn(steps, callback=curve)
    seconds = time.perf_counter() - began - curve.paused
    curve.add()
    env.close()
    fresh.close()
    worth = found.gold[WEAK, first]
    points = [{**p, "gold_standard": float((p["gold"] - worth.mean()) / worth.std())} for p in curve.points]
    return points, seconds


class _Curve(BaseCallback):
    """Measures gold reward, proxy reward and KL on fresh episodes, the same prompts each time.

    Attributes:
        points: what was measured.
        paused: seconds that were not training.
    """

    def __init__(self, env: TokenVectorEnv, seed: int, total: int, report: Report) -> None:
        super().__init__()
        self.env, self.seed, self.total, self.report = env, seed, total, report
        self.points: list[dict[str, float]] = []
        self.paused = 0.0

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= len(self.points) * self.total / POINTS:
            self.add()

    def _on_step(self) -> bool:
        return True

    def add(self) -> None:
        """Measure now."""
        began = time.perf_counter()
        with torch.random.fork_rng():
            proxy, kl, infos = play(self.model, self.env, self.seed)
        worth = infos["final_info"]["gold"]
        self.points.append(
            {
                "steps": self.num_timesteps,
                **with_error("gold", worth),
                **with_error("proxy", proxy),
                **with_error("kl", kl),
            }
        )
        self.paused += time.perf_counter() - began
        self.report(min(1.0, self.num_timesteps / self.total))
