"""Tokenizers: the protocol environments rely on, three small tokenizers, and the adapter for Hugging Face's.

Exporting a tokenizer to other libraries' formats does not live here; `vocabulary` and `unit` say all an
exporter needs.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .spaces import first_surrogate

END = "<end>"
MAX_SYMBOLS = 4096
_LONG = 128  # tokens above which a pass of numpy is faster than one over a list
_FIRST_IDEOGRAPH = 0x4E00  # 20,902 letters in one block, untouched by case mapping and normalisation


@runtime_checkable
class Tokenizer(Protocol):
    """What environments ask of a tokenizer.

    Attributes:
        vocab_size: V; ids are 0..V-1.
        end_token_id: the id that ends an utterance, None where there is no such token.
    """

    vocab_size: int
    end_token_id: int | None

    @property
    def max_token_length(self) -> int:
        """The most characters that one id can add to a decoded text."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; raise ValueError where `unknown` is not empty."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; the end token adds nothing."""

    def unknown(self, text: str) -> list[str]:
        """Return the parts of a text that have no token, in order."""


class _TableTokenizer:
    """What the tokenizers below share: a table of pieces, and perhaps an end token after the last one."""

    unit: str  # how a text falls into pieces: "character", "word" or "byte"

    def __init__(self, pieces: Sequence[str], end: bool) -> None:
        self.vocabulary: list[str] = [*pieces, END] if end else list(pieces)
        self.vocab_size = len(self.vocabulary)
        self.end_token_id: int | None = len(pieces) if end else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, end_token_id={self.end_token_id})"

    def _visible(self, ids: Iterable[int]) -> list[int]:
        """Return the ids without end tokens.

        Raises:
            ValueError: if an id is outside 0..V-1.
        """
        if isinstance(ids, np.ndarray) and self.end_token_id is not None and len(ids) > _LONG:
            ids = ids[ids != self.end_token_id]
        said: list[int] = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        if said and not (min(said) >= 0 and max(said) < self.vocab_size):
            wrong = next(i for i in said if not 0 <= i < self.vocab_size)
            raise ValueError(
                f"id {wrong} is outside 0..{self.vocab_size - 1}; the observation's padding is "
                f"{self.vocab_size}, cut it off before decoding"
            )
        return [i for i in said if i != self.end_token_id] if self.end_token_id in said else said


class CharacterTokenizer(_TableTokenizer):
    """One token per character of an alphabet.

    Args:
        alphabet: the characters, in the order of their ids.
        end: add an end token after the last character.

    Raises:
        ValueError: if the alphabet is empty, repeats a character or holds a lone surrogate.

    Example:
        >>> CharacterTokenizer("abc").encode("cab")
        [2, 0, 1]
    """

    unit = "character"
    max_token_length = 1

    def __init__(self, alphabet: str, *, end: bool = False) -> None:
        if not alphabet:
            raise ValueError("an alphabet needs at least one character, got none")
        if len(set(alphabet)) < len(alphabet):
            twice = next(c for c in alphabet if alphabet.count(c) > 1)
            raise ValueError(f"the alphabet holds {twice!r} more than once; remove the repetition")
        if (place := first_surrogate(alphabet)) is not None:
            raise ValueError(f"{alphabet[place]!r} in the alphabet is half a character (a lone surrogate)")
        super().__init__(alphabet, end)
        self._ids = {character: i for i, character in enumerate(alphabet)}

    @classmethod
    def of_size(cls, size: int, *, end: bool = False) -> CharacterTokenizer:
        """Return a tokenizer over the first `size` symbols: letters, digits, then CJK ideographs.

        Raises:
            ValueError: if `size` is not in 1..4096.
        """
        if not 1 <= size <= MAX_SYMBOLS:
            raise ValueError(f"an alphabet has 1 to {MAX_SYMBOLS} symbols, got {size}")
        alphabet = (string.ascii_letters + string.digits)[:size]
        rest = range(_FIRST_IDEOGRAPH, _FIRST_IDEOGRAPH + size - len(alphabet))
        return cls(alphabet + "".join(map(chr, rest)), end=end)

    def encode(self, text: str) -> list[int]:
        """Return one id per character.

        Raises:
            ValueError: if a character is not in the alphabet.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            raise _no_token(self.unknown(text), self) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Return the characters of ids, without end tokens."""
        return "".join(map(self.vocabulary.__getitem__, self._visible(ids)))

    def unknown(self, text: str) -> list[str]:
        """Return the characters that are not in the alphabet."""
        return [character for character in text if character not in self._ids]


class WordTokenizer(_TableTokenizer):
    """One token per word; words are what white space separates, and a decoded text has single spaces.

    Args:
        words: the vocabulary, in the order of the ids; repetitions are dropped.
        end: add an end token after the last word.

    Raises:
        ValueError: if there is no word, or a word is empty, holds white space or a lone surrogate.

    Example:
        >>> WordTokenizer(["a", "fine", "film"]).decode([0, 2])
        'a film'
    """

    unit = "word"

    def __init__(self, words: Iterable[str], *, end: bool = True) -> None:
        words = list(dict.fromkeys(words))
        if not words:
            raise ValueError("a word tokenizer needs at least one word, got none")
        for word in words:
            if word.split() != [word] or first_surrogate(word) is not None:
                raise ValueError(f"{word!r} is not a word: it is empty, holds white space or a lone surrogate")
        if end and END in words:
            raise ValueError(f"the word {END!r} is the end token's name; leave it out of the words")
        super().__init__(words, end)
        self.max_token_length = max(map(len, words)) + 1  # and the space before it
        self._ids = {word: i for i, word in enumerate(words)}

    @classmethod
    def from_texts(cls, texts: Iterable[str], *, words: Iterable[str] = (), end: bool = True) -> WordTokenizer:
        """Return a tokenizer over `words` and every word of the texts, in order of appearance."""
        return cls([*words, *(word for text in texts for word in text.split())], end=end)

    def encode(self, text: str) -> list[int]:
        """Return one id per word.

        Raises:
            ValueError: if a word is not in the vocabulary.
        """
        try:
            return [self._ids[word] for word in text.split()]
        except KeyError:
            raise _no_token(self.unknown(text), self) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Return the words of ids with single spaces between them, without end tokens."""
        return " ".join(map(self.vocabulary.__getitem__, self._visible(ids)))

    def unknown(self, text: str) -> list[str]:
        """Return the words that are not in the vocabulary."""
        return [word for word in text.split() if word not in self._ids]


class ByteTokenizer(_TableTokenizer):
    """One token per byte of UTF-8: any text in 256 ids, and an end token.

    Bytes that are not UTF-8 decode to U+FFFD, so every sequence of ids has a text.

    Args:
        end: add an end token, id 256.
    """

    unit = "byte"
    max_token_length = 1

    def __init__(self, *, end: bool = True) -> None:
        super().__init__([f"<0x{byte:02X}>" for byte in range(256)], end)

    def encode(self, text: str) -> list[int]:
        """Return one id per byte.

        Raises:
            ValueError: if the text holds a lone surrogate.
        """
        if unknown := self.unknown(text):
            raise _no_token(unknown, self)
        return list(text.encode("utf-8"))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the bytes, without end tokens."""
        return bytes(self._visible(ids)).decode("utf-8", errors="replace")

    def unknown(self, text: str) -> list[str]:
        """Return the code points that are not characters (lone surrogates)."""
        return _lone_surrogates(text)


class HuggingFaceTokenizer:
    """A `transformers` tokenizer behind our protocol.

    Args:
        wrapped: any tokenizer of `transformers`; only its public methods are called.
    """

    def __init__(self, wrapped: Any) -> None:
        self.wrapped = wrapped
        self.vocab_size = len(wrapped)
        self.end_token_id: int | None = wrapped.eos_token_id

    @cached_property
    def max_token_length(self) -> int:
        """Longest entry of the vocabulary, in characters."""
        return max(map(len, self.wrapped.get_vocab()))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without the special tokens some models want around it."""
        return self.wrapped.encode(text, add_special_tokens=False)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, without special tokens and with its spaces as they are."""
        return self.wrapped.decode(
            [int(i) for i in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def unknown(self, text: str) -> list[str]:
        """Return lone surrogates; all else has tokens, if only the tokenizer's own unknown token."""
        return _lone_surrogates(text)


def as_tokenizer(tokenizer: Any) -> Tokenizer:
    """Return a tokenizer behind our protocol; one of `transformers` gets an adapter.

    Raises:
        TypeError: if the object is neither.
    """
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    if all(hasattr(tokenizer, name) for name in ("encode", "decode", "eos_token_id", "get_vocab", "__len__")):
        return HuggingFaceTokenizer(tokenizer)
    raise TypeError(
        f"{tokenizer!r} is not a tokenizer: pass a CharacterTokenizer, WordTokenizer or ByteTokenizer, a "
        "tokenizer of transformers, or an object with the attributes of text_envs.tokenizer.Tokenizer"
    )


def _lone_surrogates(text: str) -> list[str]:
    if first_surrogate(text) is None:
        return []
    return [character for character in text if first_surrogate(character) is not None]


def _no_token(unknown: Sequence[str], tokenizer: _TableTokenizer) -> ValueError:
    shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
    return ValueError(f"{tokenizer} has no token for {shown}; leave it out of the text or add it to the vocabulary")
