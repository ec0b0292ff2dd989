"""Brackets: close what is open, the last one first."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..exact import CLOSED, Automaton, check_size
from ..streams import RowRandom, Stream
from ..tokenizer import CharacterTokenizer
from .base import Samples, Score, Task, Utterances, a_bool, at_least

PAIRS = ("()", "[]", "{}", "<>")


class Brackets(Task):
    """Complete a word of the Dyck language, in which every bracket is closed by its own kind.

    Shown: the beginning of a word, uniform over those with `depth` open brackets and `pairs` closed ones. Said:
    brackets, at most `length` tokens; the end action closes the utterance and counts. More brackets may be
    opened. Earns: 1 if the whole word is balanced; 1 - open / `depth`, at least 0, if it breaks off
    with brackets open; and 0 if a bracket ever closed another kind or nothing, whatever follows. So under
    `dense=True` every bracket closed pays 1 / `depth`, and a mistake takes everything back. Random tokens earn
    about 0.01 with the defaults, and the best is 1.

    Args:
        kinds: kinds of brackets, 1 to 4; V = 2 `kinds` + 1.
        depth: open brackets to be closed.
        pairs: closed pairs of brackets in the prompt, which has `depth` + 2 `pairs` symbols.
        length: the budget, at least `depth`.
        masked: mask closing brackets that would be mistakes; saying one closes the utterance and earns -1.

    Raises:
        ValueError: if a number is out of range.
        TypeError: if a number is no integer, or `masked` no bool.

    Source: Hewitt et al. 2020, "RNNs can generate bounded hierarchical languages with optimal memory",
    arXiv:2010.07515; Suzgun et al. 2019, "Memory-augmented recurrent neural networks can learn generalized Dyck
    languages", arXiv:1911.03329.
    """

    family = "diagnostic"
    one_machine = True
    invalid_reward = -1.0

    def __init__(
        self, *, kinds: int = 3, depth: int = 3, pairs: int = 1, length: int = 8, masked: bool = False
    ) -> None:
        if at_least(1, kinds, "kinds") > len(PAIRS):
            raise ValueError(f"there are {len(PAIRS)} kinds of brackets, {' '.join(PAIRS)}, got kinds={kinds}")
        self.kinds = kinds
        self.depth = at_least(1, depth, "depth")
        self.pairs = at_least(0, pairs, "pairs")
        self.masked = a_bool(masked, "masked")
        opening, closing = ("".join(side) for side in zip(*PAIRS[:kinds], strict=True))
        super().__init__(
            CharacterTokenizer(opening + closing, end=True),
            max_prompt_tokens=depth + 2 * pairs,
            max_new_tokens=at_least(depth, length, "length"),
        )
        self._opens = _chances(depth, pairs)
        # What each token, and padding, does to the number of open brackets, and its kind.
        self._change = np.repeat([1, -1, 0], [kinds, kinds, 2])
        self._kind = np.arange(2 * kinds + 2) % kinds

    def sample(self, random: RowRandom) -> Samples:
        """Return beginnings with `depth` brackets open; the column "open" holds their kinds, outermost first."""
        count, width = len(random), self.max_prompt_tokens
        chance, kind = random.random(width).T, random.integers(self.kinds, width).T  # (P, n)
        tokens = np.empty((width, count), np.int64)
        stack = np.zeros((self.depth + self.pairs, count), np.int64)
        height, row, slots = np.zeros(count, np.int64), np.arange(count), stack.reshape(-1)
        for t in range(width):
            opens = chance[t] < self._opens[t].take(height)
            slot = (height - ~opens) * count + row
            slots[slot] = said = np.where(opens, kind[t], slots.take(slot))
            tokens[t] = np.where(opens, said, said + self.kinds)
            height += np.where(opens, 1, -1)
        return Samples(tokens.T, columns={"open": stack[: self.depth].T})

    def score(self, said: Utterances) -> Score:
        """Return 1 less 1 / depth for each bracket that is open, and 0 after a mistake."""
        right, height, _ = self._read(said)
        return Score(np.where(right, np.maximum(1 - height / self.depth, 0.0), 0.0))

    @property
    def restricts(self) -> bool:
        """Whether mistakes are masked."""
        return self.masked

    def action_mask(self, said: Utterances) -> NDArray[np.bool_]:
        """Return all tokens but the closing brackets that would be mistakes."""
        innermost = self._read(said)[2]
        mask = np.ones((len(said), self.vocab_size), np.bool_)
        mask[:, self.kinds : 2 * self.kinds] = innermost[:, None] == np.arange(self.kinds)
        return mask

    def cases(self) -> tuple[Samples, Literal["symmetry"], None]:
        """Return one prompt: renaming the kinds, at each height anew, turns its machine into any other's."""
        return self.sample(RowRandom(0, 0, Stream.PROMPT)), "symmetry", None

    def automaton(self, samples: Samples) -> Automaton:
        """Return the machine whose states are the stacks of open brackets, and a last one for what earns 0.

        A stack is a number: 0 where it is empty, s k + c + 1 for the bracket of kind c on the stack s. One so
        high that the budget cannot bring it below `depth` again earns 0 too.
        """
        kinds, depth = self.kinds, self.depth
        most = depth + (self.max_new_tokens - 1) // 2
        lost = sum(kinds**height for height in range(most + 1))
        check_size(lost + 1, self.vocab_size, self.max_new_tokens)
        height = np.repeat(np.arange(most + 1), kinds ** np.arange(most + 1))
        stack, kind = np.arange(lost), np.arange(kinds)
        following = np.full((lost + 1, self.vocab_size), lost)
        following[:-1, :kinds] = np.minimum(stack[:, None] * kinds + kind + 1, lost)
        closes = stack[1:], kinds + (stack[1:] - 1) % kinds
        following[closes] = (stack[1:] - 1) // kinds
        following[:, -1] = CLOSED
        worth = np.append(np.maximum(1 - height / depth, 0.0), 0.0)
        gain = np.where(following == CLOSED, 0.0, worth[following] - worth[:, None])
        legal = np.ones(gain.shape, np.bool_)
        if self.masked:
            legal[:-1, kinds:-1] = False
            legal[closes] = True
            following[~legal] = CLOSED
            gain = np.where(legal, gain, self.invalid_reward - worth[:, None])
        start = np.zeros(len(samples.tokens), np.int64)
        for opened in samples.columns["open"].T:
            start = start * kinds + opened + 1
        return Automaton(following, gain, start, self.max_new_tokens, legal=legal if self.masked else None)

    def _read(self, said: Utterances) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
        """Return what was said of the word, up to here.

        Returns:
            (n,) True without a mistake; (n,) brackets that are open; (n,) the kind of the innermost one, -1: none.
        """
        tokens, count = said.tokens[:, self.max_prompt_tokens :].T, len(said)  # (T, n)
        change, kind = self._change.take(tokens), self._kind.take(tokens)
        height = self.depth + change.cumsum(axis=0)
        # A slot for each height; the lowest is below the outermost bracket and matches no kind.
        stack = np.full((2 + self.depth + len(tokens), count), -1)
        stack[1 : self.depth + 1] = said.columns["open"].T
        row, slots = np.arange(count), stack.reshape(-1)
        slot = np.maximum(height + (change <= 0), 0) * count + row  # of each bracket, or the one it closes
        before = np.empty_like(kind)
        for t in range(len(tokens)):
            before[t] = slots.take(slot[t])
            slots[slot[t]] = kind[t]
        right = ((change >= 0) | (before == kind)).all(axis=0)
        return right, height[-1], slots.take(np.maximum(height[-1], 0) * count + row)


def _chances(depth: int, pairs: int) -> NDArray[np.float64]:
    """Return (P, H) chances that the bracket at a position opens, where so many are open before it.

    They make all beginnings of `depth` open brackets and `pairs` closed ones equally likely.
    """
    width, heights = depth + 2 * pairs, depth + pairs + 1
    chances = np.zeros((width, heights))
    ways = [int(height == depth) for height in range(heights)]  # to go on from each height to the prompt's end
    for t in reversed(range(width)):
        up, down = [*ways[1:], 0], [0, *ways[:-1]]
        ways = [a + b for a, b in zip(up, down, strict=True)]
        chances[t] = [a / max(both, 1) for a, both in zip(up, ways, strict=True)]
    return chances
