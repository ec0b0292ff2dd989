"""`text-envs train`: one agent, one environment, any language model; evaluates before and after, and saves.

What happens to the files of a run (checkpoints, logs) is in `run_files.py`.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import stable_baselines3.common.base_class
from rich.console import Console
from rich.table import Table
from rich.text import Text
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback

import agents
from agents.callbacks import Checkpoint, TextMetrics
from agents.samples import SampleTexts
from text_envs import TokenVectorEnv

from . import run_files
from .arguments import count
from .errors import UserError
from .evaluation import Evaluation, evaluate, make_env, normalize
from .trial import EVALUATE, TRAIN, derived_seed

_ALGORITHMS = {
    "ppo": (agents.PPO, "TransformerPolicy"),
    "grpo": (agents.GRPO, "TransformerPolicy"),
    "dqn": (agents.DQN, "TransformerQPolicy"),
}
_OWN = ("reference", "kl_coef", "group_size")  # options that are keywords of the algorithm
_NOT_ENV = {  # keywords that are not the command's to hand on -> what to do instead
    "id": "ENV_ID names the environment; leave it out",
    "task": "ENV_ID names the task; leave it out",
    "level": "the token level is what is trained; leave it out",
    "num_envs": "use --num-envs",
    "autoreset_mode": "a row is always reset in the step that ends it; leave it out",
    "vectorization_mode": "environments are always batched; leave it out",
}
_NOT_SET = {
    "device": "use --device",
    "seed": "use --seed",
    "policy_kwargs": "use --model, --lora, --dtype and --policy",
}
_NOT_POLICY = {name: f"use --{name}" for name in ("model", "lora", "dtype")}
_BOOLEANS = {"true": True, "false": False}
_KINDS: dict[str, Any] = {  # of annotations; a schedule cannot be written on a command line
    "int": int,
    "float": int | float,
    "bool": bool,
    "str": str,
    "None": type(None),
    "Schedule": (),
}
_LOGGED_SAMPLES = 10  # times in a training


def main(argv: Sequence[str]) -> int:
    """Train as the arguments say and return the exit status."""
    options = _parser().parse_args(argv)
    if options.lora is not None and options.model is None:
        raise UserError(f"--lora {options.lora} needs --model: adapters on untrained, frozen weights learn little")
    env_kwargs = parse_pairs(options.env, "--env")
    _refuse(env_kwargs, "--env", _NOT_ENV)
    tokenizer = load_tokenizer(options.model) if options.model else None
    fresh = open_env(options.env_id, min(options.num_envs, options.eval_episodes), env_kwargs, tokenizer)
    model = run_files.resumed(options)
    goes_on = model is not None
    run_files.prepare(options, goes_on)
    if not goes_on:
        model = make_agent(options, open_env(options.env_id, options.num_envs, env_kwargs, tokenizer))
        run_files.remember(options)
    console = Console()
    console.print(f"{type(model).__name__} on {options.env_id}, {_size(model)} weights, device {model.device}")
    if goes_on:  # an evaluation would use up random numbers, and the run would not be what it would have been
        console.print(_where_it_is(model.num_timesteps, options.steps), highlight=False)
    else:
        _print_mean(console, "before", fresh, _evaluated(model, fresh, options))
    stopped = _learned(model, options, console, goes_on)
    if options.save is not None:  # at once: the evaluation may be stopped too
        model.save(options.save / run_files.AGENT)
        model.policy.save_pretrained(str(options.save), tokenizer or fresh.tokenizer)
        console.print(f"saved {options.save / run_files.AGENT} and, for transformers, the folder {options.save}")
    if stopped is not None:
        told = f"stopped after {model.num_timesteps:,} of {options.steps:,} steps{stopped.cause}"
        told += f"; {run_files.what_is_left(options)}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)
        return stopped.status
    after = _evaluated(model, fresh, options)
    _print_mean(console, "after", fresh, after)
    if options.samples:
        _print_samples(console, after, options.samples)
    return 0


def _where_it_is(done: int, steps: int) -> str:
    if done >= steps:
        return f"the run has its {done:,} steps already; a larger --steps gives it more"
    return f"goes on after {done:,} of {steps:,} steps"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="text-envs train", description="Train an agent on a text environment.")
    parser.add_argument("env_id", metavar="ENV_ID", help="an id that `text-envs list` shows")
    parser.add_argument("--algo", choices=tuple(_ALGORITHMS), default="ppo")
    parser.add_argument("--model", help="folder, Hub id or .gguf file (default: a small GPT-2 from scratch)")
    parser.add_argument("--lora", type=int, metavar="RANK",
                        help="train adapters of this rank, not the weights; needs --model")  # fmt: skip
    parser.add_argument("--dtype", help="float32 (default) or bfloat16")
    parser.add_argument("--reference", help="'initial', or a model: ppo and grpo stay near it, dqn explores by it "
                        "with --set exploration=reference")  # fmt: skip
    parser.add_argument("--kl-coef", type=float, help="ppo, grpo: what a nat of distance to it costs")
    parser.add_argument("--group-size", type=count, metavar="N",
                        help="grpo: episodes of each prompt; --num-envs is a multiple (default: 8)")  # fmt: skip
    parser.add_argument("--steps", type=count, default=100_000, help="environment steps (default: 100_000)")
    parser.add_argument("--num-envs", type=count, default=16, metavar="N", help="rows in a batch (default: 16)")
    parser.add_argument("--env", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="keywords of the environment, such as dense=True prompts=my.txt")  # fmt: skip
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="keywords of the algorithm, such as learning_rate=1e-4 n_steps=32")  # fmt: skip
    parser.add_argument("--policy", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="keywords of the policy, such as value_trunk=detached")  # fmt: skip
    parser.add_argument("--eval-episodes", type=count, default=256, metavar="N", help="(default: 256)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--save", type=Path, metavar="DIR", help="where the agent and the model go")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR",
                        help="where checkpoints of the whole run go; the last 3 stay")  # fmt: skip
    parser.add_argument("--checkpoint-every", type=count, default=10_000, metavar="STEPS",
                        help="steps between them (default: 10_000)")  # fmt: skip
    parser.add_argument("--resume", action="store_true",
                        help="go on from the last of --checkpoint as if the run had not stopped; begin if there is "
                        "none")  # fmt: skip
    parser.add_argument("--log", type=Path, metavar="DIR",
                        help="where TensorBoard's files, progress.csv and samples.jsonl go")  # fmt: skip
    parser.add_argument("--samples", type=_size_of_samples, default=6, metavar="N",
                        help="texts shown at the end and, with --log, written ten times (default: 6)")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="let --save and --log replace what DIR holds")
    return parser


def _size_of_samples(text: str) -> int:
    return 0 if text == "0" else count(text)


def parse_pairs(pairs: Iterable[str], option: str) -> dict[str, Any]:
    """Return "key=value" texts as keywords; a value is a Python literal, true or false, else the text itself.

    Raises:
        UserError: if a text has no "=", or a key comes twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"{option} {pair!r} is not KEY=VALUE, such as dense=True")
        if key in found:
            raise UserError(f"{option} gives {key!r} twice")
        try:
            found[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError):
            found[key] = _BOOLEANS.get(value.lower(), value)
    return found


def _refuse(keywords: Mapping[str, Any], option: str, elsewhere: Mapping[str, str]) -> None:
    """Raise a `UserError` for a keyword that is given in another way."""
    for name in keywords:
        if name in elsewhere:
            raise UserError(f"{option} {name}={keywords[name]}: {elsewhere[name]}")


def load_tokenizer(model: str) -> Any:
    """Return the tokenizer that belongs to a model source.

    Raises:
        UserError: if there is none.
    """
    from transformers import AutoTokenizer

    path = Path(model).expanduser()
    try:
        if path.suffix == ".gguf":
            return AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        return AutoTokenizer.from_pretrained(str(path) if path.exists() else model)
    except (OSError, ValueError) as error:
        raise UserError(f"--model {model!r}: no tokenizer could be loaded: {error}") from error


def open_env(env_id: str, num_envs: int, keywords: dict[str, Any], tokenizer: Any = None) -> TokenVectorEnv:
    """Return a batched environment; the model's tokenizer goes to the tasks that take one.

    Raises:
        UserError: if the id or a keyword is unknown, or a value does not fit.
    """
    try:
        env = make_env(env_id, num_envs, keywords)
        if not hasattr(env, "task"):
            raise UserError(f"{env_id} is no environment of text-envs; its tasks are told by: text-envs list")
        takes = inspect.signature(type(env.task)).parameters
        if tokenizer is not None and "tokenizer" in takes and "tokenizer" not in keywords:
            env = make_env(env_id, num_envs, {**keywords, "tokenizer": tokenizer})
    except (gym.error.Error, TypeError, ValueError, OSError, ImportError) as error:
        raise UserError(f"{env_id} cannot be made with {keywords}: {error}") from error
    return env


def make_agent(options: argparse.Namespace, envs: TokenVectorEnv) -> Any:
    """Return the algorithm that the options describe.

    Raises:
        UserError: if a keyword is unknown to it, or a value or the device does not fit.
    """
    algorithm, policy = _ALGORITHMS[options.algo]
    policy_kwargs = parse_pairs(options.policy, "--policy")
    _refuse(policy_kwargs, "--policy", _NOT_POLICY)
    policy_kwargs |= {name: value for name in _NOT_POLICY if (value := getattr(options, name)) is not None}
    own = {name: value for name in _OWN if (value := getattr(options, name)) is not None}
    keywords = {**own, **parse_pairs(options.set, "--set")}
    _refuse(keywords, "--set", _NOT_SET)
    parameters = inspect.signature(algorithm).parameters
    known = set(parameters) - {"policy", "env", "_init_setup_model", *_NOT_SET}
    for name, value in keywords.items():
        if name not in known:
            raise UserError(f"{algorithm.__name__} takes no {name!r}; it takes {', '.join(sorted(known))}")
        if not _fits(value, parameters[name].annotation):
            raise UserError(f"--set {name}={value}: {algorithm.__name__} wants {parameters[name].annotation}")
    try:
        return algorithm(
            policy,
            envs,
            **keywords,
            policy_kwargs=policy_kwargs,
            seed=derived_seed(options.seed, TRAIN),
            device=options.device,
        )
    except (ValueError, TypeError, OSError, ImportError, AssertionError) as error:  # SB3 asserts
        raise UserError(f"{algorithm.__name__} cannot be made: {error}") from error
    except RuntimeError as error:  # PyTorch's, of a device that is unknown or absent
        raise UserError(f"{algorithm.__name__} cannot be made on --device {options.device}: {error}") from error


def _fits(value: Any, annotation: str) -> bool:
    """Return whether a value is of an annotated type; of types that no command line can write, always."""
    parts = annotation.split(" | ")
    if not all(part in _KINDS for part in parts):
        return True
    return any(isinstance(value, _KINDS[part]) for part in parts)


@dataclass(frozen=True)
class _Stop:
    """Why training ended early: what the message says of it, and the exit status."""

    cause: str
    status: int


def _learned(model: Any, options: argparse.Namespace, console: Console, goes_on: bool) -> _Stop | None:
    """Train, with a bar on a terminal; return what stopped it, None at the end."""
    steps = options.steps - model.num_timesteps
    if steps <= 0:
        return None
    bar = ProgressBarCallback() if console.is_terminal else None
    try:
        model.learn(
            steps,
            callback=[*_callbacks(model, options), *([] if bar is None else [bar])],
            reset_num_timesteps=not goes_on,
        )
    except KeyboardInterrupt:
        return _Stop("", 130)
    except Exception as error:  # a reward's, most of all: what was learnt must outlive it
        traceback.print_exc()
        return _Stop(f" by {type(error).__name__}: {error}", 1)
    finally:
        if bar is not None and hasattr(bar, "pbar"):  # else it would go on drawing
            bar.pbar.close()
    return None


def _callbacks(model: Any, options: argparse.Namespace) -> list[BaseCallback]:
    """Return what checkpoints and logs the run; the model's logger is set."""
    callbacks: list[BaseCallback] = []
    if options.checkpoint is not None:
        callbacks.append(Checkpoint(options.checkpoint, options.checkpoint_every))
    if options.log is not None:
        model.set_logger(run_files.logger(options.log, model.num_timesteps))
        callbacks.append(TextMetrics())
        if options.samples:
            every = max(1, options.steps // _LOGGED_SAMPLES)
            callbacks.append(SampleTexts(options.log / run_files.SAMPLES, every, options.samples))
    return callbacks


def _evaluated(
    model: stable_baselines3.common.base_class.BaseAlgorithm, env: TokenVectorEnv, options: Any
) -> Evaluation:
    return evaluate(model, env, options.eval_episodes, derived_seed(options.seed, EVALUATE), False)


def _size(model: Any) -> str:
    return f"{sum(parameter.numel() for parameter in model.policy.backbone.parameters()):,}"


def _print_mean(console: Console, when: str, env: TokenVectorEnv, result: Evaluation) -> None:
    score = normalize(env, result.mean)
    normalized = "" if score is None else f", normalised score {score:.3f}"
    count = len(result.returns)
    spread = f"standard error {result.standard_error:.3f}, {count} episodes" if count > 1 else "1 episode"
    console.print(
        f"{when:<6} mean return {result.mean:.3f} ({spread}){normalized}",
        highlight=False,
        soft_wrap=True,
    )


def _print_samples(console: Console, result: Evaluation, count: int) -> None:
    console.print("Samples after training, worst to best:")
    table = Table(header_style="bold")
    for name in ("prompt", "completion"):
        table.add_column(name, overflow="fold")
    table.add_column("reward", justify="right")
    for episode in result.worst_to_best(count):
        table.add_row(Text(episode.prompt), Text(episode.completion), f"{episode.reward:.2f}")
    console.print(table)
