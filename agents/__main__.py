"""The command line: `text-envs reward-model` trains a reward model on a file of comparisons."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .checkpoint import FolderInUseError
from .preferences import Agreement


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status."""
    options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError, FolderInUseError) as error:
        print(f"text-envs: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="text-envs")
    commands = parser.add_subparsers(required=True, metavar="reward-model")
    reward = commands.add_parser(
        "reward-model",
        help="train a reward model on comparisons",
        description="Train a reward model on comparisons, one JSON object a line with prompt, chosen, rejected and "
        "perhaps tie (true where neither was preferred), and say how well it foretells others. Stopped at any "
        "moment, the same command goes on.",
    )
    reward.add_argument("comparisons", type=Path, metavar="COMPARISONS.jsonl")
    reward.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the model goes")
    reward.add_argument("--model", help="folder, Hub id or .gguf file of a language model or sequence classifier "
                        "(default: a small model from scratch, which reads bytes)")  # fmt: skip
    reward.add_argument("--heldout", type=Path, metavar="FILE", help="comparisons to hold out (default: a tenth, "
                        "by prompts)")  # fmt: skip
    reward.add_argument("--separator", default="", help="put between prompt and completion (default: nothing)")
    reward.add_argument("--epochs", type=int, default=3, metavar="N", help="passes over them (default: 3)")
    reward.add_argument("--batch-size", type=int, default=32, metavar="N", help="comparisons of an update "
                        "(default: 32)")  # fmt: skip
    reward.add_argument("--learning-rate", type=float, metavar="RATE", help="the largest (default: 1e-3 from "
                        "scratch and for --frozen, 2e-4 for --lora, 5e-5 for --model)")  # fmt: skip
    some = reward.add_mutually_exclusive_group()
    some.add_argument("--lora", type=int, metavar="RANK", help="train adapters of this rank and the head")
    some.add_argument("--frozen", action="store_true", help="train the head alone")
    reward.add_argument("--seed", type=int, default=0)
    reward.add_argument("--device", default="auto")
    reward.set_defaults(command=_reward_model)
    return parser


def _reward_model(options: argparse.Namespace) -> int:
    from .reward_model import train_reward_model

    if options.model is None and (options.lora is not None or options.frozen):
        raise ValueError("--lora and --frozen need --model: what is frozen should have learned something before")
    rate = options.learning_rate
    if rate is None:
        rate = 2e-4 if options.lora is not None else 1e-3 if options.model is None or options.frozen else 5e-5
    fitted = train_reward_model(
        options.comparisons,
        options.out,
        model=options.model,
        heldout=options.heldout,
        separator=options.separator,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=rate,
        lora=options.lora,
        frozen=options.frozen,
        seed=options.seed,
        device=options.device,
        progress_bar=sys.stderr.isatty(),
    )
    ties = f", {fitted.ties} ties beside them" if fitted.ties else ""
    print(f"trained on {fitted.comparisons} comparisons, {fitted.steps} updates; saved {fitted.folder}")
    print(f"held out: {fitted.heldout.comparisons} comparisons{ties}")
    print("\n".join(_told(fitted.heldout)))
    return 0


def _told(found: Agreement) -> list[str]:
    return [
        f"accuracy {found.accuracy:.3f} [{found.low:.3f}, {found.high:.3f}] (95%, over prompts)",
        f"calibration error {found.calibration_error:.3f}",
        "confidence  accuracy  comparisons",
        *(f"{sure:10.3f}  {hit:8.3f}  {count:11d}" for sure, hit, count in found.reliability),
    ]


if __name__ == "__main__":
    sys.exit(main())
