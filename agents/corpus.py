"""A corpus: texts read, a tokenizer trained on them, their token ids, and which of them are held out."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .checkpoint import CheckpointError, write_text

Corpus = str | Path | Iterable[str]
_LEAST_SYMBOLS = 257  # 256 bytes and the end token
_TOKENIZER_REPORT = "tokenizer_training.json"


def read_corpus(corpus: Corpus) -> list[str]:
    """Return the texts of a corpus; blank ones are left out.

    Args:
        corpus: texts, or the path of a .txt file, whose paragraphs (between blank lines) are the texts.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if a text is no string.
        ValueError: if there is no text.
    """
    where = "the corpus"
    if isinstance(corpus, str | Path):
        if not os.path.isfile(corpus):
            raise FileNotFoundError(f"corpus={str(corpus)[:80]!r} is no file; give a path, or a list of texts")
        where = str(corpus)
        texts = re.split(r"\n\s*\n", Path(corpus).read_text(encoding="utf-8"))
    else:
        texts = list(corpus)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {number} of the corpus is {text!r}, a {type(text).__name__}; give strings")
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise ValueError(f"{where} holds no text; give at least one that is not blank")
    return texts


def train_tokenizer(
    corpus: Corpus,
    vocab_size: int = 2048,
    folder: str | Path | None = None,
    *,
    min_frequency: int = 2,
    end_token: str = "<|endoftext|>",
    progress_bar: bool = True,
) -> PreTrainedTokenizerFast:
    """Return a byte-level byte-pair-encoding tokenizer: any text has tokens, and decodes to itself.

    Args:
        corpus: texts, or the path of a .txt file, whose paragraphs (between blank lines) are the texts.
        vocab_size: tokens at most, end token and 256 bytes included; a small corpus yields fewer.
        folder: where to save it, for `PreTrainedTokenizerFast.from_pretrained`; where it was already trained
            with the same arguments, it is loaded.
        min_frequency: how often a pair must occur to become a token.
        end_token: the name of the token that ends an utterance.
        progress_bar: whether there is one.

    Raises:
        ValueError: if the corpus is empty, a size is out of range, or the folder holds another tokenizer.
        CheckpointError: if the folder's is damaged.

    Source: Sennrich et al. 2016, arXiv:1508.07909; on bytes as in GPT-2.
    """
    if vocab_size < _LEAST_SYMBOLS:
        raise ValueError(f"vocab_size={vocab_size}; 256 bytes and the end token need at least {_LEAST_SYMBOLS}")
    if min_frequency < 1:
        raise ValueError(f"min_frequency={min_frequency}; give at least 1")
    texts = read_corpus(corpus)
    settings: dict[str, str | int] = {
        "vocab_size": vocab_size,
        "min_frequency": min_frequency,
        "end_token": end_token,
        "corpus": digest_of(text.encode("utf-8", "surrogatepass") for text in texts),
    }
    if folder is not None and (found := _trained_tokenizer(Path(folder), settings)) is not None:
        return found
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=[end_token],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=progress_bar,
        ),
        length=len(texts),
    )
    trained = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end_token, clean_up_tokenization_spaces=False
    )
    if folder is not None:
        trained.save_pretrained(str(folder))
        write_text(Path(folder) / _TOKENIZER_REPORT, json.dumps(settings))
    return trained


def vocabulary(tokenizer: Any) -> tuple[int, int | None]:
    """Return V and the end token's id, of one of transformers' tokenizers or one of an environment's."""
    if hasattr(tokenizer, "end_token_id"):
        return tokenizer.vocab_size, tokenizer.end_token_id
    return len(tokenizer), tokenizer.eos_token_id


def encode(tokenizer: Any, texts: list[str], end: int | None) -> list[np.ndarray]:
    """Return the ids of each text, its end token included."""
    if hasattr(tokenizer, "end_token_id"):
        encoded: Sequence[Sequence[int]] = [tokenizer.encode(text) for text in texts]
    else:
        # An end token that is written out in a text is text.
        encoded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return [np.array([*ids, *([] if end is None else [end])], np.int64) for ids in encoded]


def split(texts: list[np.ndarray], fraction: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens to train on and those to hold out."""
    whole = np.concatenate(texts)
    if len(texts) * fraction < 1:
        cut = len(whole) - round(fraction * len(whole))
        return whole[:cut], whole[cut:]
    order = rng.permutation(len(texts))
    sizes = np.array([len(texts[i]) for i in order])
    aside = set(order[: int(np.searchsorted(sizes.cumsum(), fraction * len(whole))) + 1].tolist())
    parts = [[t for i, t in enumerate(texts) if (i in aside) is held] for held in (False, True)]
    train, heldout = (np.concatenate(part) if part else whole[:0] for part in parts)
    return train, heldout


def digest_of(parts: Iterable[bytes]) -> str:
    """Return a digest of some bytes and of how they are divided."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:16]


def _trained_tokenizer(folder: Path, settings: dict[str, str | int]) -> PreTrainedTokenizerFast | None:
    report = folder / _TOKENIZER_REPORT
    if not report.exists():
        if (folder / "tokenizer.json").exists():
            raise ValueError(f"{folder} holds a tokenizer that was not trained here; give another folder")
        return None
    try:
        theirs = json.loads(report.read_text(encoding="utf-8"))
        trained = PreTrainedTokenizerFast.from_pretrained(str(folder))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CheckpointError(
            f"the tokenizer in {folder} is damaged ({type(error).__name__}: {error}); delete it to train it again"
        ) from error
    if theirs != settings:
        raise ValueError(f"{folder} holds a tokenizer of {theirs}, not of {settings}; give another folder")
    return trained
