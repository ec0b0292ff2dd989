"""Tasks that exercise what the first tasks do not: several turns, masks, replies and utterances of any length."""

import numpy as np
import pytest

from text_envs.tasks.base import Replies, Samples, Score, Task, count, pad
from text_envs.tokenizer import CharacterTokenizer


class GuessNumber(Task):
    """Guess a number below 50 in three turns; the reply is "<" or ">>", and the episode ends when it is found.

    An utterance is one or two digits and the end token; other tokens are masked, and cost 2.
    """

    invalid_reward = -2.0
    digits, end = 10, 13

    def __init__(self):
        tokenizer = CharacterTokenizer("0123456789<>?", end=True)
        super().__init__(tokenizer, max_prompt_tokens=2, max_new_tokens=3, context_length=2 + 3 * 3 + 2 * 2)

    def sample(self, random):
        secret = random.integers(50, 1)[:, 0]
        lengths = 1 + secret % 2  # "?" or "??": prompts differ in length
        tokens = np.where(np.arange(2) < lengths[:, None], 12, self.vocab_size)
        return Samples(tokens, lengths, {"secret": secret})

    def score(self, said):
        return Score(np.where(self._guess(said) == said.columns["secret"], 1.0, -0.1))

    def reply(self, said, random):
        guess, secret = self._guess(said), said.columns["secret"]
        over = (guess == secret) | (said.turn == 2)
        words = ["" if end else "<" if g > s else ">>" for end, g, s in zip(over, guess, secret, strict=True)]
        return Replies(*pad([self.codec.encode(word) for word in words], self.vocab_size), over)

    def action_mask(self, said):
        spoken = said.length - said.start
        mask = np.zeros((len(said), self.vocab_size), bool)
        mask[spoken < 2, : self.digits] = True
        mask[spoken > 0, self.end] = True
        return mask

    def _guess(self, said):
        text = [self.codec.decode(ids) for ids in said.ids()]
        return np.array([int(word) if word.isdigit() else -1 for word in text])


class Stars(Task):
    """Say up to four symbols and an end token; each "*" is worth 1, an utterance of "!" alone nothing."""

    def __init__(self):
        tokenizer = CharacterTokenizer("*!", end=True)
        super().__init__(tokenizer, max_prompt_tokens=1, max_new_tokens=5)

    def sample(self, random):
        return Samples(random.integers(2, 1))

    def score(self, said):
        return Score(count(said.tokens[:, 1:] == 0))


@pytest.fixture
def guess_number():
    return GuessNumber()


@pytest.fixture
def stars():
    return Stars()


@pytest.fixture
def same():
    """Assert that two nested values are equal, types and dtypes included."""

    def check(a, b, path="value"):
        assert type(a) is type(b), f"{path}: {type(a)} and {type(b)}"
        if isinstance(a, dict):
            assert a.keys() == b.keys(), f"{path}: {sorted(a)} and {sorted(b)}"
            for key in a:
                check(a[key], b[key], f"{path}[{key!r}]")
        elif isinstance(a, tuple | list):
            assert len(a) == len(b), path
            for i, pair in enumerate(zip(a, b, strict=True)):
                check(*pair, f"{path}[{i}]")
        elif isinstance(a, np.ndarray):
            assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{path}: {a.shape, a.dtype} and {b.shape, b.dtype}"
            if a.dtype == object:
                check(a.tolist(), b.tolist(), path)
            else:
                np.testing.assert_array_equal(a, b, path)
        else:
            assert a == b or (a != a and b != b), f"{path}: {a!r} and {b!r}"

    return check
