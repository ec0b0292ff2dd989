"""How likely a language model finds a completion; needs the extra `text-envs[agents]`."""

from __future__ import annotations

import math
from typing import Any

from .base import Reward
from .models import ModelName, TextModel


class Fluency(Reward):
    """A causal language model's mean log-likelihood per token of the completion after its prompt, in nats.

    It is at most 0. An empty completion has no tokens to take a mean over: it earns -ln V, which a model that
    knows nothing gives to every token, so silence does not sound fluent. Before a prompt without tokens the model
    is shown the one that begins a text. Prompt and completion become tokens each on its own. The policy's end
    token is not part of the text, and not counted.

    Args:
        model: a folder, a Hub id, a .gguf file, or a (model, tokenizer) pair in memory.
        separator: put between prompt and completion; " " where completions do not bring their own (those of a
            word tokenizer).
        batch_size: texts in one forward; (batch_size, L, V) logits are in memory at once.
        device: "auto" for CUDA where there is one, else the CPU; or a device of torch. A pair stays where it is.
        dtype: of the weights, such as "bfloat16"; None: float32. A pair keeps its own.

    Raises:
        ImportError: if torch or transformers is not installed.

    Source: its negative is the logarithm of perplexity, Jelinek et al. 1977, "Perplexity - a measure of the
    difficulty of speech recognition tasks", JASA 62.
    """

    def __init__(
        self,
        model: ModelName,
        *,
        separator: str = "",
        batch_size: int = 16,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        self.separator = separator
        self.model = TextModel("AutoModelForCausalLM", model, batch_size=batch_size, device=device, dtype=dtype)

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the mean log-likelihood per token of each completion.

        Raises:
            ValueError: if prompt and completion have more tokens than the model reads.
        """
        import torch
        from torch.nn.functional import cross_entropy

        before = self.model.encode(prompts)
        said = self.model.encode([text and self.separator + text for text in completions], special=False)
        values = [0.0] * len(completions)
        with self.model.evaluating() as network:
            inputs = [first + second for first, second in zip(before, said, strict=True)]
            for at, ids, mask in self.model.batches(inputs):
                logits = network(input_ids=ids, attention_mask=mask).logits[:, :-1]  # (b, L - 1, V): of the next
                starts = torch.tensor([len(before[i]) for i in at], device=ids.device)
                positions = torch.arange(1, ids.shape[1], device=ids.device)
                counted = (positions >= starts[:, None]) & mask[:, 1:].bool()  # (b, L - 1)
                surprise = torch.zeros(counted.shape, device=ids.device)
                surprise[counted] = cross_entropy(logits[counted].float(), ids[:, 1:][counted], reduction="none")
                means = surprise.sum(1) / counted.sum(1)  # nan where nothing is said
                for i, mean in zip(at, means.tolist(), strict=True):
                    values[i] = -mean if said[i] else -math.log(logits.shape[-1])
        return values
