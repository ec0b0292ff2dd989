"""How positive a completion is, by the VADER lexicon; needs the extra `text-envs[rewards]`."""

from __future__ import annotations

from typing import Any, Self

from .base import Reward


class VaderSentiment(Reward):
    """VADER's compound score of the completion, -1 (most negative) to 1 (most positive), 0 for none.

    Raises:
        ImportError: if vaderSentiment is not installed.

    Source: Hutto & Gilbert 2014, "VADER: a parsimonious rule-based model for sentiment analysis of social
    media text", ICWSM.
    """

    def __init__(self) -> None:
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ImportError as error:
            raise ImportError(
                "the sentiment reward needs the package vaderSentiment: pip install 'text-envs[rewards]', or "
                "pass a reward of your own with reward="
            ) from error
        self._analyzer = SentimentIntensityAnalyzer()

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        """Return the compound score of each completion; the prompt does not count."""
        return [self._analyzer.polarity_scores(completion)["compound"] for completion in completions]

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        """Pickle without the lexicon, which is read again."""
        return type(self), ()
