"""A transformers model as rewards use it: loaded once, on its device, asked in batches and without gradients.

Needs the extra `text-envs[agents]`. A value may differ by rounding with the texts it is batched with.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from .packages import missing

ModelName = str | PathLike[str] | tuple[Any, Any]


class TextModel:
    """A model and its tokenizer.

    A pickle of it holds no weights: they are loaded again when they are first needed.

    Args:
        kind: the class of transformers that loads the model, such as "AutoModelForCausalLM".
        source: a folder, a Hub id, a .gguf file, or a (model, tokenizer) pair in memory, which is used as it is
            and where it is.
        batch_size: texts in one forward.
        device: "auto" for CUDA where there is one, else the CPU; or a device of torch.
        dtype: of the weights, such as "bfloat16"; None: float32.

    Raises:
        ImportError: if torch or transformers is not installed.
        OSError: if the model cannot be loaded.
        ValueError: if the batch size is not positive, or a device or dtype is given for a pair.
    """

    def __init__(self, kind: str, source: ModelName, *, batch_size: int, device: str, dtype: str | None) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is at least 1, got {batch_size}")
        if isinstance(source, tuple):
            if len(source) != 2:
                raise ValueError(f"a model in memory is the pair (model, tokenizer), got a tuple of {len(source)}")
            if device != "auto" or dtype is not None:
                raise ValueError(
                    f"a pair keeps its device and dtype, got device={device!r}, dtype={dtype!r}: move the model "
                    "itself, model.to(...), and leave them out"
                )
        self.kind, self.source = kind, source if isinstance(source, tuple) else fspath(source)
        self.batch_size, self.device, self.dtype = batch_size, device, dtype
        self._pair: tuple[Any, Any] | None = self._load()  # now, so that a missing package or model is told early

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings.

        Raises:
            PicklingError: if the model was handed over in memory: no other process could load it.
        """
        if isinstance(self.source, tuple):
            raise pickle.PicklingError(
                f"a reward holds a {type(self.source[0]).__name__} that exists only in this process; save model "
                "and tokenizer with save_pretrained(folder) and hand over the folder"
            )
        return {**vars(self), "_pair": None}

    @property
    def network(self) -> Any:
        """The model."""
        return self._loaded()[0]

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self._loaded()[1]

    @contextmanager
    def evaluating(self) -> Iterator[Any]:
        """Hand over the model without dropout or gradients, and leave it as it was."""
        import torch

        training = self.network.training
        if training:
            self.network.eval()
        try:
            with torch.inference_mode():
                yield self.network
        finally:
            if training:
                self.network.train()

    def encode(self, texts: list[str], *, special: bool = True) -> list[list[int]]:
        """Return the token ids of texts.

        Args:
            texts: n of them.
            special: with the tokens the tokenizer puts around a text, and the one that begins a text (else ends
                it) where there would be none.

        Raises:
            ValueError: if a text would have no token at all where special ones are wanted.
        """
        if not texts:
            return []
        ids = self.tokenizer(texts, add_special_tokens=special)["input_ids"]
        return [row or self._first_token() for row in ids] if special else ids

    def batches(self, inputs: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Any, Any]]:
        """Yield (indices, ids, mask) of inputs of like length; ids (b, L) are right-padded, mask is 1 on inputs.

        Raises:
            ValueError: if an input is longer than the model reads.
        """
        import torch

        config = self.network.config
        most = min(getattr(config, "max_position_embeddings", None) or 2**31, self.tokenizer.model_max_length)
        longest = max(map(len, inputs), default=0)
        if longest > most:
            raise ValueError(
                f"a text has {longest} tokens, and {type(self.network).__name__} reads {most}; shorten the prompts "
                "or the completions (max_new_tokens)"
            )
        padding = getattr(config, "pad_token_id", None) or 0  # some models find a text's end by this id
        order = sorted(range(len(inputs)), key=lambda i: len(inputs[i]))
        for first in range(0, len(order), self.batch_size):
            at = order[first : first + self.batch_size]
            width = len(inputs[at[-1]])
            ids = torch.tensor([[*inputs[i], *[padding] * (width - len(inputs[i]))] for i in at], dtype=torch.long)
            mask = torch.tensor([[1] * len(inputs[i]) + [0] * (width - len(inputs[i])) for i in at])
            yield at, ids.to(self.network.device), mask.to(self.network.device)

    def _loaded(self) -> tuple[Any, Any]:
        if self._pair is None:
            self._pair = self._load()
        return self._pair

    def _load(self) -> tuple[Any, Any]:
        if isinstance(self.source, tuple):
            return self.source
        try:
            import torch
            import transformers
        except ImportError as error:
            raise missing("a reward that asks a model", "transformers", "agents") from error
        folder, keywords = self.source, {}
        if self.source.endswith(".gguf"):
            folder, keywords = str(Path(self.source).parent), {"gguf_file": Path(self.source).name}
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **keywords)
        load = getattr(transformers, self.kind).from_pretrained
        model = load(folder, dtype=self.dtype or "float32", **keywords)
        if getattr(model.config, "pad_token_id", None) is None:
            candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, 0)
            model.config.pad_token_id = next(token for token in candidates if token is not None)
        device = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        return model.to(device).eval(), tokenizer

    def _first_token(self) -> list[int]:
        for token in (self.tokenizer.bos_token_id, self.tokenizer.cls_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return [token]
        raise ValueError(
            f"a text has no tokens, and {type(self.tokenizer).__name__} has none that begins or ends a text; set "
            "its bos_token, or leave empty texts out"
        )
