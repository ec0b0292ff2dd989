"""What an update does with a minibatch's loss: gradients part by part, steps that keep weights finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def by_pack(batch: Any) -> list[Any]:
    """Return a batch of the buffers as one batch for each of its packs."""
    sizes = getattr(batch, "n_states", None) or [len(pack.row) for pack in batch.packs]
    columns = []
    for name, column in zip(batch._fields, batch, strict=True):
        if isinstance(column, Tensor):
            columns.append(column.split(sizes))
        elif column is None:
            columns.append([None] * len(sizes))
        elif isinstance(column, list):
            columns.append([[item] for item in column])
        else:
            raise TypeError(f"{type(batch).__name__}.{name} is a {type(column).__name__}, which has no parts")
    return [type(batch)(*part) for part in zip(*columns, strict=True)]


class Update:
    """The optimiser's steps of one update; from the first bad one on, weights and optimiser stay as they are.

    A step is bad where the loss or the gradient's norm is not finite. A fused optimiser is told so on the device
    (the way of `torch.amp.GradScaler`), so that nothing waits for it before the update's end; with another one
    each step waits for one number.

    Args:
        optimizer: what makes the steps.
        max_grad_norm: gradients are clipped to it.
        in_parts: go through minibatches pack by pack; see the buffers' `max_tokens`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_grad_norm: float, in_parts: bool = False) -> None:
        self.optimizer, self.max_grad_norm, self.in_parts = optimizer, max_grad_norm, in_parts
        self.fused = all(group.get("fused") for group in optimizer.param_groups)
        self.tokens = 0  # that gradients were of, each time
        self.losses: list[Tensor] = []
        self.bad: list[Tensor] = []  # float 0 or 1: whether this step or one before it was bad

    def backward(self, batch: Any, loss_of: Callable[[Any], Any]) -> Any:
        """Set the gradient to a minibatch's and return its loss, without a graph.

        A loss's terms are means over transitions, so those of the parts, weighted with their shares, sum up to the
        minibatch's: the gradient is the same (but for rounding), and one part's activations at a time are kept.

        Args:
            batch: of one of the buffers.
            loss_of: a batch -> a scalar, or a NamedTuple of scalars whose `total` is minimised.
        """
        self.optimizer.zero_grad()
        self.tokens += len(batch.actions)
        terms = []
        for part in by_pack(batch) if self.in_parts else [batch]:
            loss = loss_of(part)
            share = len(part.actions) / len(batch.actions)
            (share * (loss if isinstance(loss, Tensor) else loss.total)).backward()
            terms.append([share * term.detach() for term in ([loss] if isinstance(loss, Tensor) else loss)])
        sums = [torch.stack(column).sum() for column in zip(*terms, strict=True)]
        return sums[0] if isinstance(loss, Tensor) else type(loss)(*sums)

    def step(self, loss: Tensor) -> None:
        """Clip the gradient and make a step.

        Args:
            loss: the scalar that the gradient is of.

        Raises:
            FloatingPointError: see `check`; at once where the optimiser is not fused.
        """
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        bad = 1.0 - (norm.isfinite() & loss.isfinite()).float()
        self.losses.append(loss)
        self.bad.append(torch.maximum(bad, self.bad[-1]) if self.bad else bad)
        if not self.fused:
            self.check()
            self.optimizer.step()
            return
        self.optimizer.found_inf = self.bad[-1]  # type: ignore[attr-defined]
        try:
            self.optimizer.step()
        finally:
            del self.optimizer.found_inf  # type: ignore[attr-defined]

    def check(self) -> None:
        """Wait for the device and see whether all steps were good.

        Raises:
            FloatingPointError: if one was not; the weights are those before it.
        """
        bad = torch.stack(self.bad).tolist() if self.bad else []
        if any(bad):
            first = bad.index(1.0)
            raise FloatingPointError(
                f"minibatch {first + 1} of this update has loss {self.losses[first].item()}, or a gradient that is "
                "not finite; the weights are those before it and no checkpoint was touched. Lower learning_rate or "
                "max_grad_norm, look for extreme rewards, and with dtype='float16' use 'bfloat16'"
            )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, the device's or the machine's."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


@contextmanager
def memory_advice() -> Iterator[None]:
    """Say what to lower where memory runs out; the exception keeps its type, numpy's is a plain MemoryError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        kind = MemoryError if isinstance(error, MemoryError) else type(error)  # numpy's takes no message
        raise kind(
            f"out of memory ({error}). In updates, lower micro_batch_size (tokens of one forward and backward; the "
            "gradient stays the same) or batch_size, or set policy_kwargs' gradient_checkpointing=True, "
            "dtype='bfloat16' or lora=8; in rollouts, use fewer environments or shorter texts"
        ) from error
