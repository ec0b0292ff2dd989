"""What is built is what is meant: the wheel holds every module, type marker and template, and works."""

import configparser
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("text_envs", "agents", "benchmarks")


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that the working tree stays clean."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for path in tree_files():
        target = source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / path).read_bytes())
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source)
    (found,) = out.glob("*.whl")
    return found


def tree_files():
    """Every file of the packages, results and caches aside."""
    found = [path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*")]
    return [
        path
        for path in found
        if (ROOT / path).is_file()
        and "__pycache__" not in path.parts
        and path.parts[:2] != ("benchmarks", "results")
    ]


@pytest.mark.slow
def test_the_wheel_holds_every_file(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == {path.as_posix() for path in tree_files()}
    assert {f"{package}/py.typed" for package in PACKAGES} <= inside
    assert "benchmarks/report/templates/report.html.j2" in inside


@pytest.mark.slow
def test_the_installed_wheel_makes_an_environment(wheel, tmp_path):
    """In a fresh environment that sees this one's dependencies but not the working tree."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh")
    python = tmp_path / "fresh" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    environment.pop("PYTHONHOME", None)
    code = (
        "import gymnasium as gym, text_envs\n"
        "env = gym.make('text_envs:text_envs/Copy-v0')\n"
        "observation, info = env.reset(seed=0)\n"
        "assert env.observation_space.contains(observation)\n"
        "print(text_envs.__file__)"
    )
    where = run(python, "-c", code, cwd=tmp_path, env=environment).strip()
    assert Path(where).is_relative_to(tmp_path)
    script = tmp_path / "fresh" / "bin" / "text-envs"
    assert "text_envs/Copy-v0" in run(script, "list", cwd=tmp_path, env=environment)
    assert "quick" in run(script, "bench", "list", cwd=tmp_path, env=environment)


def metadata():
    parser = configparser.RawConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements(text):
    return [line.strip() for line in text.strip().splitlines()]


def name_of(requirement):
    return requirement.split(">")[0].split("=")[0].split("[")[0].strip().lower().replace("_", "-")


def test_pyproject_leaves_the_metadata_to_setup_cfg():
    assert set(tomllib.loads((ROOT / "pyproject.toml").read_text())) == {"build-system", "tool"}


def test_all_holds_every_extra_for_users():
    extras = dict(metadata()["options.extras_require"])
    named = extras["all"].strip().partition("[")[2].rstrip("]").split(",")
    assert set(named) == set(extras) - {"all", "test", "dev", "ray", "trl"}


def test_every_direct_dependency_has_a_tested_version():
    parser = metadata()
    texts = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    direct = {name_of(line) for text in texts for line in requirements(text)} - {"text-envs"}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    tested = {name_of(line) for line in lines if line and not line.startswith("#")}
    assert tested == direct
