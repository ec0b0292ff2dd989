"""`text-envs train`: one agent, one environment, any language model; evaluates before and after, and saves."""

from __future__ import annotations

import argparse
import ast
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import stable_baselines3.common.base_class
from rich.console import Console
from rich.table import Table
from rich.text import Text

import agents
from text_envs import TokenVectorEnv

from .errors import UserError
from .evaluation import Evaluation, evaluate, make_env, normalize
from .trial import derived_seed

_ALGORITHMS = {"ppo": (agents.PPO, "TransformerPolicy"), "dqn": (agents.DQN, "TransformerQPolicy")}
_SHOWN = 6
_TRAIN, _EVALUATE = 0, 1


def main(argv: Sequence[str]) -> int:
    """Train as the arguments say and return the exit status."""
    options = _parser().parse_args(argv)
    tokenizer = load_tokenizer(options.model) if options.model else None
    env_kwargs = parse_pairs(options.env, "--env")
    envs = open_env(options.env_id, options.num_envs, env_kwargs, tokenizer)
    fresh = open_env(options.env_id, min(options.num_envs, options.eval_episodes), env_kwargs, tokenizer)
    model = make_agent(options, envs)
    console = Console()
    console.print(f"{type(model).__name__} on {options.env_id}, {_size(model)} weights, device {model.device}")

    before = _evaluated(model, fresh, options)
    _print_mean(console, "before", fresh, before)
    model.learn(options.steps, progress_bar=console.is_terminal)
    after = _evaluated(model, fresh, options)
    _print_mean(console, "after", fresh, after)
    _print_samples(console, after)
    if options.save is not None:
        options.save.mkdir(parents=True, exist_ok=True)
        model.save(options.save / "agent.zip")
        model.policy.save_pretrained(str(options.save), tokenizer or envs.tokenizer)
        console.print(f"saved {options.save / 'agent.zip'} and, for transformers, the folder {options.save}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="text-envs train", description="Train an agent on a text environment.")
    parser.add_argument("env_id", metavar="ENV_ID", help="an id that `text-envs list` shows")
    parser.add_argument("--algo", choices=tuple(_ALGORITHMS), default="ppo")
    parser.add_argument("--model", help="folder, Hub id or .gguf file (default: a small GPT-2 from scratch)")
    parser.add_argument("--lora", type=int, metavar="RANK", help="train adapters of this rank, not the weights")
    parser.add_argument("--dtype", help="float32 (default) or bfloat16")
    parser.add_argument("--reference", help="ppo: 'initial', or a model to stay near")
    parser.add_argument("--kl-coef", type=float, help="ppo: reward charged for a nat of distance to it")
    parser.add_argument("--steps", type=_count, default=100_000, help="environment steps (default: 100_000)")
    parser.add_argument("--num-envs", type=_count, default=16, metavar="N", help="rows in a batch (default: 16)")
    parser.add_argument("--env", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="keywords of the environment, such as dense=True prompts=my.txt")  # fmt: skip
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="keywords of the algorithm, such as learning_rate=1e-4 n_steps=32")  # fmt: skip
    parser.add_argument("--eval-episodes", type=_count, default=256, metavar="N", help="(default: 256)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--save", type=Path, metavar="DIR", help="where the agent and the model go")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def parse_pairs(pairs: Iterable[str], option: str) -> dict[str, Any]:
    """Return "key=value" texts as keywords; a value is a Python literal, else the text itself.

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
        except (ValueError, SyntaxError):
            found[key] = value
    return found


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
        takes = inspect.signature(type(env.task)).parameters
        if tokenizer is not None and "tokenizer" in takes and "tokenizer" not in keywords:
            env = make_env(env_id, num_envs, {**keywords, "tokenizer": tokenizer})
    except (gym.error.Error, TypeError, ValueError, OSError, ImportError) as error:
        raise UserError(f"{env_id} cannot be made with {keywords}: {error}") from error
    return env


def make_agent(options: argparse.Namespace, envs: TokenVectorEnv) -> Any:
    """Return the algorithm that the options describe.

    Raises:
        UserError: if a keyword is unknown to it, or a value does not fit.
    """
    algorithm, policy = _ALGORITHMS[options.algo]
    policy_kwargs = {"model": options.model, "lora": options.lora, "dtype": options.dtype}
    keywords = {
        **{name: value for name in ("reference", "kl_coef") if (value := getattr(options, name)) is not None},
        **parse_pairs(options.set, "--set"),
    }
    known = set(inspect.signature(algorithm).parameters) - {"policy", "env", "policy_kwargs", "_init_setup_model"}
    for name in keywords:
        if name not in known:
            raise UserError(f"{algorithm.__name__} takes no {name!r}; it takes {', '.join(sorted(known))}")
    try:
        return algorithm(
            policy,
            envs,
            **keywords,
            policy_kwargs={name: value for name, value in policy_kwargs.items() if value is not None},
            seed=derived_seed(options.seed, _TRAIN),
            device=options.device,
        )
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise UserError(f"{algorithm.__name__} cannot be made: {error}") from error


def _evaluated(
    model: stable_baselines3.common.base_class.BaseAlgorithm, env: TokenVectorEnv, options: Any
) -> Evaluation:
    return evaluate(model, env, options.eval_episodes, derived_seed(options.seed, _EVALUATE), False)


def _size(model: Any) -> str:
    return f"{sum(parameter.numel() for parameter in model.policy.backbone.parameters()):,}"


def _print_mean(console: Console, when: str, env: TokenVectorEnv, result: Evaluation) -> None:
    score = normalize(env, result.mean)
    normalized = "" if score is None else f", normalised score {score:.3f}"
    console.print(
        f"{when:<6} mean return {result.mean:.3f} (standard error {result.standard_error:.3f}, "
        f"{len(result.returns)} episodes){normalized}",
        highlight=False,
    )


def _print_samples(console: Console, result: Evaluation) -> None:
    table = Table(title="Samples after training, worst to best", title_justify="left", header_style="bold")
    for name in ("prompt", "completion"):
        table.add_column(name, overflow="fold")
    table.add_column("reward", justify="right")
    for episode in result.worst_to_best(_SHOWN):
        table.add_row(Text(episode.prompt), Text(episode.completion), f"{episode.reward:.2f}")
    console.print(table)
