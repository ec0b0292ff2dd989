import sys
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from text_envs import ByteTokenizer, CandidateActions, CandidateLayout, FixedCandidates, UtteranceEnv
from text_envs.proposers import CandidateError
from text_envs.streams import RowRandom, Stream
from text_envs.tasks.copy import Copy

TEXTS = ["aa", "ab", "ba"]


def factory():
    return lambda contexts, k, rngs: [TEXTS[:k]] * len(contexts)


class Suggests(Copy):
    """A copy whose task suggests the right answer, and a random one."""

    def candidates(self, said, k, random):
        shown = said.tokens[:, : self.length]
        others = random.integers(self.vocab_size, self.length)
        return [[self.codec.decode(a), self.codec.decode(b)][:k] for a, b in zip(shown, others, strict=True)]


def proposed(propose, k, task=None, seed=1, **keywords):
    env = CandidateActions(UtteranceEnv(task or Copy(length=2)), propose, k, **keywords)
    env.reset(seed=seed)
    return env.candidates


def test_layouts_split_arrays_and_tensors():
    layout = CandidateLayout(3, 2, 4)
    flat = np.arange(2 * layout.width).reshape(2, -1)
    for observations in (flat, pytest.importorskip("torch").from_numpy(flat)):
        context, candidates = layout.split(observations)
        assert tuple(context.shape) == (2, 3) and tuple(candidates.shape) == (2, 2, 4)
        assert context[1].tolist() == [11, 12, 13] and candidates[1, 1].tolist() == [18, 19, 20, 21]
        assert layout.split(observations[0])[1][0].tolist() == [3, 4, 5, 6]


def test_a_list_is_proposed_whole_or_sampled():
    assert proposed(TEXTS, 4) == proposed(TEXTS, 3) == proposed(FixedCandidates(tuple(TEXTS)), 3) == TEXTS
    drawn = [tuple(proposed(TEXTS, 2, seed=seed)) for seed in range(40)]
    assert all(len(set(pair)) == 2 for pair in drawn)
    assert len(set(drawn)) == 6  # every ordered pair


def test_a_list_that_is_proposed_whole_needs_no_generators(monkeypatch):
    env = CandidateActions(UtteranceEnv(Copy(length=2)), ["aa", "ab"], k=2)
    sampled = CandidateActions(UtteranceEnv(Copy(length=2)), ["aa", "ab"], k=1)
    monkeypatch.setattr(RowRandom, "generators", None)
    env.reset(seed=1)
    assert env.candidates == ["aa", "ab"]
    with pytest.raises(CandidateError, match="not callable"):
        sampled.reset(seed=1)


def test_the_tasks_own():
    task = Suggests(length=2)
    env = CandidateActions(UtteranceEnv(task), k=2)
    prompt = task.codec.decode(env.reset(seed=1)[0][:2])
    assert env.candidates[0] == prompt and env.step(0)[1] == 1.0
    assert proposed(None, 1, task) == [prompt]


def test_a_factory_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_proposers", SimpleNamespace(factory=factory))
    assert proposed("my_proposers:factory", 2) == TEXTS[:2]


def test_draws_depend_on_seed_episode_and_turn_alone(guess_number):
    said = []

    def propose(contexts, k, rngs):
        said.append([int(rng.integers(1 << 60)) for rng in rngs])
        return [["1"]] * len(contexts)

    env = CandidateActions(UtteranceEnv(guess_number), propose, 1)
    for _ in range(2):
        env.reset(seed=3)
        while not env.step(0)[2]:
            pass
        env.reset()
    half = len(said) // 2
    assert said[:half] == said[half:] and len({draw for (draw,) in said[:half]}) == half > 2


def test_generators_are_independent_of_the_number_of_rows():
    batch = RowRandom(np.arange(8), 2, Stream.CANDIDATES).generators()
    alone = RowRandom([5], [2], Stream.CANDIDATES).generators()
    assert batch[5].random(3).tolist() == alone[0].random(3).tolist()
    draws = np.array([rng.random() for rng in RowRandom(np.arange(4000), 0, Stream.CANDIDATES).generators()])
    assert abs(draws.mean() - 0.5) < 0.02 and abs(draws.var() - 1 / 12) < 0.005


def test_random_utterances_are_uniform_over_legal_tokens(guess_number):
    texts = [text for seed in range(30) for text in proposed("random", 50, guess_number, seed)]
    assert all(1 <= len(text) <= 2 and text.isdigit() for text in texts)
    first = np.bincount([int(text[0]) for text in texts], minlength=10)
    assert abs(first - 150).max() < 60  # five standard deviations
    short = sum(len(text) == 1 for text in texts)  # the end is one of eleven legal second tokens
    assert abs(short / 1500 - 1 / 11) < 0.04


def test_random_utterances_end_like_the_tasks(stars):
    texts = proposed("random", 2000, stars)
    lengths = np.bincount([len(text) for text in texts], minlength=6) / 2000
    assert abs(lengths[:5] - [1 / 3 * (2 / 3) ** n for n in range(5)]).max() < 0.05 and max(map(len, texts)) == 5


def test_random_bytes_fit_the_budget():
    env = gym.make("text_envs/Sentiment-v0", tokenizer=ByteTokenizer(), level="utterance", max_new_tokens=6)
    env = CandidateActions(env, "random", 20)
    env.reset(seed=1)
    assert len(env.candidates) == 20 and all(len(text.encode()) <= 6 for text in env.candidates)


@pytest.mark.parametrize(
    ("propose", "message"),
    [
        ([["a\ud800"]], r"candidate 'a\\ud800' for the context '\w\w' holds a lone surrogate.*mend it with"),
        ([["a", "a!b"]], r"'a!b'.* has no token for '!'; leave that out, or"),
        ([["aaa"]], "has 3 tokens, more than max_new_tokens=2; shorten it or raise max_new_tokens"),
        ([[""]], "says nothing.*look absent; leave it out"),
        ([[3]], "candidate 3 .* is a int; propose texts"),
        ([["a"] * 4], "a list of 1 to k=3 texts"),
        ([[]], "a list of 1 to k=3 texts"),
        (["aa"], "a list of 1 to k=3 texts"),
        ([["a"], ["b"]], "for 1 contexts; return a list with one list"),
        ("a", "returned 'a' for 1 contexts"),
        (None, "returned None for 1 contexts"),
    ],
)
def test_what_cannot_be_said_is_refused(propose, message):
    with pytest.raises(CandidateError, match=message):
        proposed(lambda contexts, k, rngs: propose, 3)


def test_a_text_too_long_for_its_segment_or_its_space_is_refused(stars):
    assert proposed(["*!"], 1, stars, candidate_length=3) == ["*!"]  # and the end token
    with pytest.raises(CandidateError, match="says 3 tokens, more than candidate_length=2; shorten it or raise"):
        proposed(["*!"], 1, stars, candidate_length=2)
    assert proposed(["*!*!*"], 1, stars) == ["*!*!*"]  # the budget closes it
    words = gym.make("text_envs/Sentiment-v0", level="utterance", max_new_tokens=2)
    with pytest.raises(
        CandidateError, match="has 70008 characters, too many for UnicodeText.*take white space out"
    ):
        CandidateActions(words, [f"good{' ' * 70_000}good"], 1).reset(seed=1)


def test_a_proposer_that_raises_is_named_with_what_it_got():
    def broken(contexts, k, rngs):
        return contexts[99]

    with pytest.raises(
        CandidateError, match=r"propose .*broken raised IndexError.* on 1 contexts, the first '\w\w'"
    ):
        proposed(broken, 1)


@pytest.mark.parametrize(
    ("propose", "error", "message"),
    [
        ([], ValueError, "needs at least one text"),
        (["a", 3], TypeError, r"holds texts, got 3 \(int\)"),
        (3, TypeError, "propose is a function .*got 3"),
        (iter(["a"]), TypeError, "propose=<list_iterator .*read only once.*pass a list or a function"),
        ("rnd", ValueError, "propose='rnd' names no proposer: it is neither"),
        ("no.such.module:factory", ValueError, "names no proposer: No module named"),
        ("text_envs:nothing", ValueError, "names no proposer: .*nothing"),
        (None, ValueError, "Copy has no candidates of its own"),
    ],
)
def test_wrong_proposers_are_refused(propose, error, message):
    with pytest.raises(error, match=message):
        proposed(propose, 2)
