"""The section `agents` of the timings: our agents beside stock SB3, TRL and Hugging Face's `generate`.

The slow twin is an honest one, stock SB3 with our policy, which trims each batch to its longest row; beside the
ratio of seconds stands that of floating-point operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .dqn import gradient_row, memory_row
from .generation import has_trl, rollout_row, trl_row
from .jobs import Job
from .ppo import growth_row, iteration_row
from .timing import Row


@dataclass(frozen=True)
class Sizes:
    """How large each row's job is.

    Attributes:
        ppo: beside stock SB3, in the order of DESIGN.md's table.
        grpo: beside TRL; a minibatch is whole completions.
        rollouts: beside `generate`, equal lengths and ragged ones.
        rollouts_at_once: batches that are timed together.
        dqn: beside stock SB3.
        gradient_steps: of it that are timed together.
        replay: whose transitions fill the replay buffers.
        replay_measured: how many do.
        growth: the same tokens in short and in long episodes.
    """

    ppo: tuple[Job, ...] = (
        Job(),
        Job(width=256, vocab_size=8192, tokens=128, stock_minibatches=2),
        Job(tokens=512, stock_minibatches=1),
    )
    grpo: Job = Job()
    rollouts: tuple[Job, ...] = (Job(), Job(ragged=True))
    rollouts_at_once: int = 5
    dqn: Job = Job()
    gradient_steps: int = 2
    replay: tuple[Job, ...] = (Job(tokens=504), Job(tokens=504, ragged=True))
    replay_measured: int = 50_000
    growth: tuple[Job, Job] = (
        Job(tokens=128, batch_size=1024),
        Job(tokens=1024, n_envs=2, batch_size=1024),
    )


_TINY = Job(width=16, layers=1, heads=2, vocab_size=16, prompt=2, tokens=8, n_envs=4, n_epochs=2, batch_size=16)
_TINY_SCALED = Job(16, 1, 2, 16, 2, 16, n_envs=4, n_epochs=2, batch_size=16, stock_minibatches=1)
_TINY_RAGGED = Job(16, 1, 2, 16, 2, 8, ragged=True, n_envs=4, n_epochs=2, batch_size=16)
TINY = Sizes((_TINY, _TINY_SCALED), _TINY, (_TINY, _TINY_RAGGED), 1, _TINY, 1, (_TINY_RAGGED,), 200,
             (_TINY, _TINY_SCALED))  # fmt: skip


def rows(repeats: int, device: str, sizes: Sizes = Sizes()) -> Iterator[Row]:  # noqa: B008 - it is frozen
    """Yield the rows of this section."""
    for job in sizes.ppo:
        yield iteration_row(job, repeats, device)
    if has_trl():
        yield trl_row(sizes.grpo, repeats, device)
    else:
        print("  TRL's GRPOTrainer is left out: pip install 'text-envs[trl]'")
    for job in sizes.rollouts:
        yield rollout_row(job, sizes.rollouts_at_once, repeats, device)
    yield gradient_row(sizes.dqn, sizes.gradient_steps, repeats, device)
    for job in sizes.replay:
        yield memory_row(job, sizes.replay_measured)
    yield growth_row(*sizes.growth, repeats, device)


def quick_rows(repeats: int, device: str) -> Iterator[Row]:
    """Yield the same rows at sizes that take seconds: to see that they run, their figures mean nothing."""
    return rows(repeats, device, TINY)
