import json
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector.utils import batch_space

from benchmarks import own, suites
from benchmarks.errors import UserError
from benchmarks.own import Function, Named, as_agent, options, parse_agent, parse_env, with_own
from benchmarks.trial import train_and_evaluate

MODULE = """
import random

import gymnasium as gym
import numpy as np
import stable_baselines3
from gymnasium import spaces

import agents


def stock(env, seed, **options):
    return stable_baselines3.PPO(
        "MlpPolicy", agents.VectorEnvAdapter(env), seed=seed, n_steps=32, device="cpu", **options
    )


def function(env, seed):
    return lambda observation: int(observation[0])


def careless(env, seed):
    np_offset, offset = np.random.randint(3), random.randrange(3)
    return lambda observation: (np_offset + offset + np.random.randint(3) + random.randrange(3)) % 3


class Learner:
    def __init__(self, env, seed, offset=0):
        self.right, self.offset = False, offset

    def learn(self, total_timesteps, callback=None):
        self.right = total_timesteps >= 1000

    def predict(self, observations, deterministic=False):
        return (observations[:, 0] + (not self.right) + self.offset) % 3, None


class Echo(gym.Env):
    observation_space = spaces.Box(0, 2, (1,), np.int64)
    action_space = spaces.Discrete(3)

    def __init__(self, length=2):
        self.length = length

    def _seen(self):
        return self.np_random.integers(0, 3, 1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.shown = self.length, self._seen()
        return self.shown, {}

    def step(self, action):
        reward, self.shown, self.left = float(action == self.shown[0]), self._seen(), self.left - 1
        return self.shown, reward, self.left == 0, False, {}


gym.register("mine/Echo-v0", entry_point=Echo)
value = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    (folder / "my_agents.py").write_text(MODULE)
    (folder / "broken_module.py").write_text("import json\n\njson.nothing\n")
    (folder / "half_a_module.py").write_text("def make(:\n")
    (folder / "needs_more.py").write_text("import a_package_that_is_absent\n")
    return folder


@pytest.fixture(autouse=True)
def importable(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.fixture
def suite():
    return suites.get("quick")


def test_what_is_typed_is_parsed():
    assert parse_agent("my_agents:stock") == Named("stock", "my_agents:stock", {})
    assert parse_agent("mine=my_agents:stock") == Named("mine", "my_agents:stock", {})
    wide = parse_agent('my_agents:stock{"n_epochs": 2}')
    assert wide == Named("stock(n_epochs=2)", "my_agents:stock", {"n_epochs": 2})
    assert parse_env("CartPole-v1") == Named("CartPole-v1", "CartPole-v1", {})
    env = parse_env('E=my_agents:mine/Echo-v0:{"length": 4}')
    assert env == Named("E", "my_agents:mine/Echo-v0", {"length": 4})
    assert parse_env("my_agents:mine/Echo-v0").name == "Echo-v0"
    assert parse_env("text_envs/Copy-v0").path == "text_envs/Copy-v0"
    assert str(wide) == 'stock(n_epochs=2)=my_agents:stock{"n_epochs": 2}'
    for keywords in ({"policy_kwargs": {"a": 1}}, {"a": "x={y", "b": [{"c": None}]}):
        deep = parse_agent(f"my_agents:stock{json.dumps(keywords)}")
        assert deep.keywords == keywords and parse_agent(str(deep)) == deep


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("my_agents", "'my_agents' is not MODULE:FACTORY, such as my_agent:make"),
        (":make", "is not MODULE:FACTORY"),
        ("my_agents:", "is not MODULE:FACTORY"),
        ("absent_module:make", "no module 'absent_module' is installed or lies in the current directory"),
        ("my_agents.deep:make", "no module 'my_agents.deep'|'my_agents' is not a package"),
        ("my_agents:absent", "it has no factory 'absent' in module 'my_agents'"),
        ("my_agents:value", "3 is no function: no factory 'value'"),
        (
            "broken_module:make",
            r"importing 'broken_module' raised AttributeError: .* \(.*broken_module.py, line 3\)",
        ),
        ("half_a_module:make", r"raised SyntaxError: .*half_a_module.py, line 1\)"),
        ("needs_more:make", "raised ModuleNotFoundError: No module named 'a_package_that_is_absent'"),
        ('my_agents:stock{"seed": 3}', r"my_agents:stock\(env, seed.*\) does not take \(env, seed, seed=\)"),
        ("my_agents:stock{length: 4}", r'keywords are a JSON object, such as {"length": 4} \(Expecting'),
    ],
)
def test_an_agent_that_cannot_be_had_is_told(text, message):
    with pytest.raises(UserError, match=message) as error:
        parse_agent(text)
    assert str(error.value).startswith(f"--agent {text}: ")


@pytest.mark.parametrize("parse", [parse_agent, parse_env])
def test_bytes_that_are_no_text_are_refused(parse):
    with pytest.raises(UserError, match=r"'half .udcff=my_agents:stock': this is not UTF-8 text"):
        parse("half \udcff=my_agents:stock")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Nothing-v0", "Nothing"),
        ("text_envs/Coppy-v0", "Copy"),
        ("absent_module:mine/Echo-v0", "no module 'absent_module'"),
        ('CartPole-v1{"wheels": 3}', "wheels"),
    ],
)
def test_an_environment_that_cannot_be_had_is_told(text, message):
    with pytest.raises(UserError, match=message) as error:
        parse_env(text)
    assert str(error.value).startswith(f"--env {text}: ")


def test_own_agents_take_the_place_of_the_suites(suite):
    mine = [Named("a", "my_agents:stock", {}), Named("b", "my_agents:stock", {"n_epochs": 2})]
    found = with_own(suite, mine).experiments
    assert [(e.task, e.agent) for e in found] == [(t, a) for t in ("Copy", "Reverse", "Password") for a in "ab"]
    theirs = {e.task: e for e in suite.experiments if e.agent == "PPO"}
    for experiment in found:
        like = theirs[experiment.task]
        assert experiment.steps == like.steps > 0 and experiment.target == like.target
        assert (experiment.env_id, experiment.env_kwargs) == (like.env_id, like.env_kwargs)
        assert experiment.matches("own") and not like.matches("own")
    assert {e.steps for e in with_own(suite, mine, steps=7).experiments} == {7}


def test_the_suites_agents_on_an_environment_of_mine(suite):
    env = Named("Echo", "my_agents:mine/Echo-v0", {"length": 4})
    found = with_own(suite, envs=[env], steps=500).experiments
    assert [e.agent for e in found] == list(dict.fromkeys(e.agent for e in suite.experiments))
    assert {(e.task, e.env_id, e.env_kwargs["length"]) for e in found} == {("Echo", env.path, 4)}
    assert {e.agent: e.steps for e in found}["random"] == 0 and {e.steps for e in found} == {0, 500}
    both = with_own(suite, [Named("a", "my_agents:stock", {})], [env]).experiments
    assert [(e.task, e.agent, e.steps) for e in both] == [("Echo", "a", 60_000)]


def test_names_must_not_be_taken(suite):
    mine = Named("PPO", "my_agents:stock", {})
    with pytest.raises(UserError, match="the suite has its own 'PPO'; give yours a name, NAME=my_agents:stock"):
        with_own(suite, [mine])
    with pytest.raises(UserError, match="two are called 'x'"):
        with_own(suite, [Named("x", "my_agents:stock", {}), Named("x", "my_agents:function", {})])
    with pytest.raises(UserError, match="the suite has its own 'Copy'"):
        with_own(suite, envs=[Named("Copy", "CartPole-v1", {})])


def test_a_suite_that_measures_in_its_own_way_takes_no_agents():
    with pytest.raises(UserError, match="suite 'real' measures in a way of its own"):
        with_own(suites.get("real"), [Named("a", "my_agents:stock", {})])


@pytest.mark.parametrize("name", ["sweeps", "granularity", "frontier", "real", "feedback"])
def test_a_suite_about_its_own_tasks_takes_no_environments(name):
    with pytest.raises(UserError, match=f"suite '{name}' is about tasks of its own; run --env with another"):
        with_own(suites.get(name), envs=[Named("C", "CartPole-v1", {})])


@pytest.mark.parametrize(
    ("agents", "envs", "steps"),
    [
        ([Named("a b", "my_agents:stock", {"n_epochs": 2})], [], None),
        ([], [Named("Echo", "my_agents:mine/Echo-v0", {"length": 4})], 900),
        ([Named("a", "my_agents:stock", {})], [Named("Echo", "my_agents:mine/Echo-v0", {})], 900),
        ([Named("stock(policy_kwargs={'a': 1})", "my_agents:stock", {"policy_kwargs": {"a": 1}})], [], None),
        ([], [], 900),
        ([], [], None),
    ],
)
def test_options_make_the_experiment_again(suite, agents, envs, steps):
    for experiment in with_own(suite, agents, envs, steps).experiments:
        said = options(experiment.configuration(), suite)
        values = {name: [v for n, v in zip(said[::2], said[1::2], strict=True) if n == name] for name in said[::2]}
        again = with_own(
            suite,
            [parse_agent(text) for text in values.get("--agent", [])],
            [parse_env(text) for text in values.get("--env", [])],
            *[int(text) for text in values.get("--steps", [])],
        )
        assert experiment.key(0) in {e.key(0) for e in again.experiments}


def test_what_a_factory_returns():
    space = spaces.Box(0, 9, (3, 2), np.int64)
    function = as_agent(lambda observation: observation.sum(), "f", space)
    assert isinstance(function, Function) and not hasattr(function, "learn")
    assert function.predict(np.arange(6).reshape(3, 2))[0].tolist() == [1, 5, 9]
    with pytest.raises(TypeError, match=r"my:thing returned 3; an agent has predict\(observations, determin"):
        as_agent(3, "my:thing", space)


@pytest.mark.parametrize(
    ("single", "act"),
    [
        (spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(0, 9, (2,))), lambda seen: seen["a"]),
        (spaces.Tuple((spaces.Discrete(3), spaces.Discrete(2))), lambda seen: seen[0]),
    ],
)
def test_a_function_gets_one_observation_of_several_parts(single, act):
    batch = batch_space(single, 5)
    seen = batch.sample()
    first = seen["a"] if isinstance(seen, dict) else seen[0]
    assert np.array_equal(Function(act, batch).predict(seen)[0], first)


def test_what_draws_from_shared_generators_comes_back():
    rows = [trial_of("careless") for _ in range(2)]
    assert rows[0]["evaluation"] == rows[1]["evaluation"]
    assert 0 < rows[0]["evaluation"]["sampled"]["mean"] < 4


def test_a_learn_without_a_callback_is_told():
    class Agent:
        def predict(self, observations, deterministic=False):
            return observations, None

        def learn(self, total_timesteps):
            return self

    with pytest.raises(
        TypeError, match=r"my:thing: Agent.learn\(total_timesteps\) does not take \(total_timesteps, callback"
    ):
        as_agent(Agent(), "my:thing", spaces.Discrete(2))


def trial_of(agent, **changes):
    env = Named("Echo", "my_agents:mine/Echo-v0", {"length": 4})
    suite = with_own(suites.get("quick"), [Named("mine", f"my_agents:{agent}", {})], [env], **changes)
    return train_and_evaluate(suite.experiments[0], 0, lambda fraction: None)


@pytest.mark.parametrize(
    ("agent", "steps", "mean"), [("function", 0, 4.0), ("Learner", 1000, 4.0), ("Learner", 999, 0.0)]
)
def test_agents_that_are_not_stable_baselines(agent, steps, mean):
    row = trial_of(agent, steps=steps or None)
    assert row["steps"] == steps and row["curve"] == [] and row["samples"] == []
    for evaluation in row["evaluation"].values():
        assert evaluation["mean"] == mean and evaluation["normalized"] is None and evaluation["episodes"] == 512


def test_a_stock_agent_on_cart_pole():
    suite = with_own(
        suites.get("quick"), [Named("mine", "my_agents:stock", {})], [Named("C", "CartPole-v1", {})], steps=1024
    )
    row = train_and_evaluate(suite.experiments[0], 0, lambda fraction: None)
    assert row["steps"] == 1024 and 8 < row["evaluation"]["sampled"]["mean"] <= 500
    assert row["curve"] and row["curve"][-1][3] is None
    json.dumps(row)


@pytest.mark.slow
def test_from_the_command_line_in_another_folder(folder, tmp_path, monkeypatch, capsys):
    from benchmarks import __main__ as command
    from benchmarks.rows import read_rows

    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
    monkeypatch.delitem(sys.modules, "my_agents", raising=False)
    monkeypatch.delitem(gym.registry, "mine/Echo-v0", raising=False)
    words = ["--agent", "my_agents:Learner", "--agent", 'off=my_agents:Learner{"offset": 1}']
    where = ["--env", 'my_agents:mine/Echo-v0{"length": 2}', "--out", str(tmp_path)]
    run = ["run", "quick", *words, *where, "--steps", "1000", "--seeds", "1", "--jobs", "1"]
    assert command.bench(run) == 0
    rows = read_rows(tmp_path / "rows.jsonl")
    assert {row["experiment"]["agent"]: row["evaluation"]["greedy"]["mean"] for row in rows} == {
        "Learner": 2.0,
        "off": 0.0,
    }
    assert "other settings" not in capsys.readouterr().out
    assert command.bench(run) == 0
    assert "0 trials to run (2 have their row already)" in capsys.readouterr().out
    assert own.TAG in rows[0]["experiment"]["tags"]
