"""The timings run and say what they measured, at sizes that take a second; no time is ever asserted."""

import json
from dataclasses import replace

import numpy as np
import pytest
import stable_baselines3
import torch
import torch.nn.functional as F

from agents import DQN
from benchmarks.errors import UserError
from benchmarks.speed import agents, command, dqn, envs, jobs, ppo, timing


@pytest.fixture
def tiny(monkeypatch):
    for name, value in {"BATCH": 8, "STEPS": 40, "SINGLE_STEPS": 20, "TEXT_BATCH": 4, "SUITE_EPISODES": 4}.items():
        monkeypatch.setattr(envs, name, value)
    monkeypatch.setattr(envs, "SUITE_BATCH", 2)


def test_a_row_has_both_rates_and_their_ratio():
    calls = []

    def worker(name, units):
        return lambda: calls.append(name) or units

    row = timing.compare("a job", "steps/s", worker("ours", 10), worker("theirs", 5), "theirs", repeats=3)
    assert calls == ["ours", "theirs", *["theirs", "ours"] * 3]  # a warm-up of each, then in turn
    assert row["ratio"]["min"] <= row["ratio"]["median"] <= row["ratio"]["max"]
    assert row["ours"] > 0 and row["theirs"] > 0 and "x theirs" in row["told"]


def test_environments_are_timed_and_other_sections_stay(tiny, tmp_path, capsys):
    out = tmp_path / "speed.json"
    out.write_text(json.dumps({"agents": {"rows": ["as they were"]}}))
    assert command.main(["--only", "envs", "--repeats", "1", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert written["agents"] == {"rows": ["as they were"]}
    names = [row["name"] for row in written["envs"]["rows"]]
    for part in ("Copy-v0, batch", "Copy-v0, batch of 8, dense", "NGram-v0", "single", "VADER", "ReasoningGym"):
        assert any(part in name for name in names), part
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    assert 0 < next(row["share"] for row in written["envs"]["rows"] if "share" in row) < 1


TINY = jobs.Job(16, 1, 2, vocab_size=16, prompt=2, tokens=8, n_envs=4, n_epochs=2, batch_size=16)


def test_agents_are_timed_at_tiny_sizes(tmp_path, capsys):
    out = tmp_path / "speed.json"
    assert (
        command.main(["--only", "agents", "--quick", "--repeats", "1", "--device", "cpu", "--out", str(out)]) == 0
    )
    rows = json.loads(out.read_text())["agents"]["rows"]
    printed = capsys.readouterr().out
    wanted = ["PPO iteration", "HF generate", "lengths uniform", "DQN gradient", "Replay memory", "cost of a token"]
    if agents.has_trl():
        wanted.append("TRL")
    told = [f"{row['name']}: {row['told']}" for row in rows]
    for part in wanted:
        assert any(part in line for line in told), part
    for row, line in zip(rows, told, strict=True):
        assert line in printed
        assert 0 < row["ratio"]["min"] <= row["ratio"]["median"] <= row["ratio"]["max"]


def test_quick_figures_never_replace_measured_ones():
    with pytest.raises(UserError, match="give --out"):
        command.main(["--only", "agents", "--quick"])


def test_the_share_of_saved_work_is_told():
    row = timing.with_flops("a job", [(8.0, 1.0), (6.0, 2.0), (10.0, 2.0)], {"stock": 100, "ours": 10}, "stock")
    assert row["ratio"] == {"min": 3.0, "median": 5.0, "max": 8.0}
    assert row["flop_ratio"] == 10 and row["reached"] == 0.5
    assert "5.0x stock (3.0-8.0)" in row["told"] and "10.0x, 50% of it reached" in row["told"]


def test_stock_scaled_up_from_parts_does_the_work_of_the_whole():
    """The update's operations are exact but for trimming, the rollout's for the sums over lengths."""
    job = replace(TINY, tokens=16)
    model = ppo.make_model(job, stable_baselines3.PPO, "cpu")
    whole = ppo.stock_iteration(model, job, jobs.count_flops)
    scaled = ppo.stock_iteration(model, replace(job, stock_minibatches=2), jobs.count_flops)
    assert scaled == pytest.approx(whole, rel=0.15)
    assert "get" not in vars(model.rollout_buffer)  # whole epochs again
    assert job.minibatches == 8


@pytest.mark.parametrize("ragged", [False, True])
def test_episodes_have_the_lengths_that_were_asked_for(ragged):
    env, ends = jobs.blank_env(replace(TINY, ragged=ragged)), []
    env.reset()
    for _ in range(100):
        observations, _, ended, infos = env.step(np.zeros(4, np.int64))
        assert ((observations != 16).sum(axis=1)[ended] == 2).all()
        for row in np.flatnonzero(ended):
            final = infos[row]["terminal_observation"]
            ends.append(infos[row]["episode"]["l"])
            assert (final != 16).sum() == 2 + ends[-1]
    assert set(ends) == (set(range(1, 9)) if ragged else {8})


def test_both_replay_buffers_hold_the_same_transitions():
    job = replace(TINY, ragged=True)
    model = dqn.make_model(job, stable_baselines3.DQN, "cpu", 200)
    ours = dqn.make_model(job, DQN, "cpu", 200).replay_buffer
    stock = model.replay_buffer
    first = ours.episodes[0]
    steps = len(first.actions)
    row = next(i for i in range(4) if (stock.next_observations[steps - 1, i, : len(first.ids)] == first.ids).all())
    assert (stock.actions[:steps, row, 0] == first.actions).all()
    assert stock.dones[:steps, row].tolist() == [0] * (steps - 1) + [1]
    assert torch.isfinite(ours.sample(16).rewards).all()


def test_attention_is_counted_on_cpus_too():
    query = torch.randn(2, 4, 8, 16, requires_grad=True)
    key, value = torch.randn(2, 4, 8, 16), torch.randn(2, 4, 8, 16)
    product = 2 * 2 * 4 * 8 * 8 * 16  # of one of attention's matrix products

    def attend():
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)

    assert jobs.count_flops(attend) == 2 * product
    assert jobs.count_flops(lambda: attend().sum().backward()) == (2 + 5) * product


def test_memory_of_unfinished_episodes_is_not_scaled_up():
    small, large = (dqn.memory_row(TINY, measured)["our_bytes"] for measured in (4 * 8 * 50, 4 * 8 * 50 + 4 * 7))
    assert large == pytest.approx(small, rel=0.02)  # all finished, and 28 more transitions in unfinished ones


def test_timings_at_hand_are_shown_and_put_into_a_readme(tmp_path, capsys):
    out, readme = tmp_path / "speed.json", tmp_path / "README.md"
    with pytest.raises(UserError, match="no timings in .*; run"):
        command.main(["--show", "--out", str(out)])
    with pytest.raises(UserError, match="goes with --show"):
        command.main(["--readme", str(readme)])
    rows = [{"name": "a job", "told": "2.0x (1.9-2.1)"}]
    hardware = {"cpu": "a core", "gpu": "a card"}
    made = {"versions": {"torch": "2.13"}, "revision": "abc", "started": "2026-01-02T03:04:05+00:00"}
    section = {"hardware": hardware, "device": "cpu", "threads": 1, **made, "rows": rows}
    out.write_text(json.dumps({"agents": section, "envs": section}))
    readme.write_text("before\n<!-- results:speed -->\nold\n<!-- /results -->\nafter\n")
    assert command.main(["--show", "--out", str(out), "--readme", str(readme)]) == 0
    shown = capsys.readouterr().out.strip()
    assert "| a job | 2.0x (1.9-2.1) |" in shown
    assert shown.endswith("Measured on a core, 1 thread, 2026-01-02, revision abc, with torch 2.13.")
    written = readme.read_text()
    assert (
        shown in written and "old" not in written and written.startswith("before\n") and written.endswith("after\n")
    )
