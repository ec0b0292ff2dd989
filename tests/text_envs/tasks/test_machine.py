"""MachineTask: a machine read for all rows at once against one read token by token."""

import numpy as np

from text_envs import TokenVectorEnv
from text_envs.exact import CLOSED
from text_envs.streams import RowRandom, Stream
from text_envs.tasks.base import Samples
from text_envs.tasks.machine import MachineTask
from text_envs.tokenizer import CharacterTokenizer

FOLLOWING = np.array([[1, 0, CLOSED], [0, 1, CLOSED], [2, 2, CLOSED]])  # two machines: of two states and of one
POINTS = np.array([[1.0, -2.0, 4.0], [3.0, 0.5, 0.0], [7.0, -1.0, 2.0]])
OUT_OF = np.array([2.0, 2.0, 5.0])


class Wheel(MachineTask):
    """Shown a state, said "a", "b" or the end."""

    def __init__(self):
        super().__init__(
            CharacterTokenizer("ab", end=True),
            FOLLOWING,
            POINTS,
            out_of=OUT_OF,
            max_prompt_tokens=1,
            max_new_tokens=5,
        )

    def sample(self, random):
        state = random.integers(3, 1)
        return Samples(state % 2, columns={"state": state[:, 0]})


def read(state, said):
    total, out_of = 0.0, OUT_OF[state]
    for token in said:
        total += POINTS[state, token]
        state = FOLLOWING[state, token]
    return total / out_of


def test_rows_of_all_lengths_are_read_at_once():
    env = TokenVectorEnv(Wheel(), 500, dense=True)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    state = env.task.sample(RowRandom(np.arange(500), 0, Stream.PROMPT)).columns["state"]
    said, total, running = [[] for _ in range(500)], np.zeros(500), np.ones(500, bool)
    for _ in range(5):
        tokens = rng.integers(3, size=500)
        _, reward, terminated, *_ = env.step(tokens)
        total[running] += reward[running]
        for row in np.flatnonzero(running):
            said[row].append(tokens[row])
            assert np.isclose(total[row], read(state[row], said[row]))
        running &= ~terminated
    assert not running.any() and len({len(tokens) for tokens in said}) == 5


def test_the_exact_values_are_those_of_the_same_machine(check_enumeration):
    check_enumeration(Wheel(), seeds=range(6))
