"""A language model from nothing: train a tokenizer, pretrain a small model, imitate demonstrations.

Each shows a progress bar, gives the same result for the same seed, and goes on where it was killed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from transformers import LlamaConfig, PreTrainedModel

from .algorithm import TextAlgorithm
from .backbone import Backbone
from .checkpoint import weights_hash
from .corpus import Corpus, digest_of, encode, read_corpus, split, train_tokenizer, vocabulary
from .demonstrations import (
    CloningBatch,
    Demonstration,
    Pairs,
    cloning_batch,
    demonstrate,
    demonstrations_of_pairs,
    in_order,
)
from .export import save_pretrained
from .fitting import Fit, Run, Schedule, fit
from .models import ModelSource, ModelSpec, load_model
from .policies import token_log_probs
from .reading import ContextReader

__all__ = ["Fitted", "clone", "pretrain", "small_config", "train_tokenizer"]

_HELDOUT_TOKENS = 2**14  # a held-out loss of more would cost more than it tells


@dataclass(frozen=True)
class Fitted(Fit):
    """What a fit of a language model came to; its losses are those of a token.

    Attributes:
        unigram_loss: held-out loss under the frequencies of the training tokens: what counting words alone
            achieves.
    """

    unigram_loss: float


def pretrain(
    corpus: Corpus,
    tokenizer: Any,
    folder: str | Path,
    *,
    model: ModelSource | None = None,
    context_length: int = 128,
    steps: int = 1000,
    batch_size: int = 1024,
    learning_rate: float = 3e-3,
    warmup: float = 0.05,
    weight_decay: float = 0.1,
    max_grad_norm: float = 1.0,
    heldout_fraction: float = 0.05,
    eval_interval: int = 100,
    patience: int | None = None,
    dtype: str | None = None,
    seed: int = 0,
    device: torch.device | str = "auto",
    progress_bar: bool = True,
) -> Fitted:
    """Train a causal language model to predict the next token of a corpus.

    The folder is what transformers and `policy_kwargs={"model": folder}` load. Killed at any moment, the same call
    goes on from the last checkpoint, and ends with the same weights (bit for bit on a CPU with as many threads).

    Args:
        corpus: see `train_tokenizer`; each text ends with the end token. It is held in memory.
        tokenizer: of transformers, or one of an environment's.
        folder: new, or of the same call before.
        model: see `ModelSpec.model`; None makes `small_config`.
        context_length: T, tokens that are read at once: the longest observation the policy will see.
        steps: updates.
        batch_size: tokens of an update: stretches of T from random places.
        learning_rate: the largest; it rises over the warm-up and falls to 0 along a cosine.
        warmup: fraction of the steps.
        weight_decay: of AdamW, on matrices.
        max_grad_norm: gradients are clipped to it.
        eval_interval: updates between held-out losses, and between checkpoints.
        patience: evaluations without a better held-out loss before it stops and takes the best weights; None takes
            the last weights.
        heldout_fraction: of the tokens, in whole texts; where there are few texts, the end of the corpus. The
            held-out loss takes 16,384 of them at most.
        dtype: see `ModelSpec`.
        seed: of weights and batches.
        device: as in SB3.
        progress_bar: whether there is one.

    Raises:
        ValueError: if the corpus is empty or shorter than a batch, the tokenizer has more tokens than the model,
            a number is out of range, or the folder holds a run with other settings.
        FileExistsError: if the folder holds another model.
        CheckpointError: if its checkpoint is damaged.
        FloatingPointError: if the loss is not finite; the last good checkpoint stays.
    """
    schedule = Schedule(steps, learning_rate, warmup, weight_decay, max_grad_norm, eval_interval, patience)
    if context_length < 1 or batch_size < context_length:
        raise ValueError(
            f"batch_size={batch_size} tokens with context_length={context_length}; give at least one stretch"
        )
    if not 0 < heldout_fraction < 1:
        raise ValueError(f"heldout_fraction={heldout_fraction}; give a number between 0 and 1")
    vocab_size, end = vocabulary(tokenizer)
    texts = encode(tokenizer, read_corpus(corpus), end)
    train, heldout = split(texts, heldout_fraction, np.random.default_rng(seed))
    if len(train) < max(batch_size, context_length + 1) or len(heldout) < 2:
        raise ValueError(
            f"the corpus has {len(train)} tokens to train on and {len(heldout)} held out, fewer than a batch of "
            f"{batch_size}; give more text, or a smaller batch_size"
        )
    source = small_config(vocab_size, context_length, end) if model is None else model
    backbone = _backbone(source, vocab_size, context_length, dtype, seed)
    settings = {
        **_numbers(schedule, backbone, seed),
        "context_length": context_length,
        "batch_size": batch_size,
        "corpus": digest_of([train.tobytes(), heldout.tobytes()]),
    }
    rows = batch_size // context_length
    target = get_device(device)

    def batch(step: int) -> CloningBatch:
        starts = np.random.default_rng([seed, step]).integers(len(train) - context_length, size=rows)
        return cloning_batch([_stretch(train[s : s + context_length + 1]) for s in starts], target)

    held = [
        _stretch(heldout[s : s + context_length + 1])
        for s in range(0, min(len(heldout) - 1, _HELDOUT_TOKENS), context_length)
    ]
    return _fitted(
        backbone.to(target),
        batch,
        held,
        train,
        Run(folder, settings),
        schedule,
        tokenizer,
        batch_size,
        "pretraining",
        progress_bar,
    )


def clone(
    model: ModelSource,
    demonstrations: Pairs | VecEnv | VectorEnv | gym.Env,
    folder: str | Path,
    *,
    tokenizer: Any = None,
    episodes: int = 2000,
    steps: int = 1000,
    batch_size: int = 1024,
    learning_rate: float = 1e-3,
    warmup: float = 0.05,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    heldout_fraction: float = 0.05,
    eval_interval: int = 100,
    patience: int | None = None,
    dtype: str | None = None,
    seed: int = 0,
    device: torch.device | str = "auto",
    progress_bar: bool = True,
) -> Fitted:
    """Train a causal language model to say what was demonstrated; folder and checkpoints as in `pretrain`.

    `BehaviourCloning` does the same in the shape of an SB3 algorithm, with fresh demonstrations and under the
    environment's action masks, which a language model by itself knows nothing of.

    Args:
        model: see `ModelSpec.model`.
        demonstrations: (prompt ids, completion ids) pairs, end tokens included, or an environment that
            demonstrates: text_envs' do, through their method `demonstrate`.
        folder: new, or of the same call before.
        tokenizer: saved beside the model; None saves the model alone.
        episodes: of an environment.
        steps: updates.
        batch_size: demonstrated tokens of an update: whole episodes, drawn anew each time.
        learning_rate: the largest; it rises over the warm-up and falls to 0 along a cosine.
        warmup: fraction of the steps.
        weight_decay: of AdamW, on matrices.
        max_grad_norm: gradients are clipped to it.
        eval_interval: updates between held-out losses, and between checkpoints.
        patience: evaluations without a better held-out loss before it stops and takes the best weights; None takes
            the last weights.
        heldout_fraction: of the episodes.
        dtype: see `ModelSpec`.
        seed: of weights, batches and the environment.
        device: as in SB3.
        progress_bar: whether there is one.

    Raises:
        ValueError: if there are fewer than 2 demonstrations or one does not fit the model, the environment
            demonstrates nothing, a number is out of range, or the folder holds a run with other settings.
        FileExistsError, CheckpointError, FloatingPointError: as in `pretrain`.
    """
    schedule = Schedule(steps, learning_rate, warmup, weight_decay, max_grad_norm, eval_interval, patience)
    if batch_size < 1 or not 0 < heldout_fraction < 1:
        raise ValueError(f"batch_size={batch_size} is at least 1, heldout_fraction={heldout_fraction} in (0, 1)")
    if isinstance(demonstrations, VecEnv | VectorEnv | gym.Env):
        env: Any = TextAlgorithm._wrap_env(demonstrations)
        vocab_size, length = int(env.action_space.n), int(env.observation_space.shape[0])
        backbone = _backbone(model, vocab_size, length, dtype, seed)
        said = demonstrate(env, episodes, seed)
    else:
        loaded = _seeded_model(model, seed)
        vocab_size = _outputs(loaded) if tokenizer is None else vocabulary(tokenizer)[0]
        limit = getattr(loaded.config, "max_position_embeddings", None) or sys.maxsize  # some models have none
        said = demonstrations_of_pairs(demonstrations, vocab_size, limit)
        backbone = _backbone(loaded, vocab_size, max(len(e.ids) for e in said), dtype, seed)
    if len(said) < 2:
        raise ValueError(f"{len(said)} demonstrations cannot be both trained on and held out; give at least 2")
    order = np.random.default_rng(seed).permutation(len(said))
    aside = max(1, round(heldout_fraction * len(said)))
    held, train = ([said[i] for i in part] for part in (order[:aside], order[aside:]))
    if not train:
        raise ValueError(
            f"heldout_fraction={heldout_fraction} leaves none of {len(said)} demonstrations to train on"
        )
    settings = {
        **_numbers(schedule, backbone, seed),
        "batch_size": batch_size,
        "demonstrations": digest_of(part.tobytes() for e in (*train, *held) for part in e[:3]),
    }
    sizes = np.array([len(e.actions) for e in train])
    target = get_device(device)

    def batch(step: int) -> CloningBatch:
        drawn = np.random.default_rng([seed, step]).permutation(len(train))
        enough = int(np.searchsorted(sizes[drawn].cumsum(), batch_size)) + 1
        return cloning_batch([train[i] for i in drawn[:enough]], target)

    return _fitted(
        backbone.to(target),
        batch,
        held,
        np.concatenate([e.actions for e in train]),
        Run(folder, settings),
        schedule,
        tokenizer,
        batch_size,
        "cloning",
        progress_bar,
    )


def small_config(vocab_size: int, context_length: int, end_token_id: int | None = None) -> LlamaConfig:
    """Return a Llama of 4 layers and width 128: 0.8 M weights and 128 for each token."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=context_length,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end_token_id,
        pad_token_id=None,
    )


def _stretch(ids: np.ndarray) -> Demonstration:
    """Return consecutive tokens as an episode that says every one but the first."""
    return Demonstration(ids[:-1], np.arange(len(ids) - 1), ids[1:], np.zeros((len(ids) - 1, 0), np.uint8))


def _seeded_model(source: ModelSource, seed: int) -> PreTrainedModel:
    """Return a model whose random weights come from a seed; the global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return load_model(source)


def _backbone(source: ModelSource, vocab_size: int, context_length: int, dtype: str | None, seed: int) -> Backbone:
    """Return the model with all of its outputs: those that no token has must learn that they are never said."""
    model = _seeded_model(source, seed)
    outputs = _outputs(model)
    if outputs < vocab_size:
        raise ValueError(
            f"the tokenizer has {vocab_size} tokens but {type(model).__name__} only {outputs}; train a tokenizer "
            f"with vocab_size={outputs}, or use a model with vocab_size >= {vocab_size}"
        )
    return Backbone(ModelSpec(model, dtype=dtype), outputs, context_length)


def _outputs(model: PreTrainedModel) -> int:
    embedding: Any = model.get_input_embeddings()
    return embedding.num_embeddings


def _numbers(schedule: Schedule, backbone: Backbone, seed: int) -> dict[str, Any]:
    """Return what every result depends on."""
    return {
        **asdict(schedule),
        "dtype": None if backbone.dtype is None else str(backbone.dtype),
        "seed": seed,
        "initial_model": weights_hash(backbone.model),
    }


def _fitted(
    backbone: Backbone,
    batch: Callable[[int], CloningBatch],
    heldout: Sequence[Demonstration],
    train_ids: np.ndarray,
    run: Run,
    schedule: Schedule,
    tokenizer: Any,
    batch_size: int,
    description: str,
    progress_bar: bool,
) -> Fitted:
    """Fit, and write the folder; or return what was there."""
    done = run.finished(Fitted)
    if done is not None:
        return done
    held = list(in_order(heldout, max(batch_size, 4096), backbone.head.weight.device))
    reader = ContextReader(backbone)
    steps, history = fit(
        backbone,
        lambda step: -_log_probs(reader, batch(step)).mean(),
        lambda: mean_loss(reader, held),
        run,
        schedule,
        description=description,
        progress_bar=progress_bar,
    )
    loss = history[-1][2] if schedule.patience is None else min(entry[2] for entry in history)
    baseline = unigram_loss(train_ids, np.concatenate([e.actions for e in heldout]), backbone.vocab_size)
    fitted = Fitted(run.folder, steps, loss, history, baseline)
    save_pretrained(backbone, str(run.folder), tokenizer)
    run.finish(fitted)
    return fitted


@torch.no_grad()
def mean_loss(reader: ContextReader, batches: Sequence[CloningBatch]) -> float:
    """Return the mean negative log-likelihood of the batches' tokens, in nats."""
    total = torch.stack([_log_probs(reader, batch).double().sum() for batch in batches])
    return -total.sum().item() / sum(len(batch.actions) for batch in batches)


def unigram_loss(train: np.ndarray, heldout: np.ndarray, vocab_size: int) -> float:
    """Return the mean negative log-likelihood (nats) of held-out ids under add-one frequencies of training ids."""
    counts = np.bincount(train, minlength=vocab_size) + 1.0
    return float(-np.log(counts / counts.sum())[heldout].mean())


def _log_probs(reader: ContextReader, batch: CloningBatch) -> Tensor:
    """Return log-probabilities (N,) of a batch's tokens."""
    hidden = reader.packed_hidden(batch.packs)
    return token_log_probs(reader.backbone, hidden, batch.actions, entropy_gradient=None)[0]
