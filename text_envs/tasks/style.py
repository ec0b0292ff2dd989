"""Style: say the same in the style that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..embedded import COMMON, PLAIN, STYLES
from ..rewards.base import Reward, RewardFunction, WeightedSum, load_reward
from ..rewards.lexical import Repetition
from .base import at_least
from .keywords import covered
from .text import LongPrompts, PromptSource, Split, TextTask, words_of


class Style(TextTask):
    """Rewrite a plain sentence in a shown style.

    Shown: the name of a style and a sentence, each pair equally likely. Said: up to `max_new_tokens` tokens,
    the end token included. Earns: half of how marked the style is (different words of the style's lexicon
    less those of other styles', over `markers`, between 0 and 1), half of the fraction of the sentence's
    content words that are kept, less a quarter of the fraction of repeated pairs of words: -0.25 to 1. A
    completion that the tokenizer cannot say (utterance level only) earns -1. Reference score:
    `text_envs.tasks.text.best_of`.

    Args:
        styles: the styles that are asked for, of "formal", "polite", "archaic" and "casual"; more are harder.
        markers: different words of a style that mark it fully; more are harder.
        max_new_tokens: T; fewer make it harder.
        prompts: None for the small set of this project; else see `TextTask`, as for all other arguments.
        instruction: what is shown, with {style} and {text}.
        reward: a callable or "module:name", which gets the column `style`; None: as above, each part in
            `info["reward_terms"]`.

    Source: style transfer judged by style strength and kept content, Shen et al. 2017, "Style transfer from
    non-parallel text by cross-alignment", arXiv:1705.09655; formality, Rao & Tetreault 2018,
    arXiv:1803.06535.
    """

    def __init__(
        self,
        *,
        styles: Sequence[str] = tuple(STYLES),
        markers: int = 2,
        tokenizer: Any = None,
        prompts: PromptSource = None,
        column: str = "text",
        lazy: bool = False,
        split: Split = None,
        prompt_words: int | None = None,
        instruction: str = "{style} : {text}",
        max_new_tokens: int = 16,
        max_prompt_tokens: int | None = None,
        long_prompts: LongPrompts = "refuse",
        chat_template: bool = False,
        reward: RewardFunction | str | None = None,
    ) -> None:
        unknown = [style for style in styles if style not in STYLES]
        if unknown or not styles:
            raise ValueError(f"styles are some of {', '.join(STYLES)}, got {', '.join(unknown) or 'none'}")
        default = WeightedSum(
            {"marked": (Marked(markers), 0.5), "kept": (Kept(), 0.5), "repeated": (Repetition(2), -0.25)}
        )
        super().__init__(
            PLAIN if prompts is None else prompts,
            tokenizer,
            default if reward is None else load_reward(reward),
            words=[*COMMON, *(word for style in STYLES.values() for word in style)],
            column=column,
            lazy=lazy,
            split=split,
            prompt_words=prompt_words,
            conditions=[{"style": style} for style in styles],
            instruction=instruction,
            max_new_tokens=max_new_tokens,
            max_prompt_tokens=max_prompt_tokens,
            long_prompts=long_prompts,
            chat_template=chat_template,
        )


class Marked(Reward):
    """How clearly the completion is in the style of the column `style`, 0 to 1.

    Args:
        markers: how many more of the style's words than of other styles' make 1.
    """

    def __init__(self, markers: int = 2) -> None:
        self.markers = at_least(1, markers, "markers")

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the value of each completion."""
        return [self._value(text, style) for text, style in zip(completions, columns["style"], strict=True)]

    def _value(self, text: str, style: str) -> float:
        said = set(words_of(text))
        own = len(said.intersection(STYLES[style]))
        foreign = sum(len(said.intersection(words)) for name, words in STYLES.items() if name != style)
        return min(1.0, max(0, own - foreign) / self.markers)


class Kept(Reward):
    """The fraction of the prompt's content words that the completion keeps, 0 to 1; 1 if there are none."""

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the fraction for each completion."""
        return [
            covered(set(words_of(prompt)).difference(COMMON), words_of(completion))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
