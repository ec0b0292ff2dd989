"""Packing is bookkeeping: nothing is lost, doubled or moved."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from agents.packing import buckets, minibatches, pack, stretches

sizes = st.lists(st.integers(1, 40), min_size=1, max_size=30).map(np.array)


@given(sizes, st.integers(1, 100), st.integers(0, 2**32))
def test_minibatches_are_a_partition_of_about_the_wanted_size(sizes: np.ndarray, wanted: int, seed: int) -> None:
    groups = minibatches(sizes, wanted, np.random.default_rng(seed))
    assert sorted(np.concatenate(groups)) == list(range(len(sizes)))
    totals = [sizes[group].sum() for group in groups]
    assert all(total >= wanted for total in totals[:-1])
    assert all(total < wanted + 40 for total in totals[:-1])
    assert len(groups) == 1 or 2 * totals[-1] >= wanted


def test_minibatches_differ_from_epoch_to_epoch_and_repeat_with_the_seed() -> None:
    rng = np.random.default_rng(0)
    first, second = (np.concatenate(minibatches(np.ones(50, int), 10, rng)) for _ in range(2))
    again = np.concatenate(minibatches(np.ones(50, int), 10, np.random.default_rng(0)))
    assert (first != second).any() and (first == again).all()


@given(sizes, st.integers(1, 100))
def test_stretches_are_a_partition_in_order_of_about_the_wanted_size(sizes: np.ndarray, wanted: int) -> None:
    groups = stretches(sizes, wanted)
    assert np.concatenate(groups).tolist() == list(range(len(sizes)))
    totals = [sizes[group].sum() for group in groups]
    assert all(total < wanted + sizes.max() for total in totals)
    assert len(groups) <= -(-sizes.sum() // wanted)
    assert stretches(np.array([]), wanted) == []


@given(sizes, st.floats(0, 2), st.integers(1, 200))
def test_buckets_are_a_partition_that_wastes_little(lengths: np.ndarray, waste: float, least: int) -> None:
    groups = buckets(lengths, waste, least)
    assert sorted(np.concatenate(groups)) == list(range(len(lengths)))
    for group in groups:
        real, padded = lengths[group].sum(), lengths[group].max() * len(group)
        assert padded <= (1 + waste) * real + 1e-9 or real - lengths[group].min() < least + lengths[group].max()


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(0, 2**32))
def test_pack_reads_the_right_tokens(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    contexts = [rng.integers(1, 99, size=n) for n in lengths]
    positions = [np.sort(rng.permutation(n)[: rng.integers(1, n + 1)]) for n in lengths]
    packed = pack(contexts, positions)
    expected = np.concatenate([c[p] for c, p in zip(contexts, positions, strict=True)])
    assert (packed.ids[packed.row, packed.position] == expected).all()
    assert (packed.ids != 0).sum() == sum(lengths) and packed.ids.shape == (len(lengths), max(lengths))
