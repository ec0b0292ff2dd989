"""How many mistakes of English a completion has, by the checker Harper; needs the extra `text-envs[rewards]`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal

from .base import Reward
from .packages import missing


class GrammarErrors(Reward):
    """Harper's findings per word of the completion: grammar, spelling, punctuation and style.

    Give it a negative weight. An empty completion earns 0: who says nothing makes no mistake, so put a reward
    beside it that asks for something.

    Args:
        dialect: of English.
        ignore: rules of Harper that do not count, such as "SpellCheck", or "SentenceCapitalization" for
            completions that go on in the middle of a sentence.
        with_prompt: read the completion after its prompt, and count what is found in the completion.
        separator: put between prompt and completion; " " where completions do not bring their own (those of a
            word tokenizer).

    Raises:
        ImportError: if harper-py is not installed.
        ValueError: if the dialect or a rule is unknown.

    Source: Harper, https://writewithharper.com, through harper-py.
    """

    def __init__(
        self,
        *,
        dialect: Literal["american", "british", "australian", "canadian", "indian"] = "american",
        ignore: Iterable[str] = (),
        with_prompt: bool = False,
        separator: str = "",
    ) -> None:
        self.dialect, self.ignore = dialect, tuple(ignore)
        self.with_prompt, self.separator = with_prompt, separator
        _ = self._linter  # now, so that a missing package or a wrong setting is told early

    @cached_property
    def _linter(self) -> Any:
        try:
            import harper
        except ImportError as error:
            raise missing("the reward GrammarErrors", "harper-py", "rewards") from error
        known = [dialect.name.lower() for dialect in harper.Dialect]
        if self.dialect not in known:
            raise ValueError(f"dialect is one of {known}, got {self.dialect!r}")
        rules = harper.get_default_lint_config()
        for rule in self.ignore:
            if rule not in rules:
                near = ", ".join(difflib.get_close_matches(rule, rules)) or "SpellCheck, SentenceCapitalization"
                raise ValueError(f"Harper has no rule {rule!r}; there are {len(rules)}, such as {near}")
        linter = harper.Linter(harper.Dialect[self.dialect.upper()])
        linter.set_lint_config(dict.fromkeys(self.ignore, False))
        return linter

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the findings per word of each completion."""
        starts = [prompt + self.separator if self.with_prompt else "" for prompt in prompts]
        return [self._errors(start, completion) for start, completion in zip(starts, completions, strict=True)]

    def _errors(self, start: str, completion: str) -> float:
        words = len(completion.split())
        if not words:
            return 0.0
        found = self._linter.lint(start + completion, language="plaintext")
        return sum(lint.span.end > len(start) for lint in found) / words
