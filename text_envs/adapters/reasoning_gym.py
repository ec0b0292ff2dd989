"""ReasoningGym: the procedural datasets of reasoning-gym as one task; needs the extra `text-envs[suites]`."""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from ..streams import RowRandom, fold, seed_to_word
from ..tasks.base import Samples, Score, Task, Utterances, at_least, pad
from ..tokenizer import ByteTokenizer, as_tokenizer
from . import integrals
from .answers import harmless
from .suite import import_suite, isolated, refuse_unknown

EXCLUDED: dict[str, str] = {
    "boxnet": "its entries have no answer, and its scorer breaks on answers in the wrong format",
    "coin_flip": "its scorer pays a right first digit in full, so 0 for most of its probabilities",
    "composite": "it is a mixture of other datasets, each of which has its own name here",
    "game_of_life_halting": "its scorer pays every answer in full",
    "graph_color": "its entries have no answer",
    "propositional_logic": "its entries have no answer",
    "rubiks_cube": "its entries have no answer",
    "rush_hour": "its entries have no answer",
}
UNREADABLE: dict[str, tuple[type[Exception], ...]] = {  # what scorers raise on an answer in the wrong format
    "calendar_arithmetic": (OverflowError,),
    "game_of_life": (KeyError, TypeError),
    "prime_factorization": (ValueError,),
    "time_intervals": (OverflowError,),
}

LISTS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
REMEMBERED = 32  # datasets, for further environments of the same one; a task holds its own

Entry = Mapping[str, Any]


class ReasoningGym(Task):
    """Answer a question of a procedural dataset; the dataset's own scorer says what the answer earns.

    Shown: the question of one of `size` entries, each equally likely. Said: the answer, up to `max_new_tokens`
    tokens; the end token closes it and counts. Earns: the dataset's score of the answer, 0 to 1, where the
    entry's own answer earns 1 and a wrong one often a little. An answer that the scorer cannot read, or would run
    as a program, earns what no answer earns; one that the tokenizer cannot say (utterance level only) earns 0.
    The two datasets of integrals have a scorer of ours (`integrals.py`), and their unsolved entries are solved.

    The entries are made up front and kept by the task and, of the last datasets, for the process: `dataset`,
    `config`, `dataset_seed` and `size` say all about them, `reset(seed=...)` only which are shown. An entry takes
    below a millisecond in most datasets, but 0.1 to 0.6 s in futoshiki, knight_swap, sokoban and zebra_puzzles, and
    rarely a minute in number_sequence.

    Args:
        dataset: a name of reasoning-gym; those without an answer, or that pay wrong ones, are left out.
        config: parameters of the dataset, such as {"max_terms": 3}.
        dataset_seed: makes the entries; another seed is a test set.
        size: number of entries.
        tokenizer: ours or one of transformers; None: bytes, the same for every dataset and seed.
        max_new_tokens: T, the budget of an answer; None: the power of two that has room for every entry's own.
        max_prompt_tokens: room for the question; None: the longest.

    Raises:
        ImportError: if reasoning-gym is not installed.
        ValueError: if a dataset or a parameter is unknown or refused, or a question does not fit.

    Source: Stojanovski et al. 2025, "Reasoning Gym: reasoning environments for reinforcement learning with
    verifiable rewards", arXiv:2505.24760.
    """

    family = "other suite"

    def __init__(
        self,
        *,
        dataset: str = "basic_arithmetic",
        config: Mapping[str, Any] | None = None,
        dataset_seed: int = 0,
        size: int = 100,
        tokenizer: Any = None,
        max_new_tokens: int | None = None,
        max_prompt_tokens: int | None = None,
    ) -> None:
        at_least(1, size, "size")
        try:
            parameters = json.dumps(dict(config or {}), sort_keys=True)
        except (TypeError, ValueError) as error:
            raise TypeError(f"config is a dict that JSON can write, got {config!r}: {error}") from error
        self._key = dataset, parameters, seed_to_word(dataset_seed), size
        self.tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
        codec = as_tokenizer(self.tokenizer)
        prompts = [codec.encode(entry["question"]) for entry in self.entries]
        longest = max(map(len, prompts))
        room = longest if max_prompt_tokens is None else max_prompt_tokens
        if longest > room:
            raise ValueError(
                f"the longest question of {dataset} has {longest} tokens, more than max_prompt_tokens={room}; "
                "raise it, or make the questions shorter with config="
            )
        if max_new_tokens is None:
            answers = [entry["answer"] for entry in self.entries if not codec.unknown(entry["answer"])]
            max_new_tokens = 1 << max((len(codec.encode(answer)) for answer in answers), default=1).bit_length()
        super().__init__(self.tokenizer, max_prompt_tokens=room, max_new_tokens=max_new_tokens)
        self._tokens, self._lengths = pad(prompts, self.vocab_size)

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The entries as reasoning-gym made them: question, answer, metadata."""
        return _entries(*self._key)

    @cached_property
    def _dataset(self) -> Any:
        """The dataset, for its scorer."""
        return _dataset(*self._key)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of copies what the process keeps, or makes again from the settings."""
        return {name: value for name, value in self.__dict__.items() if name not in ("entries", "_dataset")}

    def sample(self, random: RowRandom) -> Samples:
        """Return uniformly drawn questions."""
        index = random.integers(len(self._lengths), 1)[:, 0]
        return Samples(self._tokens[index], self._lengths[index], {"index": index})

    def score(self, said: Utterances) -> Score:
        """Return the dataset's scores of the answers."""
        answers = [self.codec.decode(ids) for ids in said.ids()]
        entries = [self.entries[i] for i in said.columns["index"].tolist()]
        value = [self._score(answer, entry) for answer, entry in zip(answers, entries, strict=True)]
        details = {"answer": answers, "reference": [entry["answer"] for entry in entries]}
        return Score(np.array(value, np.float64), details)

    def demonstrate(self, said: Utterances) -> list[list[int]]:
        """Return the entries' own answers."""
        return [self.whole(self.entries[i]["answer"]) for i in said.columns["index"].tolist()]

    def _score(self, answer: str, entry: Entry) -> float:
        name, dataset = self._key[0], self._dataset
        with isolated(0, numpy=False):
            try:
                return float(dataset.score_answer(answer if harmless(name, answer) else None, entry))
            except UNREADABLE.get(name, ()):
                return float(dataset.score_answer(None, entry))
            except Exception as error:
                raise ValueError(f"reasoning-gym's {name} raised {error!r} on the answer {answer!r}") from error


class _Ordered(set):
    """A set of strings that is iterated in order, whatever PYTHONHASHSEED is."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(super().__iter__()))

    def __sub__(self, other: Any) -> _Ordered:
        return _Ordered(super().__sub__(other))


@lru_cache(maxsize=REMEMBERED)
def _dataset(name: str, config: str, seed: int, size: int) -> Any:
    """Return a dataset.

    Raises:
        ImportError: if reasoning-gym is not installed.
        ValueError: if the name, or a parameter or its value, is refused.
    """
    import_suite("reasoning_gym", "reasoning-gym")
    known = import_suite("reasoning_gym.factory", "reasoning-gym").DATASETS
    refuse_unknown("dataset", name, set(known) - set(EXCLUDED), EXCLUDED)
    make, configure = known[name]
    parameters = json.loads(config)
    own = {field.name for field in dataclasses.fields(configure)} - {"seed", "size"}
    if unknown := sorted(set(parameters) - own):
        raise ValueError(
            f"{name} has no parameter {', '.join(map(repr, unknown))} in config=; it has {', '.join(sorted(own))} "
            "(seed and size are dataset_seed= and size=)"
        )
    with isolated(seed):
        try:  # entry i is made from seed + i: far apart, neighbouring seeds share no entry
            dataset = make(configure(**parameters, seed=_word(seed, 0) >> 33, size=size))
        except (AssertionError, TypeError, ValueError) as error:
            raise ValueError(f"{name} refuses config={parameters}: {error}") from error
    _fix_order(name, dataset)
    _fix_scorer(name, dataset)
    return dataset


def _fix_order(name: str, dataset: Any) -> None:
    """Give an order to the sets that three datasets draw from, which otherwise have that of PYTHONHASHSEED."""
    if name in ("isomorphic_strings", "ransom_note"):
        dataset.letters = _Ordered(dataset.letters)
    if name == "polynomial_multiplication":
        unordered = dataset._get_monomials
        dataset._get_monomials = lambda rng: sorted(unordered(rng), key=str)


def _fix_scorer(name: str, dataset: Any) -> None:
    """Have an answer read, not run, by the scorers that run it where the solution has a name, or without an end."""
    if name in LISTS:
        own = type(dataset).score_answer
        reader = FunctionType(own.__code__, {**own.__globals__, "eval": ast.literal_eval})
        dataset.score_answer = MethodType(reader, dataset)
    if name in integrals.DATASETS:
        dataset.score_answer = integrals.score_answer


@lru_cache(maxsize=REMEMBERED)
def _entries(name: str, config: str, seed: int, size: int) -> tuple[Entry, ...]:
    """Return the entries, each made from global generators of its own: some datasets draw from those."""
    dataset = _dataset(name, config, seed, size)
    entries = []
    for i in range(size):
        with isolated(_word(seed, i + 1)):
            entry = dataset[i]
            entries.append(integrals.solved(entry) if name in integrals.DATASETS else entry)
    return tuple(entries)


def _word(seed: int, index: int) -> int:
    """Return the 64-bit hash of a seed and an index."""
    return int(fold(np.array([seed], np.uint64), index)[0])
