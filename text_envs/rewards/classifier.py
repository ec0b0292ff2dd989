"""What a classifier makes of a completion; needs the extra `text-envs[agents]`."""

from __future__ import annotations

from typing import Any, Literal

from .base import Reward
from .models import ModelName, TextModel


class Classifier(Reward):
    """A sequence classifier's probability, or logit, of one label.

    The probability is a softmax over the labels; where the model has one output, or its labels do not exclude one
    another, it is a sigmoid. An empty completion is classified as it is; where the tokenizer has no token for it,
    the model is shown the one that begins a text. A reward model of TRL is a classifier with one output:
    `Classifier(folder, output="logit", read="both")`.

    Args:
        model: a folder, a Hub id, a .gguf file, or a (model, tokenizer) pair in memory.
        label: the label's name or index; may be left out where the model has one output.
        output: "probability" or "logit".
        read: what is classified: the "completion", or "both": prompt, separator and completion as one text.
        separator: put between prompt and completion; " " where completions do not bring their own.
        batch_size: texts in one forward.
        device: "auto" for CUDA where there is one, else the CPU; or a device of torch. A pair stays where it is.
        dtype: of the weights, such as "bfloat16"; None: float32. A pair keeps its own.

    Raises:
        ImportError: if torch or transformers is not installed.
        ValueError: if the label is missing or unknown, or an option is.
    """

    def __init__(
        self,
        model: ModelName,
        label: str | int | None = None,
        *,
        output: Literal["probability", "logit"] = "probability",
        read: Literal["completion", "both"] = "completion",
        separator: str = "",
        batch_size: int = 32,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        if output not in ("probability", "logit"):
            raise ValueError(f'output is "probability" or "logit", got {output!r}')
        if read not in ("completion", "both"):
            raise ValueError(f'read is "completion" or "both", got {read!r}')
        self.output, self.read, self.separator = output, read, separator
        kind = "AutoModelForSequenceClassification"
        self.model = TextModel(kind, model, batch_size=batch_size, device=device, dtype=dtype)
        self.label = self._index(label)

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the label's probability or logit for each completion.

        Raises:
            ValueError: if a text has more tokens than the model reads.
        """
        texts = completions
        if self.read == "both":
            texts = [prompt + self.separator + said for prompt, said in zip(prompts, completions, strict=True)]
        values = [0.0] * len(texts)
        with self.model.evaluating() as network:
            for at, ids, mask in self.model.batches(self.model.encode(texts)):
                logits = network(input_ids=ids, attention_mask=mask).logits.float()  # (b, labels)
                if self.output == "probability":
                    logits = logits.sigmoid() if self._apart(network.config) else logits.softmax(-1)
                for i, value in zip(at, logits[:, self.label].tolist(), strict=True):
                    values[i] = value
        return values

    @staticmethod
    def _apart(config: Any) -> bool:
        """Return whether each label is judged on its own."""
        return config.num_labels == 1 or config.problem_type == "multi_label_classification"

    def _index(self, label: str | int | None) -> int:
        names = self.model.network.config.id2label
        if label is None and len(names) == 1:
            return 0
        for index, name in names.items():
            if label in (index, name):
                return int(index)
        raise ValueError(f"label is one of {list(names.values())} or its index, got {label!r}")
