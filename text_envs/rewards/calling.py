"""How rewards are called: by keyword, as TRL calls them; async ones together; every value checked.

What a reward is, and how several make one, is in base.py.
"""

from __future__ import annotations

import inspect
import math
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import asyncio

Values = Sequence[float | None]
RewardFunction = Callable[..., Values | Awaitable[Values]]

# By process: a fork inherits the loop, but not the thread that runs it.
_loops: dict[int, tuple[asyncio.AbstractEventLoop, threading.Thread]] = {}
_loops_lock = threading.Lock()
_CHANGEABLE = (list, dict, set, tuple, np.ndarray)  # or, a tuple, what may hold such


class RewardError(RuntimeError):
    """A reward raised, or returned something that is not one finite number per completion."""


def call_all(
    rewards: Sequence[RewardFunction],
    prompts: list[str],
    completions: list[str],
    columns: Mapping[str, Any],
    *,
    none_allowed: bool,
) -> list[NDArray[np.float64]]:
    """Call rewards once each, in order; what is awaitable is then awaited together.

    Returns:
        (n,) values of each reward, NaN for None where that is allowed.

    Raises:
        RewardError: if one raises, or does not return one finite number per completion.
    """
    returned: list[Any] = []
    try:
        for reward in rewards:
            returned.append(_called(reward, prompts, completions, columns))
    except BaseException:
        abandon(returned)
        raise
    if any(map(is_awaitable, returned)):
        waited = [name_of(reward) for reward, answer in zip(rewards, returned, strict=True) if is_awaitable(answer)]
        try:
            returned = wait(returned)
        except CancelledError as error:
            raise RewardError(
                f"{' or '.join(waited)} cancelled the task it ran in{_first(prompts, completions)}; cancel only "
                "tasks of your own"
            ) from error
    return [
        checked(reward, values, prompts, completions, none_allowed=none_allowed)
        for reward, values in zip(rewards, returned, strict=True)
    ]


def checked(
    reward: RewardFunction, values: Any, prompts: list[str], completions: list[str], *, none_allowed: bool
) -> NDArray[np.float64]:
    """Return what a reward returned as (n,) floats, NaN for None where that is allowed.

    Raises:
        RewardError: if it is not one finite number per completion.
    """
    name = name_of(reward)
    shape = getattr(values, "shape", None)  # an array's or a tensor's
    if shape is None and isinstance(values, Sequence) and not isinstance(values, bytes | bytearray):
        shape = (len(values),)
    if shape is None or tuple(shape) != (len(completions),):
        if shape is None:
            count = f"{values!r:.200}"
        else:
            count = f"{shape[0]} values" if len(shape) == 1 else f"an array of shape {tuple(shape)}"
        raise RewardError(
            f"{name} returned {count} for {len(completions)} completions{_first(prompts, completions)}; "
            "return a list, one float per completion (a function of a single pair goes through per_sample)"
        )
    for value, prompt, completion in zip(values, prompts, completions, strict=True):
        if value is None and none_allowed:
            continue
        if not is_finite(value):
            hint = "; None is for terms of a WeightedSum" if value is None else ""
            kept = "an integer too large for a float" if isinstance(value, int) else repr(value)
            raise RewardError(
                f"{name} returned {kept} for {shown(prompt, completion)}; return a finite float{hint}"
            )
    return np.array([math.nan if value is None else float(value) for value in values], np.float64)


class Pending:
    """An answer that waits for others; one that is given up closes those, so that Python does not warn of them.

    Args:
        settle: called when awaited.
        others: what it waits for.
    """

    def __init__(self, settle: Callable[[], Coroutine[Any, Any, Any]], others: Iterable[Any]) -> None:
        self._settle = settle
        self._others = others

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._settle().__await__()

    def close(self) -> None:
        """Give up."""
        abandon(self._others)


def is_awaitable(value: Any) -> bool:
    """Return whether `await` takes a value: what an async function returns."""
    return hasattr(value, "__await__")


async def together(results: Iterable[Any]) -> list[Any]:
    """Return results in order, each awaitable replaced by what it gives; all are awaited at once.

    The first that raises stops the others.
    """
    import asyncio

    results = list(results)
    tasks = {i: asyncio.ensure_future(result) for i, result in enumerate(results) if is_awaitable(result)}
    try:
        await asyncio.gather(*tasks.values())
    finally:
        for task in tasks.values():
            task.cancel()
    return [tasks[i].result() if i in tasks else result for i, result in enumerate(results)]


def wait(results: list[Any]) -> list[Any]:
    """Do as `together` and wait for it, with or without a running event loop around (Jupyter has one).

    It runs on one background loop that lives as long as the process, so that a client's connections and an
    asyncio.Semaphore may be kept from call to call.

    Raises:
        RuntimeError: if called on the background loop itself, which would wait for itself.
        CancelledError: if what is awaited cancels the task that waits for it.
    """
    import asyncio

    loop, thread = background()
    if threading.current_thread() is thread:
        abandon(results)
        raise RuntimeError(
            "an async reward called a reward that waits for async ones, and both would wait forever: await the "
            "async function itself there, or make both terms of one WeightedSum"
        )
    ended = threading.Event()

    async def work() -> list[Any]:
        try:
            return await together(results)
        finally:
            ended.set()

    future = asyncio.run_coroutine_threadsafe(work(), loop)
    try:
        return future.result()
    except BaseException:  # an interrupt of this thread, too, stops what is under way
        if future.cancel():
            ended.wait(1.0)  # for what rewards do at the end, such as keeping what was answered so far
        raise


def background() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    """Return the process's loop for async rewards, and the thread it runs in."""
    import asyncio

    with _loops_lock:
        loop, thread = _loops.get(os.getpid(), (None, None))
        if loop is None or thread is None or not thread.is_alive():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_run, args=(loop,), name="text-envs-async-rewards", daemon=True)
            thread.start()
            _loops[os.getpid()] = loop, thread
    return loop, thread


def is_failure(error: BaseException) -> bool:
    """Return whether what an async reward raised is its own failure: not an interrupt, nor its being stopped."""
    import asyncio

    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or not task.cancelling()
    return isinstance(error, Exception)


def abandon(results: Iterable[Any]) -> None:
    """Close what will never be awaited."""
    for result in results:
        if inspect.iscoroutine(result) or isinstance(result, Pending):
            result.close()


def is_finite(value: Any) -> bool:
    """Return whether a value is one number and finite as a float; an array or tensor of one number is not one."""
    try:
        return getattr(value, "shape", ()) == () and math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


def name_of(reward: Any) -> str:
    """Return what messages call a reward; a wrapper's name shows what it wraps."""
    own = getattr(reward, "__qualname__", type(reward).__qualname__)
    inner = getattr(reward, "function", None)
    return f"reward {own}" if inner is None else f"reward {own} of {name_of(inner).removeprefix('reward ')}"


def shown(prompt: str, completion: str, most: int = 300) -> str:
    """Return a prompt and a completion for a message, long ones cut."""
    cut = [text if len(text) <= most else text[:most] + "..." for text in (prompt, completion)]
    return f"prompt {cut[0]!r}, completion {cut[1]!r}"


def _called(reward: RewardFunction, prompts: list[str], completions: list[str], columns: Mapping[str, Any]) -> Any:
    """Return what a reward returns, or an awaitable of it; either raises nothing but RewardError."""
    copies = {name: _copied(name, given) for name, given in columns.items()}
    try:
        values = reward(
            prompts=_copied("prompts", prompts), completions=_copied("completions", completions), **copies
        )
    except RewardError:
        raise
    except Exception as error:
        raise _failed(reward, error, prompts, completions) from error
    if not is_awaitable(values):
        return values
    return Pending(partial(_awaited, reward, values, prompts, completions), [values])


async def _awaited(reward: RewardFunction, values: Any, prompts: list[str], completions: list[str]) -> Any:
    try:
        return await values
    except RewardError:
        raise
    except BaseException as error:
        if not is_failure(error):
            raise
        raise _failed(reward, error, prompts, completions) from error


def _copied(name: str, given: Any) -> Any:
    """Return a copy that a reward may change without others seeing it: the data set, the other terms."""
    if not isinstance(given, list):  # TRL hands over such things, too: its state
        return given
    if not any(issubclass(kind, _CHANGEABLE) for kind in set(map(type, given))):
        return list(given)
    if name == "completion_ids":  # rows of integers, which deepcopy would visit one by one
        return [row.copy() if isinstance(row, list) else row for row in given]
    return [deepcopy(value) if isinstance(value, _CHANGEABLE) else value for value in given]


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop for good.

    A task that raises SystemExit or KeyboardInterrupt stops its loop, and whoever waits for the task gets the
    exception only when the loop goes on.
    """
    while not loop.is_closed():
        with suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()


def _failed(
    reward: RewardFunction, error: BaseException, prompts: list[str], completions: list[str]
) -> RewardError:
    remedy = "mend the function, or let it return a value for such texts"
    if isinstance(error, TypeError):
        remedy += ". It is called as reward(prompts=..., completions=..., **columns)"
        remedy += "; a function of a single pair goes through per_sample"
    return RewardError(
        f"{name_of(reward)} raised {error!r}{_first(prompts, completions)}; a failed reward is never counted "
        f"as 0: {remedy}"
    )


def _first(prompts: list[str], completions: list[str]) -> str:
    others = f" (the first of {len(prompts)})" if len(prompts) > 1 else ""
    return f" on {shown(prompts[0], completions[0])}{others}" if prompts else " on no completions"
