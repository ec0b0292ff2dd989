"""Timings of rollouts beside Hugging Face's `generate`, and of a whole GRPO iteration beside TRL's GRPOTrainer."""

from __future__ import annotations

import importlib.util
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback

from .jobs import Job, wait
from .ppo import make_model, rollout
from .timing import Row, compare, spread

GROUP = 8  # completions of a prompt


def rollout_row(job: Job, rollouts: int, repeats: int, device: str) -> Row:
    """Return a row: tokens a second of our rollouts (PPO's: with values, log-probabilities, buffer).

    `generate` goes on until the longest completion of its batch has ended; of the others only the tokens before
    their ends count.

    Args:
        job: with equal or ragged lengths.
        rollouts: of T steps that are timed at once, and batches of `generate`.
        repeats: pairs of measurements.
        device: of both.
    """
    from agents import PPO

    model = make_model(job, PPO, device, gamma=1.0)
    language_model = AutoModelForCausalLM.from_config(job.config()).eval().to(device)  # as transformers made it
    language_model.load_state_dict(model.policy.backbone.model.state_dict())
    rng = np.random.default_rng(0)

    def ours() -> int:
        for _ in range(rollouts):
            rollout(model)
        return rollouts * job.tokens * job.n_envs

    def generate() -> int:
        count = 0
        for _ in range(rollouts):
            prompts = torch.as_tensor(rng.integers(job.vocab_size, size=(job.n_envs, job.prompt)), device=device)
            lengths = np.full(job.n_envs, job.tokens)
            if job.ragged:
                lengths = rng.integers(1, job.tokens + 1, size=job.n_envs)
            language_model.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                do_sample=True,
                top_k=0,
                min_new_tokens=0,
                max_new_tokens=int(lengths.max()),
                pad_token_id=0,
            )
            count += int(lengths.sum())
        wait(device)
        return count

    lengths = f"lengths uniform in 1..{job.tokens}" if job.ragged else f"all of {job.tokens} tokens"
    name = f"Rollout, {job.n_envs} rows, {lengths}"
    return {**compare(name, "tokens/s", ours, generate, "HF generate", repeats), "device": str(model.device)}


def has_trl() -> bool:
    """Return whether TRL is installed (an extra)."""
    return importlib.util.find_spec("trl") is not None


def make_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of words "0", "1", ... whose end and padding lie outside of what the model can say."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {str(i): i for i in range(vocab_size)} | {"<end>": vocab_size, "<pad>": vocab_size + 1}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")


def even_tokens(
    prompts: list[str], completions: list[str], completion_ids: Any, **columns: Any
) -> list[float | None]:
    """Return the rewards of completions for TRL: those of `BlankEnv`."""
    return [float(sum(token % 2 == 0 for token in ids)) for ids in completion_ids]


class InTurn(TrainerCallback):
    """Times a trainer's iterations of `steps` optimiser steps, and other work after each of them.

    Attributes:
        pairs: (the trainer's seconds, the other's) of each iteration after the first, which is the warm-up.
    """

    def __init__(self, steps: int, other: Callable[[], None], device: str) -> None:
        self.steps, self.other, self.device = steps, other, device
        self.pairs: list[tuple[float, float]] = []
        self._begin = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock where an iteration ends, do the other's work, and start it again."""
        if state.global_step % self.steps:
            return
        wait(self.device)
        middle = time.perf_counter()
        self.other()
        wait(self.device)
        end = time.perf_counter()
        if state.global_step > self.steps:
            self.pairs.append((middle - self._begin, end - middle))
        self._begin = time.perf_counter()


def trl_row(job: Job, repeats: int, device: str) -> Row:
    """Return a row: an iteration of our GRPO beside TRL's on the same model.

    Both sample the same number of completions of the same length from groups of prompts, and make as many optimiser
    steps on as many tokens, without a reference model, in float32, without gradient checkpointing.
    """
    from agents import GRPO

    group = min(GROUP, job.n_envs)
    ours = make_model(job, GRPO, device, group_size=group, max_grad_norm=1.0)  # no value head, as TRL has none

    def iterate() -> None:
        rollout(ours)
        ours.train()

    iterate()  # the warm-up
    per_step = job.batch_size // job.tokens  # completions
    steps = job.n_epochs * job.n_envs // per_step
    in_turn = InTurn(steps, iterate, device)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TRL's own libraries
        model = AutoModelForCausalLM.from_config(job.config())
        trainer = _trl_trainer(job, model, per_step, steps * (repeats + 1), folder, device)
        trainer.add_callback(in_turn)
        trainer.train()
    ratio = spread([theirs / own for theirs, own in in_turn.pairs])
    tokens = job.n_envs * job.tokens
    own, theirs = (tokens / float(np.median([pair[i] for pair in in_turn.pairs])) for i in (1, 0))
    return {
        "name": f"GRPO iteration, V {job.vocab_size}, prompt {job.prompt}, {job.n_envs} completions of "
        f"{job.tokens} tokens, {job.n_epochs} epochs, {steps} optimiser steps",
        "told": f"{ratio['median']:.1f}x TRL's GRPOTrainer ({ratio['min']:.1f}-{ratio['max']:.1f}); {own:,.0f} "
        f"beside {theirs:,.0f} completion tokens/s",
        "device": str(ours.device),
        "trl_seconds": [pair[0] for pair in in_turn.pairs],
        "our_seconds": [pair[1] for pair in in_turn.pairs],
        "ratio": ratio,
    }


def _trl_trainer(job: Job, model: Any, per_step: int, steps: int, folder: str, device: str) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    rng = np.random.default_rng(0)
    prompts = [" ".join(map(str, rng.integers(job.vocab_size, size=job.prompt))) for _ in range(512)]
    arguments = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=per_step,
        generation_batch_size=job.n_envs,
        num_generations=min(GROUP, job.n_envs),
        num_iterations=job.n_epochs,
        max_completion_length=job.tokens,
        max_steps=steps,
        learning_rate=3e-4,
        lr_scheduler_type="constant",
        beta=0.0,
        temperature=1.0,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=10**9,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=device == "cpu",
        seed=0,
    )
    tokenizer = make_tokenizer(job.vocab_size)
    dataset = Dataset.from_dict({"prompt": prompts})
    trainer = GRPOTrainer(model, even_tokens, arguments, train_dataset=dataset, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    return trainer
