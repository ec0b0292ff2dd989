"""Summarize: say briefly what a short text says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..datasets import Prompts, load_prompts
from ..embedded import ARTICLES, COMMON
from ..rewards.base import Reward, RewardFunction, WeightedSum, load_reward
from .base import Utterances
from .text import LongPrompts, PromptSource, Split, TextTask, words_of


class Summarize(TextTask):
    """Summarise a short text, in no more than a number of words.

    Shown: a text of about three sentences. Said: up to `max_new_tokens` tokens, the end token included. Earns:
    the ROUGE-L of the summary against the text's reference, less half of the fraction of its words beyond
    `max_words`: -0.5 to 1. A completion that the tokenizer cannot say (utterance level only) earns -1.
    Reference score: `text_envs.tasks.text.best_of`; to repeat the text's first `max_words` words is a strong
    proposal.

    Args:
        max_words: words that a summary may have; fewer are harder.
        reference: the column that holds the reference summaries, needed by the default reward.
        max_new_tokens: T.
        prompts: None for the small set of this project; else see `TextTask`, as for all other arguments.
        reward: a callable or "module:name"; None: as above, each part in `info["reward_terms"]`.

    Source: ROUGE as reward, Paulus, Xiong & Socher 2017, "A deep reinforced model for abstractive
    summarization", arXiv:1705.04304.
    """

    def __init__(
        self,
        *,
        max_words: int = 12,
        reference: str = "reference",
        tokenizer: Any = None,
        prompts: PromptSource = None,
        column: str = "text",
        lazy: bool = False,
        split: Split = None,
        prompt_words: int | None = None,
        instruction: str = "{text}",
        max_new_tokens: int = 20,
        max_prompt_tokens: int | None = None,
        long_prompts: LongPrompts = "refuse",
        chat_template: bool = False,
        reward: RewardFunction | str | None = None,
    ) -> None:
        if prompts is None:
            texts, summaries = zip(*ARTICLES, strict=True)
            chosen = Prompts(texts, {reference: summaries})
        else:
            chosen = load_prompts(prompts, column=column, lazy=lazy)
        known = reference in chosen.columns
        if reward is None and not known:
            raise ValueError(
                f"the prompts have no column {reference!r} for the summaries to be compared with, only "
                f"{', '.join(map(repr, chosen.columns)) or 'their texts'}; pass reference= or a reward= of your own"
            )
        default = WeightedSum({"rouge_l": (RougeL(reference), 1.0), "too_long": (TooLong(max_words), -0.5)})
        to_say = chosen.columns[reference] if known and not chosen.lazy else ()
        super().__init__(
            chosen,
            tokenizer,
            default if reward is None else load_reward(reward),
            words=[*COMMON, *(word for summary in to_say for word in str(summary).split())],
            lazy=lazy,
            split=split,
            prompt_words=prompt_words,
            instruction=instruction,
            max_new_tokens=max_new_tokens,
            max_prompt_tokens=max_prompt_tokens,
            long_prompts=long_prompts,
            chat_template=chat_template,
        )
        self.reference = reference

    def demonstrate(self, said: Utterances) -> list[list[int]]:
        """Return the references.

        Raises:
            NotImplementedError: if the prompts have none.
            ValueError: if the tokenizer cannot say one.
        """
        if self.reference not in self.prompts.columns:
            return super().demonstrate(said)
        return [self.whole(str(self._row(i)[1][self.reference])) for i in said.columns["index"].tolist()]


class RougeL(Reward):
    """The F-measure of the longest common subsequence of words, completion against reference, 0 to 1.

    It is 0 where either has no words.

    Args:
        reference: the column that holds the references.

    Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries", sentence-level ROUGE-L with
    beta = 1.
    """

    def __init__(self, reference: str = "reference") -> None:
        self.reference = reference

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the F-measure of each completion."""
        references = columns[self.reference]
        return [_f_measure(words_of(r), words_of(c)) for r, c in zip(references, completions, strict=True)]


class TooLong(Reward):
    """The fraction of the completion's words that lie beyond a limit, 0 to 1.

    Args:
        max_words: the limit.

    Raises:
        ValueError: if it is less than 1.
    """

    def __init__(self, max_words: int) -> None:
        if max_words < 1:
            raise ValueError(f"max_words is at least 1, got {max_words}")
        self.max_words = max_words

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the fraction for each completion."""
        lengths = (len(words_of(completion)) for completion in completions)
        return [max(0, length - self.max_words) / max(1, length) for length in lengths]


def _f_measure(reference: Sequence[str], said: Sequence[str]) -> float:
    """Return 2 lcs / (|reference| + |said|), which is the harmonic mean of precision and recall."""
    common = [0] * (len(said) + 1)  # common[j]: the longest common subsequence with the first j words said
    for wanted in reference:
        before = 0
        for j, word in enumerate(said, 1):
            before, common[j] = common[j], before + 1 if word == wanted else max(common[j], common[j - 1])
    return 2 * common[-1] / max(1, len(reference) + len(said))
