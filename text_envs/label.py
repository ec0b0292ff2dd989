"""`text-envs judge`: an AI judge makes comparisons of the pairs in a file, for a reward model."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from .readers import TextFile
from .rewards import PairwiseJudge, comparisons, position_bias
from .rewards.chat import Usage

FIELDS = ("prompt", "a", "b"), ("prompt", "completion_a", "completion_b")  # of ours, and of people's preferences


def add_command(commands: Any) -> None:
    """Add the command to a parser's."""
    command = commands.add_parser("judge", help="compare the pairs of a file, as rows for a reward model")
    command.add_argument("pairs", type=Path, help='a .jsonl file with {"prompt": ..., "a": ..., "b": ...} a line, '
                         'or "completion_a" and "completion_b", as `feedback import` reads them')  # fmt: skip
    command.add_argument("--model", required=True, help="its name on the server")
    command.add_argument("--base-url", help="of the server (default: $OPENAI_BASE_URL, else OpenAI's)")
    command.add_argument("--key", help="the environment variable that holds the server's key")
    command.add_argument("--rubric", type=Path, help="a text file that says what counts")
    command.add_argument("--concurrency", type=int, default=16, help="requests at once (default: 16)")
    command.add_argument("--prices", type=float, nargs=2, metavar=("PROMPT", "COMPLETION"), help="of a million "
                         "tokens of each, in any currency")  # fmt: skip
    command.add_argument("--budget", type=float, help="in that currency: no request is sent once it is spent")
    command.add_argument("--cache", type=Path, help="an SQLite file that keeps the answers, so that the same "
                         "command goes on after a fault (default: none)")  # fmt: skip
    command.add_argument("--ties", action="store_true", help='keep ties, with "tie": true')
    command.add_argument("--out", type=Path, default=Path("judged.jsonl"), help="where the rows go "
                         "(default: judged.jsonl)")  # fmt: skip
    command.add_argument("--overwrite", action="store_true", help="let --out replace a file")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Compare the pairs and write the rows.

    Raises:
        ValueError: if there is a file already where the rows go.
    """
    if options.out.exists() and not options.overwrite:  # asked first: answers may cost money
        raise ValueError(f"--out {options.out} is there already; choose another file, or add --overwrite")
    prompts, a, b, policies = read(options.pairs)
    rubric = {} if options.rubric is None else {"rubric": options.rubric.read_text(encoding="utf-8")}
    judge = PairwiseJudge(
        options.model,
        base_url=options.base_url,
        key=options.key,
        concurrency=options.concurrency,
        prices=None if options.prices is None else tuple(options.prices),
        budget=options.budget,
        cache=options.cache,
        **rubric,
    )
    with told_while(judge.usage, 2 * len(prompts)):  # in both orders
        preferences = judge.compare(prompts, a, b)
    rows = []
    for prompt, one, other, preference, wrote in zip(prompts, a, b, preferences, policies, strict=True):
        for row in comparisons([prompt], [one], [other], [preference], ties=options.ties):
            rows.append({**row, **_policies(wrote, preference.choice == "b")})
    write(options.out, rows)
    ties = sum(preference.choice == "tie" for preference in preferences)
    bias, usage = position_bias(preferences), judge.usage
    print(f"{len(rows)} of {len(prompts)} pairs written to {options.out}; {ties} ties")
    print(f"the two orders disagree on {bias.disagreement:.0%} of the pairs")
    tokens = f"{usage.prompt_tokens} prompt and {usage.completion_tokens} completion tokens"
    cost = "" if usage.cost is None else f", {usage.cost:.4g} spent"
    print(f"{usage.requests} requests, {usage.cached} answers from the cache, {tokens}{cost}")
    return 0


@contextmanager
def told_while(usage: Usage, total: int, seconds: float = 0.5) -> Iterator[None]:
    """Show in a terminal how many questions are asked, while they are.

    Args:
        usage: of the model that is asked.
        total: questions there are.
        seconds: from one line to the next.
    """
    ended = Event()

    def tell() -> None:
        while not ended.wait(seconds):
            asked = usage.cached + usage.requests - usage.faults - usage.unreadable
            told = f"\r{asked} of {total} questions asked, {usage.faults + usage.unreadable} asked again"
            print(told, end="", file=sys.stderr, flush=True)

    teller = Thread(target=tell, daemon=True)
    if sys.stderr.isatty():
        teller.start()
    try:
        yield
    finally:
        ended.set()
        if teller.ident is not None:
            teller.join()
            print(file=sys.stderr)


def read(path: Path) -> tuple[list[str], list[str], list[str], list[tuple[str | None, str | None]]]:
    """Return prompts, first and second completions, and which policies wrote these, None where nobody says.

    Raises:
        ValueError: if the file is of another kind, holds no pair, or a line has not those three texts.
    """
    if path.suffix.lower() != ".jsonl":
        raise ValueError(f"pairs are in a .jsonl file, got {path}")
    rows, policies = [], []
    for record in TextFile(path, "prompt").scan():
        found = [[record.fields.get(name) for name in names] for names in FIELDS]
        row = next((row for row in found if all(isinstance(text, str) for text in row)), None)
        if row is None:
            raise ValueError(
                f"{path}:{record.number} holds no texts prompt, a and b, but {str(record.fields):.200}"
            )
        rows.append(row)
        policies.append((record.fields.get("policy_a"), record.fields.get("policy_b")))
    if not rows:
        raise ValueError(f"{path} holds no pairs")
    prompts, a, b = zip(*rows, strict=True)
    return list(prompts), list(a), list(b), policies


def _policies(wrote: tuple[str | None, str | None], swapped: bool) -> dict[str, str]:
    """Return the fields that say who wrote the chosen and the rejected text: to a database, other pairs else."""
    chosen, rejected = wrote[::-1] if swapped else wrote
    return {k: v for k, v in (("chosen_policy", chosen), ("rejected_policy", rejected)) if v is not None}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as .jsonl, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".write-", dir=path.parent) as folder:
        whole = Path(folder) / path.name
        whole.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        os.replace(whole, path)
