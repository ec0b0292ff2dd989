"""A row names the code it was made with."""

import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from benchmarks import machine


@pytest.fixture
def checkout(tmp_path):
    """A repository with this module in one folder and another module in a second one."""

    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    for folder in ("benchmarks", "agents"):
        (tmp_path / folder).mkdir()
    shutil.copy(machine.__file__, tmp_path / "benchmarks" / "machine.py")
    (tmp_path / "agents" / "ppo.py").write_text("x = 1\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    return tmp_path, git


def revision(folder):
    spec = spec_from_file_location("copied", folder / "benchmarks" / "machine.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.revision()


def test_a_change_anywhere_in_the_checkout_is_marked(checkout):
    folder, git = checkout
    head = git("rev-parse", "--short=12", "HEAD").strip()
    assert revision(folder) == head
    (folder / "agents" / "ppo.py").write_text("x = 2\n")
    assert revision(folder) == head + "+"


def test_a_checkout_that_does_not_hold_the_code_is_not_named(checkout):
    folder, git = checkout
    git("rm", "-q", "--cached", "benchmarks/machine.py")
    git("commit", "-qm", "an environment in somebody's project")
    assert revision(folder) is None
