"""Preferences -> a reward model: Bradley-Terry on a sequence classifier. Asking one is `reward_model.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.utils import get_device
from torch import Tensor

from .checkpoint import CheckpointError, weights_hash
from .corpus import digest_of, encode, train_tokenizer
from .fitting import REPORT, Fit, Run, Schedule, fit
from .losses import bradley_terry_loss
from .preferences import Agreement, Comparison, Source, agreement, read_comparisons, split
from .scorer import Scorer, ScorerSource, new_scorer, padded_tokenizer
from .warm_start import small_config

_HELD_TOKENS = 2**13  # of a forward without gradients
_BYTES = 257  # 256 bytes and the end token
_LEAST_CONTEXT = 512  # tokens that a model from scratch reads: its positions are rotations and cost nothing


@dataclass(frozen=True)
class FittedReward(Fit):
    """What a fit of a reward model came to; its losses are those of a comparison.

    Attributes:
        comparisons: that it was trained on.
        heldout: how well it foretells the held-out comparisons, see `Agreement`.
        ties: comparisons held out beside those, in which neither was preferred.
        tie_threshold: log-odds that a difference must overcome not to be a tie; None where there were no ties.
    """

    comparisons: int
    heldout: Agreement
    ties: int
    tie_threshold: float | None

    def __post_init__(self) -> None:
        if isinstance(self.heldout, dict):  # as the report of a finished run holds it
            bins = [(sure, hit, count) for sure, hit, count in self.heldout["reliability"]]
            object.__setattr__(self, "heldout", Agreement(**{**self.heldout, "reliability": bins}))


def train_reward_model(
    comparisons: Source,
    folder: str | Path,
    *,
    model: ScorerSource | None = None,
    tokenizer: Any = None,
    heldout: Source | None = None,
    heldout_fraction: float = 0.1,
    separator: str = "",
    epochs: int = 3,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    warmup: float = 0.05,
    weight_decay: float = 0.01,
    max_grad_norm: float = 1.0,
    center_coef: float = 0.01,
    eval_interval: int | None = None,
    patience: int | None = 3,
    lora: int | Any | None = None,
    frozen: bool = False,
    seed: int = 0,
    device: torch.device | str = "auto",
    progress_bar: bool = True,
) -> FittedReward:
    """Train a reward model on comparisons and hold it against others.

    The folder is what `RewardModel`, transformers' sequence classification and TRL load. Killed at any moment, the
    same call goes on from the last checkpoint and ends with the same weights (bit for bit on a CPU with as many
    threads).

    Args:
        comparisons: see `preferences.read_comparisons`.
        folder: new, or of the same call before.
        model: see `scorer.new_scorer`; None makes `small_config`, from scratch.
        tokenizer: see `scorer.new_scorer`; None: the one beside the model, or bytes for a model from scratch.
        heldout: comparisons never trained on; None splits them off by prompts.
        heldout_fraction: of the prompts, where they are split off.
        separator: put between prompt and completion; the folder remembers it for `RewardModel`.
        epochs: passes over the comparisons.
        batch_size: comparisons of an update.
        learning_rate: the largest; it rises over the warm-up and falls to 0 along a cosine. A pretrained model
            wants less, such as 2e-5.
        warmup: fraction of the steps.
        weight_decay: of AdamW, on matrices.
        max_grad_norm: gradients are clipped to it.
        center_coef: see `losses.bradley_terry_loss`.
        eval_interval: updates between held-out losses, and between checkpoints; None: twice an epoch.
        patience: evaluations without a better held-out loss before it stops; the best weights are taken. None takes
            the last weights.
        lora: train adapters of this rank (or a `peft.LoraConfig`) and the head, not every weight.
        frozen: train the head alone.
        seed: of new weights and of the batches.
        device: as in SB3.
        progress_bar: whether there is one.

    Raises:
        ValueError: if a comparison cannot be read, there are too few, all held-out ones are ties, the model does
            not fit, a number is out of range, or the folder holds a run with other settings.
        FileExistsError: if the folder holds another model.
        CheckpointError: if its checkpoint is damaged.
        FloatingPointError: if the loss is not finite; the last good checkpoint stays.

    Source: Stiennon et al. 2020, arXiv:2009.01325; dropout is off.
    """
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs={epochs}, batch_size={batch_size}; give at least 1")
    train, held = _sides(read_comparisons(comparisons), heldout, heldout_fraction)
    steps = epochs * -(-len(train) // batch_size)
    interval = max(1, steps // (2 * epochs)) if eval_interval is None else eval_interval
    schedule = Schedule(steps, learning_rate, warmup, weight_decay, max_grad_norm, interval, patience)
    scorer = _scorer(model, tokenizer, [*train, *held], separator, seed)
    initial = weights_hash(scorer.network)
    scorer.restrict(lora, frozen)
    scorer.to(get_device(device))
    settings = {
        **asdict(schedule),
        "batch_size": batch_size,
        "separator": separator,
        "center_coef": center_coef,
        "lora": None if lora is None else str(lora),
        "frozen": frozen,
        "seed": seed,
        "initial_model": initial,
        "comparisons": digest_of(json.dumps(side).encode() for side in (train, held)),
    }
    run = Run(folder, settings)
    done = run.finished(FittedReward)
    if done is not None:
        return done
    ties = any(comparison.tie for comparison in train)
    pairs, held_pairs = (_Pairs(scorer, side, separator, ties) for side in (train, held))
    taken, history = fit(
        scorer,
        lambda step: pairs.loss(_batch(step, len(train), batch_size, seed), center_coef),
        held_pairs.mean_loss,
        run,
        schedule,
        description="reward model",
        progress_bar=progress_bar,
    )
    scorer.save(run.folder)
    fitted = FittedReward(
        run.folder,
        taken,
        history[-1][2] if patience is None else min(entry[2] for entry in history),
        history,
        len(train),
        held_pairs.agreement(np.random.default_rng([seed, 1])),
        sum(c.tie for c in held),
        scorer.tie_threshold.item() if ties else None,
    )
    run.finish(fitted)
    return fitted


def noted_separator(folder: Path) -> str:
    """Return what stood between prompt and completion when the model in a folder was trained here, else "".

    Raises:
        CheckpointError: if the report of its training is damaged.
    """
    report = folder / REPORT
    if not report.exists():
        return ""
    try:
        separator = json.loads(report.read_text(encoding="utf-8"))["settings"]["separator"]
        if not isinstance(separator, str):
            raise TypeError(f"separator={separator!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{report} does not say which separator was trained with ({type(error).__name__}: {error}); give "
            "separator=, or train again"
        ) from error
    return separator


class _Pairs:
    """Comparisons as token ids, and what a scorer makes of them; `ties`: whether it knows or learns ties."""

    def __init__(self, scorer: Scorer, comparisons: Sequence[Comparison], separator: str, ties: bool) -> None:
        self.scorer, self.comparisons = scorer, comparisons
        chosen, rejected = (
            scorer.encode([c.prompt + separator + text for c, text in zip(comparisons, texts, strict=True)])
            for texts in ([c.chosen for c in comparisons], [c.rejected for c in comparisons])
        )
        self.rows = list(zip(chosen, rejected, strict=True))
        self.ties = ties

    def loss(self, which: Sequence[int], center_coef: float, most: int | None = None) -> Tensor:
        """Return the mean loss of some comparisons."""
        scores = self.scorer([self.rows[i][side] for side in (0, 1) for i in which], most)
        chosen, rejected = scores.chunk(2)
        if not self.ties:
            return bradley_terry_loss(chosen, rejected, center_coef=center_coef)
        tie = torch.tensor([self.comparisons[i].tie for i in which]).to(scores.device, non_blocking=True)
        return bradley_terry_loss(chosen, rejected, tie, self.scorer.tie_threshold, center_coef)

    @torch.no_grad()
    def mean_loss(self) -> float:
        """Return the mean loss, without the centring; of a scorer that knows no ties, they are left out."""
        which = [i for i, comparison in enumerate(self.comparisons) if self.ties or not comparison.tie]
        return self.loss(which, 0.0, _HELD_TOKENS).item()

    @torch.no_grad()
    def agreement(self, rng: np.random.Generator) -> Agreement:
        """Return how well the scores foretell the comparisons that are no ties."""
        which = [i for i, comparison in enumerate(self.comparisons) if not comparison.tie]
        scores = self.scorer([self.rows[i][side] for side in (0, 1) for i in which], _HELD_TOKENS).double()
        chosen, rejected = scores.chunk(2)
        difference, threshold = chosen - rejected, torch.zeros_like(chosen)
        if self.ties:
            threshold += self.scorer.tie_threshold
        log_sigmoid = torch.nn.functional.logsigmoid
        log_odds = log_sigmoid(difference - threshold) - log_sigmoid(-difference - threshold)  # given no tie
        return agreement(log_odds.cpu().numpy(), [self.comparisons[i].prompt for i in which], rng)


def _sides(
    comparisons: list[Comparison], heldout: Source | None, fraction: float
) -> tuple[list[Comparison], list[Comparison]]:
    """Return what is trained on and what is held out.

    Raises:
        ValueError: if the latter are all ties, or some are among the former.
    """
    train, held = split(comparisons, fraction) if heldout is None else (comparisons, read_comparisons(heldout))
    seen = {(c.prompt, frozenset((c.chosen, c.rejected))) for c in train}
    if both := [c for c in held if (c.prompt, frozenset((c.chosen, c.rejected))) in seen]:
        raise ValueError(
            f"{len(both)} of {len(held)} held-out comparisons are trained on too: {both[0]!r:.200}; hold out others"
        )
    if all(comparison.tie for comparison in held):
        raise ValueError(
            f"all {len(held)} held-out comparisons are ties, so no accuracy can be measured; give others"
        )
    return train, held


def _scorer(
    model: ScorerSource | None, tokenizer: Any, comparisons: Sequence[Comparison], separator: str, seed: int
) -> Scorer:
    """Return the scorer to be trained: of a given model, or a small one from scratch that reads every text."""
    if model is not None:
        return new_scorer(model, tokenizer, seed=seed)
    if tokenizer is None:
        tokenizer = train_tokenizer(["-"], _BYTES, progress_bar=False)  # bytes alone: any text has tokens
    tokenizer = padded_tokenizer(tokenizer)
    texts = [c.prompt + separator + said for c in comparisons for said in (c.chosen, c.rejected)]
    longest = max(map(len, encode(tokenizer, texts, None)))
    config = small_config(len(tokenizer), max(_LEAST_CONTEXT, 2 * longest), tokenizer.eos_token_id)
    return new_scorer(config, tokenizer, seed=seed)


def _batch(step: int, count: int, batch_size: int, seed: int) -> list[int]:
    """Return the comparisons of an update: each once an epoch, in an order that depends on seed and epoch alone."""
    epoch, within = divmod(step, -(-count // batch_size))
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return order[within * batch_size : (within + 1) * batch_size].tolist()
