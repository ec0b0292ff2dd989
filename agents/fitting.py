"""Gradient descent that a crash does not undo: checkpoints, held-out loss, early stopping.

What is predicted, and from which data, is the caller's (`warm_start.py`, `reward_training.py`).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .checkpoint import CheckpointError, FolderInUseError, locked, write_text, write_whole

Settings = Mapping[str, str | int | float | None]
REPORT = "training.json"


@dataclass(frozen=True)
class Fit:
    """What a fit came to.

    Attributes:
        folder: where the model lies.
        steps: how many were taken; fewer than asked for where it stopped early.
        heldout_loss: of the model in the folder: mean negative log-likelihood, in nats.
        history: (step, training loss since the step before, held-out loss) of each evaluation.
    """

    folder: Path
    steps: int
    heldout_loss: float
    history: list[tuple[int, float, float]]


AnyFit = TypeVar("AnyFit", bound=Fit)


@dataclass(frozen=True)
class Schedule:
    """How to descend: AdamW, Loshchilov and Hutter 2019, arXiv:1711.05101, with a warm-up and a cosine.

    Attributes:
        steps: updates.
        learning_rate: the largest.
        warmup: fraction of the steps over which it rises from 0; then it falls to 0 along a cosine.
        weight_decay: of matrices; vectors are not decayed.
        max_grad_norm: gradients are clipped to it.
        eval_interval: updates between held-out losses, and between checkpoints.
        patience: evaluations without a better held-out loss before it stops and takes the best weights back; None
            takes the last weights.

    Raises:
        ValueError: if a number is out of range.
    """

    steps: int
    learning_rate: float
    warmup: float
    weight_decay: float
    max_grad_norm: float
    eval_interval: int
    patience: int | None

    def __post_init__(self) -> None:
        for name in ("steps", "eval_interval", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}; give at least 1")
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}; give a positive number")
        if not (0 <= self.warmup <= 1 and 0 <= self.weight_decay < math.inf):
            raise ValueError(f"warmup={self.warmup} is a fraction, weight_decay={self.weight_decay} at least 0")

    def at(self, step: int) -> float:
        """Return the learning rate of update `step`, counted from 0."""
        rising = min(1.0, (step + 1) / max(1.0, self.warmup * self.steps))
        return self.learning_rate * rising * (1 + math.cos(math.pi * step / self.steps)) / 2


class Run:
    """A folder that a fit writes to: `checkpoint/` while it runs, the model and a report when it is finished.

    Args:
        folder: new, empty, or of an earlier run with the same settings, which is continued.
        settings: all that the result depends on.

    Raises:
        FileExistsError: if the folder holds a model that is not a run's.
        ValueError: if it holds a run with other settings.
        CheckpointError: if its report or checkpoint is damaged.
    """

    def __init__(self, folder: str | Path, settings: Settings) -> None:
        self.folder = Path(folder).expanduser()
        self.settings = dict(settings)
        self.unfinished = self.folder / "checkpoint"
        self._state = self.unfinished / "state.pt"
        self._report = self.folder / REPORT
        if self.folder.exists() and not self.folder.is_dir():
            raise NotADirectoryError(f"{self.folder} is a file; give a folder's path")
        ours = self.unfinished.exists() or self._report.exists()
        if not ours and (self.folder / "config.json").exists():
            raise FileExistsError(f"{self.folder} holds a model that no run here made; give another folder")

    def finished(self, kind: type[AnyFit]) -> AnyFit | None:
        """Return what came of the run, None while it is not finished."""
        if not self._report.exists():
            return None
        try:
            report = json.loads(self._report.read_text(encoding="utf-8"))
            settings = report.pop("settings")
            history = [(step, train, heldout) for step, train, heldout in report.pop("history")]
            fitted = kind(folder=self.folder, history=history, **report)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(self._report, error) from error
        self._check(settings)
        return fitted

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Return the checkpoint, None where there is none; from here to its end, the run alone writes the folder.

        Raises:
            FolderInUseError: if another process is training into it, or just has.
        """
        self.unfinished.mkdir(parents=True, exist_ok=True)
        self._lock = locked(self.unfinished)
        if self._report.exists():
            raise FolderInUseError(f"another process has just trained into {self.folder}; do the same again")
        if not self._state.exists():
            return None
        try:
            state = torch.load(self._state, map_location=device, weights_only=True)
            settings = state["settings"]
        except (RuntimeError, UnpicklingError, EOFError, KeyError, ValueError, TypeError, OSError) as error:
            raise self._damaged(self._state, error) from error
        self._check(settings)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint: the whole file, or the old one stays."""
        whole = {**state, "settings": self.settings}
        write_whole(self._state, lambda temporary: torch.save(whole, temporary))

    def finish(self, fitted: Fit) -> None:
        """Write the report, after the model: the run is finished, and its checkpoint no longer needed."""
        report = {**asdict(fitted), "settings": self.settings}
        del report["folder"]
        write_text(self._report, json.dumps(report, indent=1))
        self._lock.close()
        shutil.rmtree(self.unfinished, ignore_errors=True)

    def _check(self, theirs: Settings) -> None:
        names = [n for n in {**self.settings, **theirs} if self.settings.get(n) != theirs.get(n)]
        if names:
            shown = ", ".join(f"{n}={theirs.get(n)!r} there and {self.settings.get(n)!r} here" for n in names)
            raise ValueError(f"{self.folder} holds a run with other settings: {shown}; give another folder")

    def _damaged(self, path: Path, error: Exception) -> CheckpointError:
        reason = str(error).partition("\n")[0]
        return CheckpointError(
            f"{path} is damaged ({type(error).__name__}: {reason}); delete {self.folder} to begin again"
        )


def fit(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    heldout_loss: Callable[[], float],
    run: Run,
    schedule: Schedule,
    *,
    description: str,
    progress_bar: bool,
) -> tuple[int, list[tuple[int, float, float]]]:
    """Minimise the loss of batches, from the run's checkpoint on; the model holds the result.

    Nothing here draws random numbers, so that a run that was killed ends like one that was not.

    Args:
        model: on its device, without dropout.
        loss: step, counted from 0 -> the loss of its batch, the same batch at every call.
        heldout_loss: returns the loss on what is never trained on.
        run: where checkpoints go.
        schedule: how to descend.
        description: stands before the progress bar.
        progress_bar: whether there is one.

    Returns:
        The steps taken, and the history, see `Fit`.

    Raises:
        FloatingPointError: if a loss is not finite; the checkpoint before it stays.
    """
    optimizer = _optimizer(model, schedule)
    step, stale, best = 0, 0, math.inf
    best_weights: dict[str, Tensor] = {}
    history: list[tuple[int, float, float]] = []
    state = run.load(next(model.parameters()).device)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, stale, best, best_weights = (state[name] for name in ("step", "stale", "best", "best_weights"))
        history = [tuple(entry) for entry in state["history"]]
    losses: list[Tensor] = []
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    with tqdm(total=schedule.steps, initial=step, desc=description, disable=not progress_bar) as bar:
        while step < schedule.steps and (schedule.patience is None or stale < schedule.patience):
            for group in optimizer.param_groups:
                group["lr"] = schedule.at(step)
            current = loss(step)
            losses.append(current.detach())
            optimizer.zero_grad()
            current.backward()
            torch.nn.utils.clip_grad_norm_(parameters, schedule.max_grad_norm)
            optimizer.step()
            step += 1
            bar.update()
            if step % schedule.eval_interval and step < schedule.steps:
                continue
            train, held = torch.stack(losses).mean().item(), heldout_loss()
            losses.clear()
            if not math.isfinite(train + held):
                raise FloatingPointError(
                    f"by step {step} the training loss is {train} and the held-out loss {held}; lower "
                    f"learning_rate={schedule.learning_rate}. {run.folder} keeps what was there before"
                )
            history.append((step, train, held))
            bar.set_postfix(train=f"{train:.3f}", heldout=f"{held:.3f}")
            stale = 0 if held < best else stale + 1
            if held < best and schedule.patience is not None:
                best_weights = {name: value.clone() for name, value in model.state_dict().items()}
            best = min(best, held)
            run.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "stale": stale,
                    "best": best,
                    "best_weights": best_weights,
                    "history": history,
                }
            )
    if best_weights:
        model.load_state_dict(best_weights)
    return step, history


def _optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.95), fused=True)
