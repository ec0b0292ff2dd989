"""How much of a reference a completion shares: BLEU, chrF and ROUGE; needs the extra `text-envs[rewards]`.

A reference comes with the prompt, in a column of the data: a text, or a list of texts of which any will do. All
values are 0 to 1, and an empty completion earns 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from .base import Reward
from .packages import missing, root_logger_kept


class BLEU(Reward):
    """BLEU of the completion as a single sentence, 0 to 1.

    N-grams that the completion is too short for are left out (sacrebleu's effective order), or every short
    sentence would earn 0.

    Args:
        column: the column that holds the references.

    Raises:
        ImportError: if sacrebleu is not installed.

    Source: Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation", ACL; as
    computed by sacrebleu (Post 2018, arXiv:1804.08771), whose scale is 0 to 100.
    """

    def __init__(self, column: str = "reference") -> None:
        self.column = column
        _ = self._scorer  # now, so that a missing package is told early

    @cached_property
    def _scorer(self) -> Any:
        try:
            from sacrebleu.metrics.bleu import BLEU as Scorer
        except ImportError as error:
            raise missing("the reward BLEU", "sacrebleu", "rewards") from error
        return Scorer(effective_order=True)

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return BLEU of each completion against its references."""
        return _scores(self._scorer, completions, references(self, self.column, columns))


class ChrF(Reward):
    """chrF of the completion, the F-score of its character n-grams, 0 to 1.

    Args:
        column: the column that holds the references.
        word_order: also count n-grams of words up to this length; 2 is chrF++.

    Raises:
        ImportError: if sacrebleu is not installed.
        ValueError: if word_order is negative.

    Source: Popovic 2015, "chrF: character n-gram F-score for automatic MT evaluation", WMT; as computed by
    sacrebleu (Post 2018, arXiv:1804.08771), whose scale is 0 to 100.
    """

    def __init__(self, column: str = "reference", *, word_order: int = 0) -> None:
        if word_order < 0:
            raise ValueError(f"word_order is at least 0, got {word_order}")
        self.column, self.word_order = column, word_order
        _ = self._scorer  # now, so that a missing package is told early

    @cached_property
    def _scorer(self) -> Any:
        try:
            from sacrebleu.metrics.chrf import CHRF
        except ImportError as error:
            raise missing("the reward ChrF", "sacrebleu", "rewards") from error
        return CHRF(word_order=self.word_order)

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return chrF of each completion against its references."""
        return _scores(self._scorer, completions, references(self, self.column, columns))


class ROUGE(Reward):
    """ROUGE of the completion, the overlap of its words with the reference's, 0 to 1; of several the best.

    Args:
        column: the column that holds the references.
        variant: "rouge1" or "rouge2" for n-grams, "rougeL" for the longest common subsequence, "rougeLsum" for
            that of each line.
        measure: "precision" (of what is said), "recall" (of the reference) or "fmeasure".
        stem: compare the stems of English words.

    Raises:
        ImportError: if rouge-score is not installed.
        ValueError: if the variant or the measure is unknown.

    Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries", ACL workshop.
    """

    def __init__(
        self,
        column: str = "reference",
        *,
        variant: Literal["rouge1", "rouge2", "rougeL", "rougeLsum"] = "rougeL",
        measure: Literal["precision", "recall", "fmeasure"] = "fmeasure",
        stem: bool = True,
    ) -> None:
        if variant not in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
            raise ValueError(f'variant is "rouge1", "rouge2", "rougeL" or "rougeLsum", got {variant!r}')
        if measure not in ("precision", "recall", "fmeasure"):
            raise ValueError(f'measure is "precision", "recall" or "fmeasure", got {measure!r}')
        self.column, self.variant, self.measure, self.stem = column, variant, measure, stem
        _ = self._scorer  # now, so that a missing package is told early

    @cached_property
    def _scorer(self) -> Any:
        try:
            from rouge_score.rouge_scorer import RougeScorer
        except ImportError as error:
            raise missing("the reward ROUGE", "rouge-score", "rewards") from error
        with root_logger_kept():
            return RougeScorer([self.variant], use_stemmer=self.stem)

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return ROUGE of each completion against its references."""
        values = []
        for completion, wanted in zip(completions, references(self, self.column, columns), strict=True):
            scores = (self._scorer.score(text, completion)[self.variant] for text in wanted)
            values.append(float(max(getattr(score, self.measure) for score in scores)))
        return values


def references(reward: Reward, column: str, columns: Mapping[str, Any]) -> list[list[str]]:
    """Return the references of each completion.

    Raises:
        ValueError: if there is no such column, or it holds something that is neither a text nor texts.
    """
    name = type(reward).__name__
    if column not in columns:
        known = ", ".join(map(repr, sorted(columns))) or "none"
        raise ValueError(
            f"{name} compares with the column {column!r}, and the samples have {known}; add it to the data, or "
            f'name another: {name}(column="...")'
        )
    wanted = [[value] if isinstance(value, str) else value for value in columns[column]]
    for value in wanted:
        if not isinstance(value, list | tuple) or not value or not all(isinstance(text, str) for text in value):
            raise ValueError(f"the column {column!r} of {name} holds a text or a list of texts, got {value!r}")
    return [list(value) for value in wanted]


def _scores(scorer: Any, completions: list[str], wanted: list[list[str]]) -> list[float]:
    """Return sacrebleu's scores on the scale 0 to 1; rounding takes a perfect one beyond it."""
    pairs = zip(completions, wanted, strict=True)
    return [min(1.0, scorer.sentence_score(completion, texts).score / 100) for completion, texts in pairs]
