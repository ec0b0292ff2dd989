"""Exact values of single-turn tasks: dynamic programming over a finite machine that reads what is said.

All functions are pure. Games over several turns do not live here but in `belief.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

CLOSED = -1
DIGITS = 12  # sums of fractions are off by less
MAX_WORK = 250_000_000  # state, token and time triples; about ten seconds on one core
Floats = NDArray[np.float64]


class TooLarge(ValueError):
    """A task has more states than can be solved in reasonable time."""


@dataclass(frozen=True, eq=False)
class Automaton:
    """What utterances earn, as a finite machine that reads their tokens.

    Attributes:
        next: (S, V) the state after each token, `CLOSED` where the token closes the utterance.
        gain: (S, V) by how much each token changes the utterance's score. Where a token is masked, the
            difference between the task's invalid reward and the score so far.
        start: (N,) the state in which the utterance after each of N prompts begins.
        horizon: T, the number of tokens at which the budget closes the utterance.
        empty: the score of the empty utterance.
        legal: (S, V) True where a token is legal; None: all are.

    Raises:
        ValueError: if shapes do not fit or a state does not exist.
        TooLarge: if there are too many states.
    """

    next: NDArray[np.integer]
    gain: Floats
    start: NDArray[np.integer]
    horizon: int
    empty: float = 0.0
    legal: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        shapes = {self.next.shape, self.gain.shape, self.next.shape if self.legal is None else self.legal.shape}
        if len(shapes) > 1 or self.next.ndim != 2:
            raise ValueError(f"next, gain and legal are (S, V) arrays of one shape, got {sorted(shapes)}")
        check_size(len(self.next), self.next.shape[1], self.horizon)
        low, high = min(self.next.min(), self.start.min()), max(self.next.max(), self.start.max())
        if low < CLOSED or high >= len(self.next) or self.start.min() < 0:
            raise ValueError(
                f"states are 0..{len(self.next) - 1} (or CLOSED, -1, after a token), got {low}..{high}"
            )
        if self.legal is not None and not self.legal.any(axis=1).all():
            raise ValueError(f"state {int(np.argmin(self.legal.any(axis=1)))} has no legal token")

    def lookahead(self, value: Floats) -> Floats:
        """Return (S, V): each token's gain and the (S,) value of the state it leads to."""
        return self.gain + np.append(value, 0.0)[self.next]  # CLOSED, -1, picks the 0

    def uniform(self) -> Floats:
        """Return (S, V) probabilities, uniform over the legal tokens."""
        legal = np.ones(self.next.shape) if self.legal is None else self.legal.astype(np.float64)
        return legal / legal.sum(axis=1, keepdims=True)


def spelling(wanted: NDArray[np.int64], vocab_size: int, end_token_id: int | None = None) -> Automaton:
    """Return the machine that pays an equal share of 1 for each token that is right at its position.

    Args:
        wanted: (N, T) what to say after each of N prompts, negative where no token is right.
        vocab_size: V.
        end_token_id: the token that closes the utterance, None: only the budget does.
    """
    count, horizon = wanted.shape
    states = count * horizon
    check_size(states, vocab_size, horizon)
    prompt, place = np.nonzero(wanted >= 0)
    gain = np.zeros((states, vocab_size))
    gain[prompt * horizon + place, wanted[prompt, place]] = 1 / np.bincount(prompt, minlength=count)[prompt]
    onward = np.arange(1, states + 1).reshape(count, horizon)
    onward[:, -1] = CLOSED
    following = np.repeat(onward.reshape(-1, 1), vocab_size, axis=1)
    if end_token_id is not None:
        following[:, end_token_id] = CLOSED
    return Automaton(following, gain, np.arange(count) * horizon, horizon)


def check_size(states: int, tokens: int, horizon: int) -> None:
    """Raise if a machine cannot be solved in reasonable time; to be called before its arrays are made.

    Raises:
        TooLarge: with the number of states.
    """
    work = states * tokens * horizon
    if work > MAX_WORK:
        raise TooLarge(
            f"the exact solution visits {states:,} states x {tokens:,} tokens x {horizon:,} positions "
            f"= {work:.1e}, more than {MAX_WORK:.0e}; lower the vocabulary size or the length"
        )


def solve(automaton: Automaton) -> Floats:
    """Return the (N,) largest expected scores.

    Tokens outside the mask take part: they close the utterance, which may be the best that can be done.
    """
    value = np.zeros(len(automaton.next))
    for _ in range(automaton.horizon):
        value = automaton.lookahead(value).max(axis=1)
    return automaton.empty + value[automaton.start]


def best_actions(automaton: Automaton) -> NDArray[np.int32]:
    """Return (T, S), a token that earns the most at each position in each state.

    Of equals it is the last that is legal: where that is the end token, the utterance is no longer than it must be.
    """
    value = np.zeros(len(automaton.next))
    actions = np.empty((automaton.horizon, len(value)), np.int32)
    for t in reversed(range(automaton.horizon)):
        ahead = automaton.lookahead(value)
        actions[t] = _last_best(ahead, automaton.legal)
        value = np.take_along_axis(ahead, actions[t, :, None], 1)[:, 0]
    return actions


def best_utterances(automaton: Automaton, actions: NDArray[np.int32] | None = None) -> list[list[int]]:
    """Return for each of the N prompts the tokens of an utterance that earns the most.

    Args:
        automaton: the machine.
        actions: (T, S), its `best_actions` where they are known.
    """
    actions = best_actions(automaton) if actions is None else actions
    utterances = []
    for first in automaton.start.tolist():
        said: list[int] = []
        state = first
        while state != CLOSED and len(said) < automaton.horizon:
            token = int(actions[len(said), state])
            said.append(token)
            state = int(automaton.next[state, token])
        utterances.append(said)
    return utterances


def evaluate(automaton: Automaton, policy: ArrayLike) -> Floats:
    """Return the (N,) expected scores of a Markov policy.

    Args:
        automaton: the machine.
        policy: (S, V) probabilities, or (T, S, V) where they depend on the position.

    Raises:
        ValueError: if the shape is another or a row does not sum to 1.
    """
    steps = _steps(automaton, policy)
    value = np.zeros(len(automaton.next))
    for t in reversed(range(automaton.horizon)):
        value = (steps[t] * automaton.lookahead(value)).sum(axis=1)
    return automaton.empty + value[automaton.start]


@dataclass(frozen=True)
class FrontierPoint:
    """The best that can be earned at some distance from a reference policy; means over prompts.

    Attributes:
        beta: the price of a nat.
        value: reward - beta * kl, the soft value.
        reward: expected score.
        kl: KL(policy || reference) of whole utterances, nats.
    """

    beta: float
    value: float
    reward: float
    kl: float


def regularized(automaton: Automaton, reference: ArrayLike, beta: float) -> tuple[FrontierPoint, Floats]:
    """Return the policy that maximises expected score - beta * KL to a reference, and where it lies.

    The soft value is V_t(s) = beta log sum_a ref(a|s) exp((gain(s, a) + V_{t+1}(s')) / beta), and the policy
    is proportional to the summands.

    Args:
        automaton: the machine; its prompts are equally likely.
        reference: (S, V) probabilities, positive on every legal token.
        beta: the price of a nat, positive.

    Returns:
        The point, and (T, S, V) probabilities.

    Raises:
        ValueError: if beta is not positive and finite, or the reference lacks support.

    Source: Todorov 2009, "Efficient computation of optimal actions", doi:10.1073/pnas.0710743106; Ziebart
    2010, "Modeling purposeful adaptive behavior with the principle of maximum causal entropy".
    """
    if not 0 < beta < np.inf:
        raise ValueError(f"beta is the price of a nat, positive and finite, got {beta}")
    prior = _support(automaton, reference)
    with np.errstate(divide="ignore"):
        log_prior = np.log(prior)
    value = np.zeros(len(prior))
    kl = np.zeros(len(prior))
    reward = np.zeros(len(prior))
    policy = np.empty((automaton.horizon, *prior.shape))
    for t in reversed(range(automaton.horizon)):
        logits = log_prior + automaton.lookahead(value) / beta
        top = logits.max(axis=1, keepdims=True)
        log_sum = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
        value = beta * log_sum[:, 0]
        policy[t] = np.exp(logits - log_sum)
        log_ratio = np.where(policy[t] > 0, logits - log_sum - np.where(prior > 0, log_prior, 0.0), 0.0)
        onward = np.append(kl, 0.0)[automaton.next]
        kl = (policy[t] * (log_ratio + onward)).sum(axis=1)
        reward = (policy[t] * automaton.lookahead(reward)).sum(axis=1)
    mean = [float(part[automaton.start].mean()) for part in (value, reward, kl)]
    point = FrontierPoint(beta, automaton.empty + mean[0], automaton.empty + mean[1], mean[2])
    return point, policy


def frontier(automaton: Automaton, reference: ArrayLike, betas: Sequence[float]) -> list[FrontierPoint]:
    """Return the points of the reward-KL frontier for some prices of a nat; see `regularized`."""
    return [regularized(automaton, reference, beta)[0] for beta in betas]


@dataclass(frozen=True)
class Values:
    """The two ends of a task's scale, expectations over its prompts.

    Attributes:
        optimal: the largest expected clean return.
        random: the expected clean return of actions uniform over the legal ones.
        optimal_error: standard error of `optimal`, 0 unless prompts were sampled.
        random_error: standard error of `random`.
        prompts: prompts that were solved.
        states: states of the machine that was solved.
        method: every prompt was solved ("enumerated"), some that stand for all ("symmetry"), or a sample.
    """

    optimal: float
    random: float
    optimal_error: float = 0.0
    random_error: float = 0.0
    prompts: int = 1
    states: int = 1
    method: Literal["enumerated", "symmetry", "sampled"] = "symmetry"


def values(
    automaton: Automaton, method: Literal["enumerated", "symmetry", "sampled"], weights: ArrayLike | None = None
) -> Values:
    """Return the values of a machine whose prompts have the given (N,) probabilities, or are equally likely."""
    count = len(automaton.start)
    shares = np.full(count, 1 / count) if weights is None else np.asarray(weights, np.float64)
    ends = np.stack([solve(automaton), evaluate(automaton, automaton.uniform())])  # (2, N)
    means = ends @ shares
    errors = ends.std(axis=1, ddof=1) / np.sqrt(count) if method == "sampled" else np.zeros(2)
    return Values(
        optimal=round(float(means[0]), DIGITS),
        random=round(float(means[1]), DIGITS),
        optimal_error=float(errors[0]),
        random_error=float(errors[1]),
        prompts=count,
        states=len(automaton.next),
        method=method,
    )


def _last_best(worth: Floats, legal: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Return (S,) the last of the best tokens, of the legal ones among them where there are any."""
    if legal is not None:
        best = worth == worth.max(axis=1, keepdims=True)
        both = best & legal
        worth = np.where(both.any(axis=1, keepdims=True), both, best)
    return worth.shape[1] - 1 - worth[:, ::-1].argmax(axis=1)


def _steps(automaton: Automaton, policy: ArrayLike) -> Floats:
    """Return a checked policy as (T, S, V) probabilities."""
    given = np.asarray(policy, np.float64)
    shape = automaton.horizon, *automaton.next.shape
    if given.shape not in (shape, shape[1:]):
        raise ValueError(f"a policy has the shape {shape[1:]} (S, V) or {shape} (T, S, V), got {given.shape}")
    total = given.sum(axis=-1)
    if (given < 0).any() or not np.allclose(total, 1.0):
        raise ValueError(
            f"a policy's probabilities are not negative and sum to 1, got sums {total.min()}..{total.max()}"
        )
    return np.broadcast_to(given, shape)


def _support(automaton: Automaton, reference: ArrayLike) -> Floats:
    """Return a checked reference, restricted to the legal tokens."""
    given = _steps(automaton, reference)[0] if np.ndim(reference) == 2 else None
    if given is None:
        raise ValueError(f"a reference has the shape {automaton.next.shape} (S, V), got {np.shape(reference)}")
    legal = automaton.uniform() > 0
    if (given[legal] == 0).any():
        state, token = np.argwhere(legal & (given == 0))[0]
        raise ValueError(
            f"the reference gives token {token} no probability in state {state}: the KL to it would be infinite; "
            "smooth it"
        )
    restricted = np.where(legal, given, 0.0)
    return restricted / restricted.sum(axis=1, keepdims=True)
