"""How positive a completion is, by the VADER lexicon; needs the extra `text-envs[rewards]`."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from .base import Reward
from .packages import missing


class VaderSentiment(Reward):
    """VADER's compound score of the completion, -1 (most negative) to 1 (most positive), 0 for none.

    Raises:
        ImportError: if vaderSentiment is not installed.

    Source: Hutto & Gilbert 2014, "VADER: a parsimonious rule-based model for sentiment analysis of social
    media text", ICWSM.
    """

    def __init__(self) -> None:
        _ = self._analyzer  # now, so that a missing package is told early

    @cached_property
    def _analyzer(self) -> Any:
        try:
            from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
        except ImportError as error:
            raise missing("the sentiment reward", "vaderSentiment", "rewards") from error
        return SentimentIntensityAnalyzer()

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the compound score of each completion; the prompt does not count."""
        score = self._analyzer.polarity_scores
        return [score(completion)["compound"] for completion in completions]
