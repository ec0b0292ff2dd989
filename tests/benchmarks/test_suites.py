import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import suite_core, suite_granularity, suite_quick, suite_sweeps, suites
from benchmarks.errors import UserError
from benchmarks.evaluation import make_env

RESULTS = Path(suites.__file__).parent / "results"
BASE = {"task": "T", "agent": "A", "env_id": "e", "factory": "f:g"}


def test_the_key_names_the_exact_configuration():
    experiment = suites.Experiment(**BASE, env_kwargs={"a": 1, "b": 2})
    same = suites.Experiment(**BASE, env_kwargs={"b": 2, "a": 1}, tags=("x",))
    others = [replace(experiment, **one) for one in ({"env_kwargs": {"a": 1}}, {"target": 0.9}, {"seconds": 5.0})]
    assert experiment.key(0) == same.key(0)
    assert len({experiment.key(0), experiment.key(1), *(other.key(0) for other in others)}) == 5


def test_what_is_new_leaves_the_keys_of_old_experiments():
    assert suites.Experiment(**BASE).key(0) == "8ed914f198c85ad2"
    configuration = suites.Experiment(**BASE, target=0.5).configuration()
    assert configuration["target"] == 0.5 and "seconds" not in configuration


@pytest.mark.parametrize("name", sorted(path.parent.name for path in RESULTS.glob("*/rows.jsonl")))
def test_committed_rows_keep_their_keys(name):
    rows = [json.loads(line) for line in (RESULTS / name / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows
    for row in rows:
        assert suites.Experiment(**row["experiment"]).key(row["seed"]) == row["key"]


@pytest.mark.parametrize("name", suites.NAMES)
def test_suites_are_whole(name):
    suite = suites.get(name)
    assert suite.name == name and suite.description.endswith(".")
    counts = Counter(experiment.name for experiment in suite.experiments)
    assert counts.most_common(1)[0][1] == 1
    assert len({experiment.key(0) for experiment in suite.experiments}) == len(suite.experiments)
    assert suite.sections is None or callable(suites.resolve(suite.sections))
    for experiment in suite.experiments:
        assert callable(suites.resolve(experiment.factory))
        assert callable(suites.resolve(experiment.trial))
        assert experiment.eval_episodes >= 512
        assert experiment.num_envs % 8 == 0  # GRPO's groups
        assert suites.Experiment(**experiment.configuration()).key(0) == experiment.key(0)


def test_what_a_module_lacks_is_told_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="package_that_is_not_there"):
        suites.resolve("needs_more:trial")


def test_unknown_names_say_what_there_is():
    with pytest.raises(UserError, match="'quikc'; choose one of quick, core, "):
        suites.get("quikc")
    with pytest.raises(ValueError, match="absent:nothing"):
        suites.resolve("absent:nothing")
    with pytest.raises(ValueError, match="'benchmarks.absent:nothing' does not name a function"):
        suites.resolve("benchmarks.absent:nothing")
    with pytest.raises(KeyError):
        suites.experiment("nobody", "T", "e", 1)
    with pytest.raises(TypeError, match="setps"):
        suites.experiment("PPO", "T", "e", 1, setps=2)


def test_quick_stops_by_scores_only():
    experiments = suites.get("quick").experiments
    assert all(e.seconds is None for e in experiments)
    assert {e.target for e in experiments if e.agent != "random"} == {suite_quick.SOLVED}


def test_core_gives_equal_steps():
    steps = {(e.task, e.agent): e.steps for e in suites.get("core").experiments}
    assert len(steps) == len(suite_core.CORE) * 8 and suites.get("core").seeds >= 5
    for task, most in suite_core.CORE.items():
        given = {agent: steps[task, agent] for agent in suite_core.EVERYONE}
        assert given.pop("random") == 0
        assert {given.pop("DQN"), given.pop("SB3 DQN, one-hot")} == {most // 2}
        assert set(given.values()) == {most}


@pytest.mark.parametrize("task", suite_core.CORE)
def test_core_has_tasks_with_an_exact_optimum_and_experts(task):
    env = make_env(f"text_envs/{task}-v0", 2, {"dense": True})
    assert env.optimal_return() > env.random_return()
    env.reset(seed=0)
    assert all(len(ids) for ids in env.demonstrate())


@pytest.mark.parametrize("knob", suite_sweeps.KNOBS, ids=lambda knob: knob.name)
def test_a_sweep_turns_one_knob(knob):
    experiments = [e for e in suites.get("sweeps").experiments if e.tags == (knob.name,)]
    assert len(experiments) == len(knob.values) * len(suite_sweeps.AGENTS)
    assert [e.env_kwargs[knob.keyword] for e in experiments if e.agent == "PPO"] == list(knob.values)
    rest = [{k: v for k, v in e.env_kwargs.items() if k != knob.keyword} for e in experiments]
    assert all(others == rest[0] for others in rest)
    assert len({e.steps for e in experiments if e.agent != "random"}) == 1
    for experiment in experiments[:: len(suite_sweeps.AGENTS)]:
        env = make_env(experiment.env_id, 2, experiment.env_kwargs)
        assert env.normalize(env.optimal_return()) == 1


def test_levels_say_the_same_in_equally_many_tokens():
    by_task = {}
    for experiment in suites.get("granularity").experiments:
        by_task.setdefault(experiment.task, []).append(experiment)
    for experiments in by_task.values():
        assert len(experiments) == 6
        tokens = {e.steps * suite_granularity.tokens_a_step(e) for e in experiments if e.steps}
        assert tokens == {suite_granularity.TOKENS}
        envs = {"propose" in e.env_kwargs: make_env(e.env_id, 4, e.env_kwargs) for e in experiments}
        values = {(env.optimal_return(), env.random_return()) for env in envs.values()}
        assert len(values) == 1
        layout, token_env = envs[True].candidate_layout, envs[False]
        assert layout.candidate_length == token_env.task.max_new_tokens
        observations, _ = envs[True].reset(seed=0)
        candidates = layout.split(observations)[1]  # (B, K, C), none of them shorter than an utterance
        assert envs[True].action_masks().all() and (candidates != token_env.vocab_size).all()
        said = {tuple(ids) for ids in candidates[0].tolist()}
        forms = len(experiments[-1].env_kwargs["propose"])
        assert len(said) == forms and all(tuple(ids) in said for ids in _all_legal(token_env))


def _all_legal(env):
    """Utterances of uniform legal tokens, enough to have seen all."""
    import numpy as np

    rng, found = np.random.default_rng(0), set()
    env.reset(seed=0)
    for _ in range(200):
        words = []
        for _ in range(env.task.max_new_tokens):
            actions = np.where(env.action_masks(), rng.random((4, env.vocab_size)), -1).argmax(axis=1)
            words.append(actions)
            env.step(actions)
        found |= {tuple(word) for word in np.transpose(words).tolist()}
    return found
