"""The command line: `python -m benchmarks` runs and reports suites, `text-envs` reaches every command there is.

Each command imports what it needs when it is called, so that `list` and `play` stay quick.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from .arguments import count
from .errors import UserError
from .rows import RowWarning

if TYPE_CHECKING:
    from rich.console import Console

    from .pools import Pool

_MOST = 10_000  # jobs, threads or seeds: beyond it a number is a slip of the hand
_USAGE = """\
usage: text-envs COMMAND ...

  list, info ID, page FILE  the environments: a table, one of them, all as Markdown
  play ID                 type the actions yourself
  judge PAIRS.jsonl       an AI judge compares completions, for a reward model
  feedback COMMAND        people's preferences: collect, keep, import, export
  train ID --algo ppo     train an agent, with any language model
  reward-model FILE       train a reward on comparisons of completions
  bench list|run|report   the benchmark suites; bench speed: side-by-side timings
  bench compare A B       what changed beyond noise between two runs
  report DIR              draw the report of a run

text-envs COMMAND --help says more."""

_RUN = """\
Run what a suite still lacks: one row for each experiment and seed. Stopped at any moment, the same command goes on.

An agent of yours is a function factory(env, seed, **keywords) in a module of the current directory or an installed
one. env is a gymnasium.vector.VectorEnv; what is returned is any Stable-Baselines3 algorithm, an object with
predict(observations, deterministic=) and perhaps learn(total_timesteps, callback=), or a function that is given one
observation and returns one action. It gets the steps of the suite's agents on each task. Its code is not part of a
row's configuration: after a change, give it another NAME or another --out.

  text-envs bench run quick --agent my_agent:make
  text-envs bench run quick --agent 'wide=my_agent:make{"width": 256}' --only 'Copy / *'
  text-envs bench run quick --agent my_agent:make --env 'my_games:Riddle-v0{"length": 4}' --steps 20000"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `text-envs` and return the exit status."""
    _find_modules_here()
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(_USAGE)
        return 0
    if command in ("list", "info", "play", "page", "judge", "feedback"):
        from text_envs.__main__ import main as environments

        return environments(arguments) or 0
    if command == "bench":
        return bench(arguments[1:])
    if command == "report":
        return bench(arguments)
    if command == "train":
        return _told_plainly(lambda: _train(arguments[1:]))
    if command == "reward-model":
        return _told_plainly(lambda: _reward_model(arguments))
    print(f"text-envs: no command is called {command!r}\n\n{_USAGE}", file=sys.stderr)
    return 2


def _find_modules_here() -> None:
    """Let tasks, rewards and agents in modules of the current directory be named, whatever started this process."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # at the end: a folder called `agents` there is not ours


def bench(argv: Sequence[str] | None = None) -> int:
    """Run `python -m benchmarks` and return the exit status."""
    _find_modules_here()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["speed"]:
        return _told_plainly(lambda: _speed(arguments[1:]))
    options = _parser().parse_args(arguments)
    return _told_plainly(lambda: options.command(options), "stopped; the same command goes on from here")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="text-envs bench", description="Run suites and report them.")
    commands = parser.add_subparsers(required=True, metavar="list | run | report | compare | speed")

    listing = commands.add_parser("list", help="the suites, or the experiments of one")
    listing.add_argument("suite", nargs="?", help="whose experiments to list")
    listing.set_defaults(command=_list)

    few = partial(count, most=_MOST)
    run = commands.add_parser("run", help="run what a suite still lacks", description=_RUN,
                              formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    run.add_argument("suite", help="a name that `list` shows")
    run.add_argument("--out", type=Path, metavar="DIR", help="where the rows go (default: runs/SUITE)")
    run.add_argument("--jobs", type=few, metavar="N", help="trials at a time (default: one a core)")
    run.add_argument("--threads", type=few, metavar="N", help="of each trial (default: the cores shared out; "
                     "with --ray ADDRESS: 1)")  # fmt: skip
    run.add_argument("--seeds", type=few, metavar="N", help="seeds of each experiment (default: the suite's)")
    run.add_argument("--only", metavar="PATTERN", help="experiments whose name or tag matches, such as 'Copy / *'")
    run.add_argument("--agent", action="append", default=[], metavar="AGENT", help="run this agent, not the "
                     "suite's: [NAME=]MODULE:FACTORY[{KEYWORDS}]; may be repeated")  # fmt: skip
    run.add_argument("--env", action="append", default=[], metavar="ENV", help="run on this environment, not on "
                     "the suite's tasks: [NAME=]ID[{KEYWORDS}]; may be repeated")  # fmt: skip
    run.add_argument("--steps", type=count, metavar="N", help="steps of training (default: the suite's)")
    run.add_argument("--timeout", type=count, metavar="SECONDS", help="a trial that takes longer is ended and has "
                     "failed (default: none is)")  # fmt: skip
    run.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster: 'auto', HOST:PORT, or 'local' to "
                     "start one here (needs text-envs[ray])")  # fmt: skip
    run.set_defaults(command=_run)

    report = commands.add_parser("report", help="draw the report of a run's rows")
    report.add_argument("folder", type=Path, metavar="DIR", help="where the rows are")
    report.add_argument("--readme", type=Path, metavar="FILE", help="renew the block results:NAME of this file, "
                        "NAME being DIR's last part")  # fmt: skip
    report.set_defaults(command=_report)

    compare = commands.add_parser("compare", help="say what changed beyond noise between two runs")
    compare.add_argument("a", type=Path, metavar="A", help="where the rows of the first run are")
    compare.add_argument("b", type=Path, metavar="B", help="where the rows of the second run are")
    compare.add_argument("--mode", choices=("sampled", "greedy"), default="sampled",
                         help="which evaluation to compare (default: sampled)")  # fmt: skip
    compare.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to a file too")
    compare.add_argument("--fail-on-worse", action="store_true", help="exit with 1 if anything became worse, "
                         "or had too few seeds to be judged")  # fmt: skip
    compare.set_defaults(command=_compare)

    commands.add_parser("speed", help="side-by-side timings against stock SB3 and others", add_help=False)
    return parser


def _told_plainly(command: Callable[[], int], stopped: str = "stopped") -> int:
    """Run a command; what the user can mend is told in a line, without a traceback.

    Args:
        command: returns the exit status.
        stopped: what is said after Ctrl-C.
    """
    try:
        with _plain_notes():
            return command()
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] in ("text_envs", "agents", "benchmarks"):
            raise  # a fault of ours, not something to install
        remedy = "" if "pip install" in str(error) else "; this command needs: pip install 'text-envs[all]'"
        print(f"text-envs: error: {error}{remedy}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"text-envs: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader has seen enough, as in `bench list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at the exit
        return 1
    except OSError as error:  # a path that is absent, forbidden or of the wrong kind; a full disk
        told = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"text-envs: error: {told}", file=sys.stderr)
        return 2


@contextmanager
def _plain_notes() -> Iterator[None]:
    """Tell once, in a line, what is left out of the rows."""
    told: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, RowWarning):
            before(message, category, filename, lineno, file, line)
        elif str(message) not in told:
            told.add(str(message))
            print(f"text-envs: note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        before, warnings.showwarning = warnings.showwarning, show
        yield


def _train(arguments: Sequence[str]) -> int:
    from .train import main

    return main(arguments)


def _reward_model(arguments: Sequence[str]) -> int:
    from agents.__main__ import main

    return main(arguments)


def _speed(arguments: Sequence[str]) -> int:
    from .speed.command import main

    return main(arguments)


def _list(options: argparse.Namespace) -> int:
    from . import suites
    from .scores import many

    if options.suite is None:
        width = max(map(len, suites.NAMES))
        for name in suites.NAMES:
            suite = suites.get(name)
            size = f"{len(suite.experiments):>3} experiments x {many(suite.seeds, 'seed')}"
            print(f"{name:<{width}} {size:<28}  {suite.description}")
        return 0
    for experiment in suites.get(options.suite).experiments:
        print(
            f"{experiment.name:<32} {experiment.steps:>9,} steps  {experiment.env_id} {dict(experiment.env_kwargs)}"
        )
    return 0


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markup import escape

    from . import machine, runner, suites
    from .progress import TerminalDisplay

    suite = suites.get(options.suite)
    if options.agent or options.env or options.steps:
        from . import own

        agents, envs = map(own.parse_agent, options.agent), map(own.parse_env, options.env)
        suite = own.with_own(suite, list(agents), list(envs), options.steps)
    trials = runner.plan(suite, options.seeds, options.only)
    out = options.out or Path("runs") / suite.name
    pool = _pool(options.ray, options.jobs, options.threads, options.timeout, machine.cores())
    console = Console()
    with TerminalDisplay(console) as display:
        failed = runner.run(trials, out, pool, display)
    _print_summary(console, out)
    if failed:
        console.print(f"[red]failed: {failed}[/red]; the tracebacks are in {escape(str(out / runner.ERRORS))}")
        return 1
    console.print(f"rows and settings are in {escape(str(out))}; draw them: text-envs report {escape(str(out))}",
                  highlight=False, soft_wrap=True)  # fmt: skip
    return 0


def _pool(ray: str | None, jobs: int | None, threads: int | None, timeout: float | None, cores: int) -> Pool:
    from .pools import ProcessPool
    from .ray_pool import LOCAL, RayPool

    if ray is not None and ray != LOCAL:
        return RayPool(ray, jobs, threads or 1, timeout)
    jobs = jobs or max(1, cores // (threads or 1))
    threads = threads or max(1, cores // jobs)
    return ProcessPool(jobs, threads, timeout) if ray is None else RayPool(ray, jobs, threads, timeout)


def _print_summary(console: Console, folder: Path) -> None:
    from . import progress, scores
    from .report import assembly

    try:
        found = scores.load(folder)
    except UserError:  # no trial has made a row
        return
    progress.print_document_tables(console, assembly.make(found, folder))


def _report(options: argparse.Namespace) -> int:
    from rich.console import Console

    from . import progress
    from .files import write_text
    from .report import assembly
    from .report.document import refresh_readme

    text = "" if options.readme is None else options.readme.read_text(encoding="utf-8")
    document, files = assembly.write(options.folder)
    if options.readme is not None:
        name = options.folder.resolve().name
        write_text(options.readme, refresh_readme(text, name, document.readme()))
        files = [*files, options.readme]
    progress.print_document_tables(Console(), document)
    print(f"wrote {files[0]} (open it in a browser), {files[1].name} and {len(files) - 2} more")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from rich.console import Console

    from . import compare, scores
    from .files import write_text

    comparison = compare.compare(scores.load(options.a), scores.load(options.b), options.mode)
    if options.json is not None:
        write_text(options.json, json.dumps(comparison.as_dict(), indent=1) + "\n")
    compare.show(comparison, Console())
    return int(options.fail_on_worse and any(map(comparison.count, ("worse", "too few seeds"))))


if __name__ == "__main__":
    sys.exit(bench())
