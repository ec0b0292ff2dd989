"""Which way the arrows point: text_envs and agents know nothing of each other, benchmarks knows both."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("text_envs", "agents", "benchmarks")
FORBIDDEN = {
    "text_envs": {"agents", "benchmarks"},
    "agents": {"text_envs", "benchmarks"},
    "benchmarks": set(),
}
CORE = set(sys.stdlib_module_names) | {"numpy", "gymnasium", "text_envs"}


def files(package):
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"{package} holds no modules"
    return found


def imported(tree, nested):
    """Yield (line, module) of each import; relative ones as '.'. `nested`: those inside functions too."""
    for node in _nodes(tree, nested):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." if node.level else node.module


def _nodes(node, nested):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not nested:
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING") and not nested:
            continue
        yield child
        yield from _nodes(child, nested)


def violations(package, nested, forbidden):
    for path in files(package):
        for line, module in imported(ast.parse(path.read_text(encoding="utf-8")), nested):
            if forbidden(module.partition(".")[0]):
                yield f"{path.relative_to(ROOT)}:{line} imports {module}"


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_run_one_way(package):
    assert not list(violations(package, True, lambda name: name in FORBIDDEN[package]))


# The web page is an extra's room, which nothing but `feedback serve` loads, and that when it is called.
PAGE = "text_envs/feedback/web/"


def test_the_environments_need_numpy_and_gymnasium_only():
    found = violations("text_envs", False, lambda name: name and name not in CORE)
    assert not [violation for violation in found if not violation.startswith(PAGE)]


def test_nothing_outside_the_web_page_loads_it_at_once():
    code = (
        "import sys\nfrom text_envs.feedback import serve, web_commands\n"
        "print(*({'fastapi', 'jinja2', 'argon2', 'uvicorn'} & set(sys.modules)))"
    )
    assert run(code) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_own_modules_are_imported_relatively(package):
    exempt = {"__main__.py"}
    found = [v for v in violations(package, True, lambda name: name == package) if v.split(":")[0] not in exempt]
    assert not found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import agents.ppo", ["agents.ppo"]),
        ("def f():\n    from benchmarks import x", ["benchmarks"]),
        ("try:\n    import torch\nexcept ImportError:\n    torch = None", ["torch"]),
        ("from . import tasks", ["."]),
    ],
)
def test_the_reader_of_imports_sees_them(source, expected):
    assert [module for _, module in imported(ast.parse(source), nested=True)] == expected


def test_the_reader_of_imports_tells_module_level_from_functions():
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    import torch"
    assert [module for _, module in imported(ast.parse(source), nested=False)] == ["typing"]


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_text_envs_loads_nothing_heavy_and_registers_the_ids():
    code = (
        "import sys, text_envs, gymnasium as gym\n"
        "heavy = {'torch', 'transformers', 'stable_baselines3', 'pandas', 'vaderSentiment'}\n"
        "print(*(heavy & set(sys.modules)), 'end', *(i for i in gym.registry if i.startswith('text_envs/')))"
    )
    heavy, _, ids = " ".join(run(code)).partition("end")
    assert not heavy.strip()
    assert {"text_envs/Copy-v0", "text_envs/Reverse-v0", "text_envs/Password-v0", "text_envs/Sentiment-v0"} <= set(
        ids.split()
    )


def test_importing_agents_does_no_work():
    code = (
        "import logging, sys, agents, torch\n"
        "print(torch.cuda.is_initialized(), len(logging.getLogger().handlers), 'text_envs' in sys.modules)"
    )
    assert run(code) == ["False", "0", "False"]


def test_the_command_line_starts_without_torch():
    code = (
        "import sys\nfrom benchmarks import __main__, runner, suites\nsuites.get('quick')\n"
        "print(*({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    assert run(code) == []
