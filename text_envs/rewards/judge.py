"""An AI judge as a reward: scores of completions, and which of two is better. Needs `text-envs[judge]`.

How a server is asked is in chat.py, the words of questions and answers in verdicts.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ..spaces import first_surrogate
from .calling import RewardError, is_finite, shown, wait
from .chat import ChatModel, Question
from .overlap import references
from .verdicts import RUBRIC, ask_choice, ask_score, choice_line, code_of, read_choice, read_score, score_line


@dataclass(eq=False, repr=False, kw_only=True)
class Judge(ChatModel):
    """A chat model's score of each completion: an async reward, asked for all completions of a step at once.

    The model's answer ends with the line `Score [code]: N`, where the code is the question's own and N a number on
    the scale; any other answer is asked for again. How the server is reached, what it may cost and what is
    remembered: the arguments of `ChatModel`.

    Args:
        rubric: what counts, in words.
        scale: the worst and the best score.
        normalize: return 0 for the worst and 1 for the best; False: the score as it was said.

    Raises:
        ValueError: if the scale is not two numbers that rise, or the rubric says nothing.

    Example:
        >>> judge = Judge("my-model", base_url="http://localhost:8000/v1", cache="judge.sqlite")
        >>> judge.scores(["The film we saw was"], ["a joy from beginning to end."])
        [0.8]
    """

    rubric: str = RUBRIC
    scale: tuple[float, float] = (1, 10)
    normalize: bool = True

    def __post_init__(self) -> None:
        _check_rubric(self.rubric)
        fits = len(self.scale) == 2 and all(map(is_finite, self.scale)) and self.scale[0] < self.scale[1]
        if not (fits and is_finite(self.scale[1] - self.scale[0])):
            raise ValueError(f"scale is (the worst score, a larger best score), such as (1, 10), got {self.scale}")
        super().__post_init__()

    async def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the score of each completion.

        Raises:
            RewardError: if the judge gives no verdict on one, or the budget is spent.
        """
        questions = [self._question(*texts) for texts in _rows(prompts, completions)]
        low, high = self.scale if self.normalize else (0.0, 1.0)
        return [(score - low) / (high - low) for score in await self.ask(questions)]

    def scores(self, prompts: list[str], completions: list[str]) -> list[float]:
        """Return the score of each completion, and wait for it."""
        return wait([self(prompts, completions)])[0]

    def _question(self, prompt: str, completion: str) -> Question:
        about = shown(prompt, completion)
        code = _code(self, prompt, completion)
        return Question(
            about,
            ask_score(prompt, completion, self.rubric, self.scale, code),
            score_line(code),
            partial(read_score, scale=self.scale, code=code),
            self.scale,
        )


@dataclass(frozen=True)
class Preference:
    """What a judge said of two completions, in both orders.

    Attributes:
        a_first: 1 if it chose a, 0 if b, 0.5 for a tie, when a was shown first.
        b_first: the same, when b was shown first.
    """

    a_first: float
    b_first: float

    @property
    def share(self) -> float:
        """How much speaks for a: the mean of both orders, 0 to 1."""
        return (self.a_first + self.b_first) / 2

    @property
    def choice(self) -> Literal["a", "b", "tie"]:
        """Which is better: the one that more than half speaks for."""
        return "a" if self.share > 0.5 else "b" if self.share < 0.5 else "tie"

    @property
    def consistent(self) -> bool:
        """Whether both orders say the same."""
        return self.a_first == self.b_first


@dataclass(frozen=True)
class PositionBias:
    """How far a judge's choices depend on the order.

    Attributes:
        disagreement: share of the pairs on which the two orders do not say the same.
        first: share of the choices, ties left out, that fell on what was shown first; 0.5 without a bias, None
            without a choice.
    """

    disagreement: float
    first: float | None


@dataclass(eq=False, repr=False, kw_only=True)
class PairwiseJudge(ChatModel):
    """A chat model's choice between two completions, asked in both orders, which undoes a taste for a position.

    As a reward it is the share that speaks for the completion beside a baseline in a column: 0, 0.25, 0.5, 0.75 or
    1; the mean over several baselines. The model's answer ends with the line `Verdict [code]: A`, `B` or `TIE`;
    any other answer is asked for again. The other arguments are those of `ChatModel`.

    Args:
        rubric: what counts, in words.
        column: the column that holds the baselines: a text or a list of texts each.

    Raises:
        ValueError: if the rubric says nothing.

    Example:
        >>> judge = PairwiseJudge("my-model", base_url="http://localhost:8000/v1")
        >>> judge.compare(["2+2="], ["4"], ["5"])[0].choice
        'a'
    """

    rubric: str = RUBRIC
    column: str = "baseline"

    def __post_init__(self) -> None:
        _check_rubric(self.rubric)
        super().__post_init__()

    def compare(self, prompts: list[str], completions_a: list[str], completions_b: list[str]) -> list[Preference]:
        """Return which of two completions the judge prefers, and wait for it.

        Raises:
            RewardError: if the judge gives no verdict on a pair, or the budget is spent.
        """
        return wait([self._preferences(prompts, completions_a, completions_b)])[0]

    async def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the share of each completion against its baselines.

        Raises:
            ValueError: if the column of baselines is missing.
            RewardError: if the judge gives no verdict on a pair, or the budget is spent.
        """
        baselines = references(self, self.column, columns)
        pairs = [
            (p, c, text) for p, c, texts in zip(prompts, completions, baselines, strict=True) for text in texts
        ]
        asked, said, beside = (list(texts) for texts in zip(*pairs, strict=True)) if pairs else ([], [], [])
        shares = iter([preference.share for preference in await self._preferences(asked, said, beside)])
        return [sum(next(shares) for _ in texts) / len(texts) for texts in baselines]

    async def _preferences(self, prompts: list[str], a: list[str], b: list[str]) -> list[Preference]:
        straight = [self._question(*texts) for texts in _rows(prompts, a, b)]
        swapped = [self._question(*texts) for texts in _rows(prompts, b, a)]
        values = await self.ask([*straight, *swapped])
        return [
            Preference(first, 1.0 - second)
            for first, second in zip(values[: len(straight)], values[len(straight) :], strict=True)
        ]

    def _question(self, prompt: str, first: str, second: str) -> Question:
        about = f"{shown(prompt, first)} or {second[:300]!r}"
        code = _code(self, prompt, first, second)
        return Question(
            about,
            ask_choice(prompt, first, second, self.rubric, code),
            choice_line(code),
            partial(read_choice, code=code),
            (0.0, 1.0),
        )


def position_bias(preferences: Sequence[Preference]) -> PositionBias:
    """Return how far the choices depend on the order.

    Raises:
        ValueError: if there is no preference.

    Source: Zheng et al. 2023, "Judging LLM-as-a-judge with MT-Bench and Chatbot Arena", arXiv:2306.05685.
    """
    if not preferences:
        raise ValueError("no preferences: a position bias is measured on at least one")
    firsts = [value for p in preferences for value in (p.a_first, 1.0 - p.b_first) if value != 0.5]
    disagreement = sum(not p.consistent for p in preferences) / len(preferences)
    return PositionBias(disagreement, sum(firsts) / len(firsts) if firsts else None)


def comparisons(
    prompts: Sequence[str],
    completions_a: Sequence[str],
    completions_b: Sequence[str],
    preferences: Sequence[Preference],
    *,
    ties: bool = False,
) -> list[dict[str, Any]]:
    """Return what a reward model learns from: rows of `prompt`, `chosen` and `rejected`, the columns of TRL.

    Args:
        prompts: n prompts.
        completions_a: n completions.
        completions_b: n others.
        preferences: n, of a over b.
        ties: keep ties too, as rows with `"tie": true`; else they are left out.
    """
    rows = []
    for prompt, a, b, preference in zip(prompts, completions_a, completions_b, preferences, strict=True):
        chosen, rejected = (b, a) if preference.choice == "b" else (a, b)
        row: dict[str, Any] = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        if preference.choice != "tie":
            rows.append(row)
        elif ties:
            rows.append({**row, "tie": True})
    return rows


def _rows(*lists: Sequence[str]) -> list[tuple[str, ...]]:
    if any(isinstance(texts, str) for texts in lists) or len(set(map(len, lists))) > 1:
        got = " and ".join("a text" if isinstance(texts, str) else f"{len(texts)} texts" for texts in lists)
        raise ValueError(f"prompts and completions are lists of one length, got {got}")
    return list(zip(*lists, strict=True))


def _code(judge: ChatModel, *texts: str) -> str:
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"a judge reads texts, got {text!r:.200} ({type(text).__name__})")
        if (at := first_surrogate(text)) is not None:
            raise RewardError(
                f"{text[:300]!r} holds a lone surrogate at {at}, half a character, which cannot be sent; decode "
                'bytes with errors="replace"'
            )
    return code_of(texts, judge.seed)


def _check_rubric(rubric: str) -> None:
    if not isinstance(rubric, str) or not rubric.strip() or first_surrogate(rubric) is not None:
        raise ValueError(f"the rubric says in words what counts, got {rubric!r}")
