"""TwentyQuestions: find a thing by questions that are answered yes or no."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..readers import once
from ..tokenizer import WordTokenizer
from ..words import KNOWLEDGE
from .base import at_least
from .game import ASK, Game

YES, NO = "yes", "no"
_RESERVED = (YES, NO, ASK)
_FORM = '{"thing": ["trait", ...], ...}'


class TwentyQuestions(Game):
    """Find a thing of a small knowledge base by yes-or-no questions.

    Shown: "?". Said: one word, a trait ("animal" asks whether the thing is one) or a thing (a guess). Replied: yes
    or no; "?" to another word. Earns: 1 - (k - 1) / turns for naming the thing at turn k, questions counted
    like guesses, else 0. Exact: dynamic programming over beliefs.

    Args:
        knowledge: None for 24 things with 10 traits of this project, thing -> the traits that are true of it, or
            the path of a JSON file with such an object. Things and traits are single words.
        items: take the first so many things, at least 2; None: all.
        questions: take the first so many traits, in order of appearance; None: all.
        turns: questions and guesses before the episode ends.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not JSON of that form or has a thing twice, a word is reserved, or is both a
            thing and a trait.
        TypeError: if the knowledge is not of that form.

    Source: the parlour game; as a task for agents, LMRL-Gym, Abdulhai et al. 2023, arXiv:2311.18232.
    """

    def __init__(
        self,
        *,
        knowledge: Mapping[str, Sequence[str]] | str | PathLike[str] | None = None,
        items: int | None = None,
        questions: int | None = None,
        turns: int = 10,
    ) -> None:
        known = KNOWLEDGE if knowledge is None else _checked(knowledge)
        things = _first(list(known), items, 2, "items")
        traits = _first(
            list(dict.fromkeys(trait for has in known.values() for trait in has)), questions, 0, "questions"
        )
        self.things, self.traits = things, traits
        true = np.array([[trait in known[thing] for trait in traits] for thing in things], np.bool_)
        right = np.eye(len(things), dtype=np.bool_)
        self._answer = np.concatenate([np.where(true, 1, 2), np.where(right, 0, 2)], axis=1)  # (things, guesses)
        tokenizer = WordTokenizer([*traits, *things, *_RESERVED], end=False)
        super().__init__(
            tokenizer,
            guesses=np.arange(len(traits) + len(things))[:, None],
            secrets=len(things),
            replies=[tokenizer.encode(word) for word in (YES, YES, NO)],
            turns=turns,
        )

    def answer(self, secret: NDArray[np.int64], guess: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return 0 where the thing is named, 1 where the trait is true of it, else 2."""
        return self._answer[secret, guess]


def _first(words: list[str], count: int | None, least: int, name: str) -> list[str]:
    """Return the first `count` words, all for None.

    Raises:
        ValueError: if there are not as many, or `count` is less than `least`.
    """
    size = at_least(least, len(words) if count is None else count, name)
    if size > len(words):
        raise ValueError(f"{name} is at most {len(words)}, what the knowledge has, got {size}")
    return words[:size]


def _checked(knowledge: Any) -> Mapping[str, Sequence[str]]:
    """Return what is known, read from a file if it is a path."""
    if isinstance(knowledge, str | PathLike):
        path = Path(knowledge)
        if not os.path.isfile(path):  # no error, unlike Path's, for a text too long to be a name
            raise FileNotFoundError(f"knowledge={str(path)!r:.200} is no file; pass a JSON file or a dict {_FORM}")
        try:
            knowledge = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
        except ValueError as error:
            raise ValueError(f"{path}: not JSON in UTF-8: {error}; write an object {_FORM}") from error
    if not isinstance(knowledge, Mapping):
        raise TypeError(f"knowledge is a mapping {_FORM}, got {knowledge!r:.200}")
    for thing, traits in knowledge.items():
        if isinstance(traits, str) or not isinstance(traits, Sequence):
            raise TypeError(f"knowledge[{thing!r}] is a list of traits, got {traits!r}")
        for word in (thing, *traits):
            if not isinstance(word, str):
                raise TypeError(f"things and traits are words, got {word!r} in the knowledge of {thing!r}")
            if word in _RESERVED:
                raise ValueError(f"the word {word!r} is the game's own; rename it in the knowledge of {thing!r}")
        for word in traits:
            if word in knowledge:
                raise ValueError(f"{word!r} is a thing and a trait of {thing!r}; rename one of them")
    return knowledge
