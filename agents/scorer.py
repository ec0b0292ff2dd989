"""A sequence classifier with one output, and its tokenizer: texts -> scores. Training is `reward_training.py`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .adapters import add_lora, merge_adapters
from .backbone import FreshCache, cache_input, is_close
from .checkpoint import CheckpointError
from .export import fast_tokenizer
from .models import ModelSource, load_model, locate
from .packing import buckets
from .policies import TransformerPolicy

ScorerSource = ModelSource | TransformerPolicy
_BATCH_TOKENS = 2**13  # of a forward without gradients


class Scorer(nn.Module):
    """Scores of texts, in the log-odds of Bradley and Terry.

    A causal model reads the score off its last token. Dropout is off: what is trained is what scores.

    Args:
        network: a sequence classifier with one output.
        tokenizer: its own, one of transformers, with a token for padding.
    """

    def __init__(self, network: PreTrainedModel, tokenizer: Any) -> None:
        super().__init__()
        self.network, self.tokenizer = network, tokenizer
        self.raw_threshold = nn.Parameter(torch.zeros(()))
        self.train(False)
        # What comes later is not seen, padding neither, so no mask is needed: transformers would wait for the
        # device to see what is in it.
        self._is_causal = _is_causal(network)
        if self._is_causal:
            base: Any = network.base_model
            base.warn_if_padding_and_no_attention_mask = _no_warning  # GPT-2's, for the same reason

    @property
    def tie_threshold(self) -> Tensor:
        """Log-odds that a difference must overcome not to be a tie; above 0."""
        return nn.functional.softplus(self.raw_threshold)

    @property
    def longest(self) -> int:
        """The most tokens of a text."""
        positions = getattr(self.network.config, "max_position_embeddings", None) or 2**31
        return min(positions, self.tokenizer.model_max_length)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts, with those that the tokenizer puts around them; an empty text gets one.

        Raises:
            ValueError: if a text is longer than the model reads, or the tokenizer has no token for a part of it.
        """
        try:
            ids = self.tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
        except Exception as error:  # tokenizers raises bare Exceptions
            raise ValueError(f"the tokenizer has no tokens for {self._unknown(texts)!r:.200}: {error}") from error
        for text, row in zip(texts, ids, strict=True):
            if len(row) > self.longest:
                raise ValueError(
                    f"a text has {len(row)} tokens, and {type(self.network).__name__} reads {self.longest}; leave "
                    f"it out, or use a model with more positions: {text[:200]!r}"
                )
        return [row or [self._first_token()] for row in ids]

    def forward(self, rows: Sequence[Sequence[int]], most: int | None = None) -> Tensor:
        """Return (n,) float32 scores of n rows of token ids.

        Args:
            rows: of any length.
            most: tokens of one forward, padding among them; None does not limit them.
        """
        lengths = np.array([len(row) for row in rows])
        groups = buckets(lengths, most=most)
        scores = torch.cat([self._scored([rows[i] for i in group]) for group in groups])
        order = torch.as_tensor(np.argsort(np.concatenate(groups)))
        return scores[order.to(scores.device, non_blocking=True)]

    @torch.inference_mode()
    def score(self, texts: Sequence[str]) -> list[float]:
        """Return the texts' scores."""
        return self(self.encode(texts), _BATCH_TOKENS).tolist() if texts else []

    def train(self, mode: bool = True) -> Scorer:
        """Leave dropout off."""
        return super().train(False)

    def restrict(self, lora: int | Any | None, frozen: bool) -> None:
        """Train adapters and the head, or the head alone, not every weight."""
        if lora is not None:
            add_lora(self.network, lora)
        elif frozen:
            self.network.requires_grad_(False)
        if lora is not None or frozen:
            inside = {id(p) for p in self.network.base_model.parameters()}
            for parameter in self.network.parameters():
                if id(parameter) not in inside:
                    parameter.requires_grad_(True)

    def save(self, folder: str | Path) -> None:
        """Write model and tokenizer as a folder for `AutoModelForSequenceClassification.from_pretrained`."""
        network = copy.deepcopy(self.network)
        if hasattr(network, "peft_config"):
            network = merge_adapters(network)
        with _quiet():
            network.save_pretrained(str(folder))
        self.tokenizer.save_pretrained(str(folder))

    def _scored(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return (b,) scores of rows in one forward, right-padded."""
        width = max(map(len, rows))
        padding = self.network.config.pad_token_id
        device = self.network.device
        ids = torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows]).to(device, non_blocking=True)
        inputs: dict[str, Any] = {**cache_input(self.network, FreshCache()), "use_cache": False}
        if not self._is_causal:
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
            inputs = {"attention_mask": mask.to(device, non_blocking=True)}
        return self.network(input_ids=ids, **inputs).logits.float()[:, 0]

    def _first_token(self) -> int:
        for token in (self.tokenizer.bos_token_id, self.tokenizer.cls_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return token
        raise ValueError(
            f"a text has no tokens, and {type(self.tokenizer).__name__} has none that begins or ends a text; leave "
            "empty texts out"
        )

    def _unknown(self, texts: Sequence[str]) -> str:
        """Return the first text that the tokenizer refuses."""
        for text in texts:
            try:
                self.tokenizer(text, verbose=False)
            except Exception:
                return text
        return ""


def new_scorer(source: ScorerSource, tokenizer: Any = None, *, seed: int = 0) -> Scorer:
    """Return a scorer to be trained.

    Args:
        source: a folder, a Hub id or a .gguf file of a sequence classifier or a language model; a config (random
            weights); such a model in memory; or a policy, whose language model is copied. What has no head with one
            output gets a new one.
        tokenizer: one of transformers, or an environment's, see `export.fast_tokenizer`; None: the one beside the
            model.
        seed: of the new weights; the global generator stays as it was.

    Raises:
        ValueError: if the model has no sequence classifier, too few tokens, or no tokenizer is known.
    """
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.default_generator.manual_seed(seed)
        network = _network(source)
        tokenizer = padded_tokenizer(source if tokenizer is None else tokenizer)
        tokens = _tokens(network)
        if len(tokenizer) == tokens + 1 and tokenizer.pad_token_id == tokens:
            network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        elif len(tokenizer) > tokens:
            raise ValueError(
                f"the tokenizer has {len(tokenizer)} tokens but {type(network).__name__} only {tokens}; use the "
                "model's own tokenizer"
            )
        _pad_with(network, tokenizer.pad_token_id)
    return Scorer(network.float(), tokenizer)


def padded_tokenizer(source: Any) -> Any:
    """Return a tokenizer of transformers with a token for padding, which is never an ordinary one.

    Models find the end of a text by it.

    Args:
        source: where a model lies whose own it is, or a tokenizer, which is copied.
    """
    tokenizer = _tokenizer(source)
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            tokenizer.add_special_tokens({"pad_token": "<pad>"})
        else:
            tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_scorer(folder: str | Path) -> Scorer:
    """Return a scorer that was saved, by us, by TRL or by others.

    Raises:
        FileNotFoundError: if there is no such folder.
        CheckpointError: if it holds something else, or is damaged.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"{str(folder)!r} is no folder; give that of a reward model")
    remedy = "give the folder of a reward model, or train it again"
    try:
        with _quiet():
            network, told = AutoModelForSequenceClassification.from_pretrained(
                str(path), dtype=torch.float32, output_loading_info=True, local_files_only=True
            )
            tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    except Exception as error:  # safetensors and tokenizers raise exceptions of their own
        reason = str(error).partition("\n")[0][:200]
        raise CheckpointError(
            f"{path} is no whole reward model ({type(error).__name__}: {reason}); {remedy}"
        ) from error
    lacking = [*told["missing_keys"], *told["mismatched_keys"]]
    if lacking:
        raise CheckpointError(f"{path} is no whole reward model: it lacks {str(lacking[0])!r}; {remedy}")
    if network.config.num_labels != 1:
        raise CheckpointError(f"{path} is a classifier with {network.config.num_labels} outputs, not one; {remedy}")
    if network.config.pad_token_id is None:
        network.config.pad_token_id = tokenizer.pad_token_id
    return Scorer(network, tokenizer)


def _network(source: ScorerSource) -> PreTrainedModel:
    """Return a sequence classifier with one output."""
    if isinstance(source, TransformerPolicy):
        source = source.backbone.merged()
    gguf = isinstance(source, str | Path) and str(source).endswith(".gguf")
    if gguf:
        source = load_model(source)
    try:
        if isinstance(source, str | Path):
            return AutoModelForSequenceClassification.from_pretrained(
                locate(source),
                num_labels=1,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
            )
        if isinstance(source, PreTrainedConfig):
            return _empty(source)
        if not isinstance(source, PreTrainedModel):
            raise TypeError(
                f"model={source!r:.80} is a {type(source).__name__}; pass a folder, a Hub id, a .gguf file, a "
                "config, a PreTrainedModel or a TransformerPolicy"
            )
        if type(source).__name__.endswith("ForSequenceClassification") and source.config.num_labels == 1:
            return copy.deepcopy(source)
        network = _empty(source.config)
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        raise ValueError(
            f"model={source!r:.80} has no sequence classifier in transformers; use another, such as GPT-2, Llama "
            "or BERT"
        ) from error
    network.base_model.load_state_dict(source.base_model.state_dict())
    return network


def _empty(config: PreTrainedConfig) -> PreTrainedModel:
    config = copy.deepcopy(config)
    config.num_labels = 1
    return AutoModelForSequenceClassification.from_config(config)


def _tokenizer(source: Any) -> Any:
    if isinstance(source, str | Path):
        where = locate(source)
        if where.endswith(".gguf"):
            return AutoTokenizer.from_pretrained(str(Path(where).parent), gguf_file=Path(where).name)
        return AutoTokenizer.from_pretrained(where)
    if isinstance(source, PreTrainedConfig | nn.Module):
        raise ValueError(f"a {type(source).__name__} has no tokenizer beside it; give tokenizer=")
    source = getattr(source, "wrapped", source)
    return copy.deepcopy(source) if hasattr(source, "save_pretrained") else fast_tokenizer(source)


def _tokens(network: PreTrainedModel) -> int:
    embedding: Any = network.get_input_embeddings()
    return embedding.num_embeddings


def _pad_with(network: PreTrainedModel, token: int) -> None:
    """Let a network know the token for padding, as it will when it is loaded: RoBERTa counts positions by it."""
    network.config.pad_token_id = token
    for module in network.modules():
        if getattr(module, "padding_idx", None) is not None:
            setattr(module, "padding_idx", token)  # noqa: B010 - to mypy it is a module


def _no_warning(*_: Any) -> None:
    """Do nothing."""


@torch.no_grad()
def _is_causal(network: PreTrainedModel) -> bool:
    """Return whether hidden states do not depend on what comes later, and the model reads whole contexts."""
    ids = torch.arange(8, device=network.device)[None] % _tokens(network)
    inputs: dict[str, Any] = {**cache_input(network.base_model, FreshCache()), "use_cache": False}
    try:
        whole, half = (network.base_model(input_ids=i, **inputs).last_hidden_state for i in (ids, ids[:, :4]))
    except (TypeError, ValueError, AttributeError, NotImplementedError, RuntimeError, IndexError):
        return False  # no such cache, or fewer positions
    return is_close(half, whole[:, :4])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from telling of the new head, which is no news here, and from bars of its own."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
