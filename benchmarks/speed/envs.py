"""The section `envs` of the timings: our environments beside CartPole and the other suites' own loops."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import gymnasium as gym
import numpy as np

from text_envs import catalog

from .timing import Row, compare, rate

BATCH = 4096
STEPS = 200
SINGLE_STEPS = 20_000
TEXT_BATCH = 256
SUITE_BATCH = 64
SUITE_EPISODES = 640
QUESTIONS = "basic_arithmetic"
GAME, MOVES = "GuessTheNumber-v0", ("[10]", "[5]", "[15]", "[3]", "[18]")


def rows(repeats: int, device: str) -> Iterator[Row]:
    """Yield the rows of this section."""
    cartpole = _batch_loop("CartPole-v1")
    for entry in catalog.entries():
        if isinstance(entry, catalog.Entry) and entry.family == "diagnostic":
            for keywords in ({}, {"dense": True}) if entry.id == "text_envs/Copy-v0" else ({},):
                name = f"{entry.id}, batch of {BATCH:,}" + "".join(f", {key}" for key in keywords)
                ours = _batch_loop(entry.id, **keywords)
                yield compare(name, "steps/s", ours, cartpole, "CartPole's vector environment", repeats)
    for keywords in ({}, {"dense": True}):
        name = "text_envs/Copy-v0, single" + "".join(f", {key}" for key in keywords)
        ours = _single_loop("text_envs/Copy-v0", **keywords)
        yield compare(name, "steps/s", ours, _single_loop("CartPole-v1"), "CartPole", repeats)
    yield _share_of_reward(repeats)
    yield from _suites(repeats)


def _batch_loop(id: str, **keywords: Any) -> Callable[[], int]:
    """Return a function that takes full steps of a batch, autoreset included, with random actions."""
    env = gym.make_vec(id, num_envs=BATCH, vectorization_mode="vector_entry_point", **keywords)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(STEPS)]
    env.reset(seed=0)

    def loop() -> int:
        for action in actions:
            env.step(action)
        return STEPS * BATCH

    return loop


def _single_loop(id: str, **keywords: Any) -> Callable[[], int]:
    env = gym.make(id, **keywords)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(SINGLE_STEPS)]

    def loop() -> int:
        env.reset(seed=0)
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return SINGLE_STEPS

    return loop


def _share_of_reward(repeats: int) -> Row:
    """Return the share of a real-text environment's time that its reward takes."""
    from text_envs.rewards import VaderSentiment

    vader, inside = VaderSentiment(), 0.0

    def timed(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        nonlocal inside
        begin = time.perf_counter()
        values = vader(prompts, completions, **columns)
        inside += time.perf_counter() - begin
        return values

    id = "text_envs/Sentiment-v0"
    env = gym.make_vec(id, num_envs=TEXT_BATCH, vectorization_mode="vector_entry_point", reward=timed)
    actions = np.random.default_rng(0).integers(0, env.single_action_space.n, (STEPS, TEXT_BATCH))  # type: ignore[attr-defined]
    env.reset(seed=0)
    shares, rates = [], []

    def loop() -> int:
        for action in actions:
            env.step(action)
        return STEPS * TEXT_BATCH

    loop()  # the warm-up
    for _ in range(repeats):
        inside = 0.0
        begin = time.perf_counter()
        rates.append(rate(loop))
        shares.append(inside / (time.perf_counter() - begin))
    share, steps = float(np.median(shares)), float(np.median(rates))
    return {
        "name": f"{id} with VADER, batch of {TEXT_BATCH}",
        "told": f"{share:.0%} of the time inside the reward; {steps:,.0f} steps/s",
        "share": share,
        "steps_per_second": steps,
    }


def _suites(repeats: int) -> Iterator[Row]:
    """Yield our episodes beside those of the suites' own loops, written as their documentation does."""
    if importlib.util.find_spec("reasoning_gym") is None or importlib.util.find_spec("textarena") is None:
        print("  reasoning-gym and TextArena are left out: pip install 'text-envs[suites]'")
        return
    asked = f"text_envs/ReasoningGym-v0, {QUESTIONS}, batch of {SUITE_BATCH}, {SUITE_EPISODES} new questions"
    answered, scored = partial(_answered, count()), partial(_reasoning_gym, count())
    yield compare(asked, "episodes/s", answered, scored, "reasoning-gym's own loop", repeats)
    played = f"text_envs/TextArena-v0, {GAME}, batch of {SUITE_BATCH}"
    ours = _episodes("text_envs/TextArena-v0", MOVES, game=GAME)
    yield compare(played, "episodes/s", ours, _textarena, "TextArena's own loop", repeats)


def _episodes(id: str, said: tuple[str, ...], **keywords: Any) -> Callable[[], int]:
    """Return a function that plays episodes at utterance level with a fixed list of utterances, over and over."""
    env = gym.make_vec(id, num_envs=SUITE_BATCH, level="utterance", **keywords)

    def play() -> int:
        env.reset(seed=0)
        ended, turn = 0, np.zeros(SUITE_BATCH, np.int64)
        while ended < SUITE_EPISODES:
            *_, terminated, _, _ = env.step(tuple(said[t % len(said)] for t in turn))
            turn = np.where(terminated, 0, turn + 1)
            ended += int(terminated.sum())
        return ended

    return play


def _answered(seeds: Iterator[int]) -> int:
    """Make questions of the next seed and answer them in our environment."""
    answered = _episodes(
        "text_envs/ReasoningGym-v0", ("0",), dataset=QUESTIONS, dataset_seed=next(seeds), size=SUITE_EPISODES
    )
    return answered()


def _reasoning_gym(seeds: Iterator[int]) -> int:
    """Make questions of the next seed and score an answer to each."""
    from reasoning_gym import create_dataset

    data = create_dataset(QUESTIONS, seed=next(seeds), size=SUITE_EPISODES)
    for entry in data:
        data.score_answer("0", entry)
    return SUITE_EPISODES


def _textarena() -> int:
    """Play TextArena; a new game for each episode, because its wrapper keeps the history of all it played."""
    import textarena

    for seed in range(SUITE_EPISODES):
        env, over, turn = textarena.make(GAME), False, 0
        env.reset(num_players=1, seed=seed)
        while not over:
            env.get_observation()
            over, _ = env.step(action=MOVES[turn % len(MOVES)])
            turn += 1
        env.close()
    return SUITE_EPISODES
