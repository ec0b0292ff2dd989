"""What is kept: pairs of completions, who preferred which, ratings; and what texts and numbers may be kept."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from ..spaces import first_surrogate

Choice = Literal["a", "b", "tie"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
LONGEST_TEXT = 2**24  # characters of a prompt or a completion
LONGEST_NAME = 200


class AlreadyAnswered(ValueError):
    """An annotator has answered before; the first answer stands."""


class Forgotten(ValueError):
    """An annotator who was to be forgotten, and does not come back with a file."""


@dataclass(frozen=True)
class Completion:
    """A text that a policy wrote after a prompt.

    Attributes:
        policy: who wrote it, such as "ppo, step 10000"; None: unknown. It is part of what the completion is.
        id: the store's, None before it is there.
    """

    prompt: str
    text: str
    policy: str | None = None
    id: int | None = None

    def __post_init__(self) -> None:
        checked_text("prompt", self.prompt)
        checked_text("completion", self.text)
        if self.policy is not None:
            checked_text("policy", self.policy)


@dataclass(frozen=True)
class Pair:
    """Two completions of a prompt, to be compared.

    Attributes:
        id: the store's, None before it is there.

    Raises:
        ValueError: if a text cannot be kept, or both completions are the same, so that nobody can choose.
    """

    prompt: str
    completion_a: str
    completion_b: str
    policy_a: str | None = None
    policy_b: str | None = None
    id: int | None = None

    def __post_init__(self) -> None:
        if self.completion_a == self.completion_b:
            raise ValueError(
                f"both completions are {self.completion_a[:200]!r}: nobody can prefer one; leave the pair out"
            )
        _ = self.completions  # checks the texts

    @property
    def completions(self) -> tuple[Completion, Completion]:
        """Both, a first."""
        return (
            Completion(self.prompt, self.completion_a, self.policy_a),
            Completion(self.prompt, self.completion_b, self.policy_b),
        )

    def swapped(self) -> Pair:
        """Return the same pair with a and b in each other's place."""
        return replace(
            self,
            completion_a=self.completion_b,
            completion_b=self.completion_a,
            policy_a=self.policy_b,
            policy_b=self.policy_a,
        )


@dataclass(frozen=True)
class Comparison:
    """Which completion of a pair somebody prefers.

    Attributes:
        choice: "a", "b" or "tie".
        annotator: a pseudonym, such as "p-0123456789abcdef"; where comparisons are added, a name will do.
        when: seconds since 1970; None, where one is added: now.
        seconds: how long the choice took, None if nobody measured.
    """

    pair: Pair
    choice: Choice
    annotator: str
    when: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        checked_choice(self.choice)
        checked_seconds(self.seconds)
        if self.when is not None:
            checked_number("when", self.when)

    def swapped(self) -> Comparison:
        """Return the same preference of the swapped pair."""
        return replace(self, pair=self.pair.swapped(), choice=swap(self.choice))


@dataclass(frozen=True)
class Rating:
    """How good somebody finds a completion; the other attributes are as in Comparison."""

    completion: Completion
    value: float
    annotator: str
    when: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        checked_number("rating", self.value)
        checked_seconds(self.seconds)
        if self.when is not None:
            checked_number("when", self.when)


def swap(choice: Choice) -> Choice:
    """Return the choice where a and b are in each other's place."""
    return cast(Choice, {"a": "b", "b": "a"}.get(choice, choice))


def checked_choice(choice: Any) -> Choice:
    """Return a choice.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(choice, str) or choice not in CHOICES:
        raise ValueError(f'a choice is "a", "b" or "tie", got {choice!r:.200}')
    return choice


def checked_text(what: str, text: Any) -> str:
    """Return a text that can be kept: of any characters, up to 16 million.

    Raises:
        ValueError: if it is no text, too long, or holds half a character.
    """
    if not isinstance(text, str):
        raise ValueError(f"{what} is a text, got {text!r:.200}")
    if len(text) > LONGEST_TEXT:
        raise ValueError(
            f"{what} has {len(text):,} characters, more than the {LONGEST_TEXT:,} that are kept; cut it"
        )
    if (place := first_surrogate(text)) is not None:
        raise ValueError(
            f"{what} holds a lone surrogate, {text[place]!r} at {place}, which is half a character; mend it with "
            'text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
        )
    return text


def checked_name(name: Any) -> str:
    """Return a person's name in Unicode's composed form, so that it is one name however it was typed.

    Raises:
        ValueError: if it is empty, too long, or holds what cannot be seen.
    """
    name = unicodedata.normalize("NFC", checked_text("an annotator's name", name)).strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(
            f"an annotator's name is 1 to {LONGEST_NAME} visible characters, got {name[:LONGEST_NAME]!r}"
        )
    return name


def checked_seconds(seconds: Any) -> float | None:
    """Return a duration, or None.

    Raises:
        ValueError: if it is negative, infinite or no number.
    """
    if seconds is not None and checked_number("seconds", seconds) < 0:
        raise ValueError(f"seconds are not negative, got {seconds!r}")
    return seconds


def checked_number(what: str, number: Any) -> float:
    """Return a finite number.

    Raises:
        ValueError: if it is none.
    """
    try:
        if isinstance(number, bool) or not math.isfinite(number):
            raise ValueError
        return float(number)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{what} is a finite number, got {number!r:.200}") from None
