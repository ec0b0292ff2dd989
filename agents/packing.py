"""Variable-length fragments of episodes as batches for one causal forward; pure functions on arrays.

A fragment is a stretch of one episode: its longest context, and for each transition the position whose hidden
state chose the action. One forward over the context serves all of its transitions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Fragment(NamedTuple):
    """A stretch of one episode.

    Attributes:
        ids: (n,) the longest context that any of its transitions sees, without padding.
        position: (t,) index into `ids` of the last token each transition's policy saw.
        transition: (t,) index of each transition in the buffer it comes from.
    """

    ids: np.ndarray
    position: np.ndarray
    transition: np.ndarray


class Packed(NamedTuple):
    """Fragments side by side.

    Attributes:
        ids: (F, n) int64, right-padded with 0.
        row: (N,) which fragment each transition lies in.
        position: (N,) where in that fragment.
    """

    ids: np.ndarray
    row: np.ndarray
    position: np.ndarray


def pack(contexts: list[np.ndarray], positions: list[np.ndarray]) -> Packed:
    """Return contexts (each (n_i,)) and the positions to read in them (each (t_i,)) as one batch."""
    lengths = np.array([len(ids) for ids in contexts])
    ids = np.zeros((len(contexts), lengths.max()), np.int64)
    ids[np.arange(ids.shape[1]) < lengths[:, None]] = np.concatenate(contexts)
    row = np.repeat(np.arange(len(contexts)), [len(position) for position in positions])
    return Packed(ids, row, np.concatenate(positions).astype(np.int64))


def minibatches(sizes: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return a random partition of fragments into groups of about `batch_size` transitions.

    A group is closed by the fragment that brings it to `batch_size`; a last group smaller than half of that
    joins the one before it, so that no update is made of a few stray transitions.

    Args:
        sizes: (F,) transitions in each fragment.
        batch_size: transitions wanted in a group.
        rng: where the order comes from.
    """
    order = rng.permutation(len(sizes))
    groups: list[np.ndarray] = []
    begin, total = 0, 0
    for end, fragment in enumerate(order, start=1):
        total += int(sizes[fragment])
        if total >= batch_size:
            groups.append(order[begin:end])
            begin, total = end, 0
    if begin < len(order):
        rest = order[begin:]
        if groups and 2 * total < batch_size:
            groups[-1] = np.concatenate([groups[-1], rest])
        else:
            groups.append(rest)
    return groups


def stretches(sizes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return a partition of fragments, in their order, into groups of about `batch_size` transitions.

    Args:
        sizes: (F,) transitions in each fragment.
        batch_size: the n-th group holds the fragments that begin within the n-th `batch_size` of all transitions.
    """
    number = (np.cumsum(sizes) - sizes) // batch_size
    return [np.flatnonzero(number == n) for n in np.unique(number)]


def buckets(
    lengths: np.ndarray, waste: float = 0.25, least: int = 1024, most: int | None = None
) -> list[np.ndarray]:
    """Return indices of rows grouped by similar length.

    Args:
        lengths: (F,) tokens in each row.
        waste: padding a group may hold, as a fraction of its real tokens.
        least: real tokens a group holds before it may be closed; below that one call costs more than padding.
        most: tokens a group may hold, padding among them, unless a single row is longer; None does not limit them.
    """
    order = np.argsort(-lengths, kind="stable")
    groups: list[list[int]] = [[]]
    longest, real = 0, 0
    for index in order:
        group = groups[-1]
        longest = longest or int(lengths[index])
        padded = longest * (len(group) + 1)
        wasteful = real >= least and padded > (1 + waste) * (real + lengths[index])
        if group and (wasteful or (most is not None and padded > most)):
            groups.append([])
            longest, real = int(lengths[index]), 0
        groups[-1].append(int(index))
        real += int(lengths[index])
    return [np.array(group) for group in groups]
