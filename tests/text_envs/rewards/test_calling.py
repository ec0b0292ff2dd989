import asyncio
import functools
import gc
import os
import pickle
import threading
import time
import warnings

import pytest

from text_envs.rewards import Cached, Length, RewardError, WeightedSum, calling, conversational, per_sample
from text_envs.rewards.base import evaluate

PROMPTS, COMPLETIONS = ["p", "q", "r"], ["one", "one two", "bad text"]


def call(reward, **columns):
    return evaluate(reward, PROMPTS, COMPLETIONS, columns)[0].tolist()


async def later(prompts, completions, **columns):
    await asyncio.sleep(0.001)
    return [float(len(completion)) for completion in completions]


async def pair_later(prompt, completion):
    await asyncio.sleep(0.001)
    return len(completion)


class Later:
    async def __call__(self, prompts, completions, **columns):
        return await later(prompts, completions)


LENGTHS = [3.0, 7.0, 8.0]


@pytest.mark.parametrize(
    "reward",
    [
        later,
        Later(),
        functools.partial(later),
        per_sample(pair_later),
        per_sample(lambda prompt, completion: pair_later(prompt, completion)),
        per_sample(lambda prompt, completion: pair_later(prompt, completion) if prompt == "q" else len(completion)),
        WeightedSum({"later": (later, 1.0)}),
        WeightedSum({"sum": (WeightedSum({"later": (later, 1.0)}), 1.0)}),
        Cached(later),
    ],
)
def test_async_rewards_are_waited_for(reward):
    assert call(reward) == LENGTHS


def test_async_messages():
    async def of_messages(prompts, completions, **columns):
        return [len(said[0]["content"]) for said in completions]

    assert call(conversational(of_messages)) == LENGTHS


def meeting(number):
    """A function that returns once `number` calls of it are under way at the same time."""
    arrived = []

    async def meet():
        arrived.append(None)
        while len(arrived) < number:
            await asyncio.sleep(0)

    return meet


def test_async_terms_and_pairs_are_awaited_together():
    meet = meeting(2 + 3)

    async def whole(prompts, completions, **columns):
        await meet()
        return LENGTHS

    async def pair(prompt, completion):
        await meet()
        return 1.0

    terms = {"a": (whole, 1.0), "b": (Cached(whole), 1.0), "c": (per_sample(pair), 1.0), "d": (Length(), 1.0)}
    values, reported = evaluate(WeightedSum(terms), PROMPTS, COMPLETIONS, {})
    assert values.tolist() == [6 + 1 + 1, 14 + 1 + 2, 16 + 1 + 2]
    assert reported["a"].tolist() == LENGTHS and reported["c"].tolist() == [1.0] * 3


def test_inside_a_running_event_loop():
    async def notebook():
        return call(later), WeightedSum({"later": (later, 2.0)})(PROMPTS, COMPLETIONS)

    assert asyncio.run(notebook()) == (LENGTHS, [6.0, 14.0, 16.0])


def test_what_belongs_to_a_loop_may_be_kept_from_call_to_call():
    limit = asyncio.Semaphore(1)

    async def limited(prompt, completion):
        async with limit:
            await asyncio.sleep(0)
            return 1.0

    assert call(per_sample(limited)) == call(per_sample(limited)) == [1.0] * 3


def test_an_async_reward_that_fails_shows_the_text_and_stops_the_others():
    stopped = threading.Event()

    async def slow(prompts, completions, **columns):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.set()
            raise

    async def broken(prompts, completions, **columns):
        await asyncio.sleep(0.001)
        raise KeyError("missing")

    async def broken_pair(prompt, completion):
        return 1.0 if completion == "one" else 1 / 0

    begun = time.monotonic()
    with pytest.raises(
        RewardError, match="reward .*broken raised KeyError.*prompt 'p', completion 'one'"
    ) as caught:
        call(WeightedSum({"slow": (slow, 1.0), "broken": (broken, 1.0)}))
    assert isinstance(caught.value.__cause__, KeyError)
    assert stopped.wait(5) and time.monotonic() - begun < 30
    with pytest.raises(RewardError, match="broken_pair raised ZeroDivisionError.*completion 'one two'"):
        call(per_sample(broken_pair))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_interrupt_inside_an_async_reward_reaches_the_caller(error):
    async def leaves(prompts, completions, **columns):
        await asyncio.sleep(0.001)
        raise error(3)

    async def in_a_task_of_its_own(prompts, completions, **columns):
        return await asyncio.create_task(leaves(prompts, completions))

    for reward in (
        leaves,
        in_a_task_of_its_own,
        per_sample(lambda prompt, completion: leaves([prompt], [completion])),
    ):
        with pytest.raises(error, match="3"):
            call(reward)
        assert call(later) == LENGTHS


def test_a_loop_whose_thread_has_died_is_replaced(monkeypatch):
    dead = threading.Thread()
    monkeypatch.setitem(calling._loops, os.getpid(), (asyncio.new_event_loop(), dead))
    assert call(later) == LENGTHS


async def raises_cancelled(prompts, completions, **columns):
    raise asyncio.CancelledError


async def awaits_what_was_cancelled(prompts, completions, **columns):
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


async def cancels_itself(prompts, completions, **columns):
    asyncio.current_task().cancel()
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (raises_cancelled, "raises_cancelled raised CancelledError.* on prompt 'p', completion 'one'"),
        (awaits_what_was_cancelled, "what_was_cancelled raised CancelledError.* on prompt 'p', completion 'one'"),
        (
            per_sample(lambda prompt, completion: raises_cancelled([prompt], [completion])),
            "lambda> raised CancelledError.* on prompt 'p', completion 'one'",
        ),
        (cancels_itself, "cancels_itself cancelled the task it ran in on prompt 'p', completion 'one'"),
    ],
)
def test_a_cancelled_async_reward_is_named_with_the_text(reward, message):
    with pytest.raises(RewardError, match=message):
        call(reward)


@pytest.mark.parametrize("values", [[1.0], [1.0, float("nan"), 1.0], None])
def test_what_an_async_reward_returns_is_checked(values):
    async def wrong(prompts, completions, **columns):
        return values

    with pytest.raises(RewardError, match="wrong returned"):
        call(wrong)


def test_coroutines_that_are_given_up_are_closed():
    def broken(prompts, completions, **columns):
        raise KeyError("missing")

    def some_broken(prompt, completion):
        return pair_later(prompt, completion) if prompt != "r" else 1 / 0

    asynchronous = {"a": (later, 1.0), "b": (per_sample(pair_later), 1.0), "c": (Cached(later), 1.0)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for reward in (WeightedSum({**asynchronous, "broken": (broken, 1.0)}), per_sample(some_broken)):
            with pytest.raises(RewardError):
                call(reward)
        gc.collect()  # also tells of what other tests left behind: only coroutines are ours here
    assert not [str(warning.message) for warning in caught if "was never awaited" in str(warning.message)]


def test_a_reward_that_would_wait_for_itself_says_so():
    both = WeightedSum({"later": (later, 1.0)})

    async def outer(prompts, completions, **columns):
        return both(prompts, completions)

    with pytest.raises(RewardError, match="outer raised RuntimeError.*await the async function itself"):
        call(outer)


def test_arguments_have_the_names_of_the_contract():
    def swapped(completions, prompts, completion_ids):
        return [float(prompts[i] == "q") + len(ids) for i, ids in enumerate(completion_ids)]

    assert call(swapped, completion_ids=[[1], [], [1, 2]]) == [1.0, 1.0, 2.0]
    with pytest.raises(RewardError, match=r"raised TypeError.*called as reward\(prompts=.*per_sample"):
        call(lambda prompt, completion: 1.0)


def test_a_wrapper_is_called_by_what_it_wraps():
    with pytest.raises(RewardError, match="reward PerSample of .*lambda.* returned nan"):
        call(per_sample(lambda prompt, completion: float("nan")))
    with pytest.raises(RewardError, match="reward Cached of PerSample of .*lambda.* returned None"):
        call(Cached(per_sample(lambda prompt, completion: None)))


def test_async_wrappers_pickle():
    assert call(pickle.loads(pickle.dumps(per_sample(pair_later)))) == LENGTHS
