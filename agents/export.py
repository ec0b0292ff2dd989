"""Writing a policy's language model, and a tokenizer, as a folder that transformers loads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from .backbone import Backbone


def save_pretrained(backbone: Backbone, directory: str, tokenizer: Any = None) -> None:
    """Write model and tokenizer to a folder for `transformers.pipeline("text-generation", directory)`.

    Args:
        backbone: the model; LoRA adapters are merged into a copy.
        directory: made if it does not exist.
        tokenizer: a transformers tokenizer, perhaps behind an adapter that calls it `wrapped`, or one that
            `fast_tokenizer` can export. None writes the model alone.
    """
    if os.path.exists(directory) and not os.path.isdir(directory):
        raise NotADirectoryError(f"{directory} is a file; give a folder's path")
    model = backbone.merged()
    if tokenizer is not None:
        tokenizer = getattr(tokenizer, "wrapped", tokenizer)
        if not hasattr(tokenizer, "save_pretrained"):
            tokenizer = fast_tokenizer(tokenizer)
        end = tokenizer.eos_token_id
        for config in (model.config, model.generation_config):
            config.eos_token_id = end
            config.pad_token_id = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        tokenizer.save_pretrained(directory)
    model.save_pretrained(directory)


def check_tokenizer(source: str | Path, tokenizer: Any) -> None:
    """Compare the tokenizer beside a model with the one whose ids it will be shown.

    Special tokens are often renamed between a model and its relatives, so 1 % of the ids may differ. Without a
    tokenizer beside the model (on this machine), for a GGUF file, or with one that does not tell its vocabulary,
    nothing is compared.

    Args:
        source: the model's folder or Hub id.
        tokenizer: see `save_pretrained`.

    Raises:
        ValueError: if the ids mean something else.
    """
    path = Path(source).expanduser()
    tokenizer = getattr(tokenizer, "wrapped", tokenizer)
    tells = hasattr(tokenizer, "get_vocab") or getattr(tokenizer, "unit", None) in ("character", "word", "byte")
    if not tells or path.suffix == ".gguf" or (path.is_dir() and not (path / "tokenizer_config.json").exists()):
        return
    try:
        theirs = AutoTokenizer.from_pretrained(str(path if path.exists() else source), local_files_only=True)
    except OSError:
        return
    if not hasattr(tokenizer, "get_vocab"):
        tokenizer = fast_tokenizer(tokenizer)
    there, here = ({i: piece for piece, i in t.get_vocab().items()} for t in (theirs, tokenizer))
    different = [i for i in sorted(here) if there.get(i) != here[i]]
    if len(different) > len(here) / 100:
        i = different[0]
        raise ValueError(
            f"{source} has another tokenizer than the environment: {len(different)} of {len(here)} ids differ, for "
            f"example {i} is {there.get(i)!r} there and {here[i]!r} here; use a model with the same tokenizer, or "
            "make the environment with that model's"
        )


def fast_tokenizer(tokenizer: Any) -> PreTrainedTokenizerFast:
    """Return a transformers tokenizer with the same ids.

    Args:
        tokenizer: has `vocabulary` (V token strings), `end_token_id` (int or None) and `unit`, what a token is:
            "character", "word" or "byte" (256 of them, in order).

    Raises:
        ValueError: if the unit is another.
    """
    pieces = list(tokenizer.vocabulary)
    end = None if tokenizer.end_token_id is None else pieces[tokenizer.end_token_id]
    splitter: pre_tokenizers.PreTokenizer
    decoder: decoders.Decoder | None
    if tokenizer.unit == "word":
        splitter, decoder = pre_tokenizers.WhitespaceSplit(), None  # without a decoder words join with spaces
    elif tokenizer.unit == "character":
        splitter, decoder = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"), decoders.Fuse()
    elif tokenizer.unit == "byte":
        names = bytes_to_unicode()
        pieces[:256] = [names[byte] for byte in range(256)]
        splitter = pre_tokenizers.Sequence(
            [
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"),
            ]
        )
        decoder = decoders.ByteLevel()
    else:
        raise ValueError(f"unit={tokenizer.unit!r}; only 'character', 'word' and 'byte' tokenizers are exported")
    exported = Tokenizer(models.WordLevel({piece: index for index, piece in enumerate(pieces)}))
    exported.pre_tokenizer = splitter
    if decoder is not None:
        exported.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=exported, eos_token=end, clean_up_tokenization_spaces=False)
