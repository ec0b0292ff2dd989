"""What an update needs above the model and the optimiser, as the operating system counts it."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys, threading, time
import numpy as np, torch
from gymnasium import spaces
from transformers import LlamaConfig
from agents.buffers import EpisodeRolloutBuffer
from agents.losses import ppo_loss
from agents.policies import TransformerPolicy
from agents.updates import Update

torch.set_num_threads(1)
V, B, T, micro, checkpointing = 49152, 16, 256, *map(int, sys.argv[1:])
config = LlamaConfig(vocab_size=V, hidden_size=64, intermediate_size=192, num_hidden_layers=4,
                     num_attention_heads=4, tie_word_embeddings=True)
space, actions = spaces.Box(0, V, (T + 8,), np.int64), spaces.Discrete(V)
policy = TransformerPolicy(space, actions, lambda _: 1e-4, model=config, gradient_checkpointing=bool(checkpointing))
policy.set_training_mode(True)
rng = np.random.default_rng(0)
ids = rng.integers(V, size=(B, T + 8))
buffer = EpisodeRolloutBuffer(T, space, actions, "cpu", gae_lambda=1.0, gamma=1.0, n_envs=B)
buffer.max_tokens = micro or None
for t in range(T):
    obs = np.where(np.arange(T + 8) < 8 + t, ids, V)
    old_log_prob = torch.full((B,), -10.8)
    buffer.add(obs, ids[:, min(8 + t, T + 7)], np.ones(B), np.full(B, t == 0), torch.zeros(B), old_log_prob)
buffer.compute_returns_and_advantage(torch.zeros(B), np.ones(B, bool))
update = Update(policy.optimizer, 0.5, in_parts=bool(micro))

def loss_of(part):
    values, log_prob, entropy = policy.evaluate_packed(part.packs, part.actions)
    return ppo_loss(log_prob, part.old_log_prob, part.advantages, values, part.old_values, part.returns, entropy,
                    clip_range=0.2, clip_range_vf=None, ent_coef=0.01, vf_coef=0.5)

def once(size):
    batch = next(iter(buffer.get(size)))
    update.step(update.backward(batch, loss_of).total)
    return len(batch.actions)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

once(T)  # the optimiser's state and gradients are there from now on
before, peak, running = resident(), [0], [True]

def watch():
    while running[0]:
        peak[0] = max(peak[0], resident())
        time.sleep(0.002)

thread = threading.Thread(target=watch)
thread.start()
assert once(B * T) == B * T
running[0] = False
thread.join()
update.check()
print((peak[0] - before) / 2**30)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("micro", "checkpointing", "most"), [(0, 0, 3.0), (1100, 1, 2.0)])
def test_an_update_with_a_large_vocabulary_fits(micro: int, checkpointing: int, most: float) -> None:
    """PPO with its entropy bonus, V = 49,152, 16 episodes of 256 tokens in one minibatch; GiB.

    A (4096, V) tensor in float32 alone is 0.75 GiB, and log-probabilities with a graph hold several.
    """
    command = [sys.executable, "-c", SCRIPT, str(micro), str(checkpointing)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < most
