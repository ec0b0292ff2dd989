"""TextTask: tasks whose prompts are real text and whose score is a reward function."""

from __future__ import annotations

from typing import Any, Literal

from ..datasets import Prompts
from ..rewards.base import RewardFunction, evaluate
from ..streams import RowRandom
from ..tokenizer import as_tokenizer
from .base import Samples, Score, Task, Utterances, pad

LongPrompts = Literal["refuse", "truncate"]
_TAKEN = ("prompts", "completions", "completion_ids")


class TextTask(Task):
    """Continue a prompt; a reward function says what the continuation earns.

    The reward is called once per step for all rows that closed an utterance (under `dense`, for all rows).
    `info` of a closing step has `prompt`, `completion` and, for a WeightedSum, `reward_terms`.

    Args:
        prompts: where prompts come from, each equally likely.
        tokenizer: ours or one of transformers; its end token is the end action and counts in the budget.
        reward: see `text_envs.rewards.base`.
        max_new_tokens: T, the budget of a completion.
        max_prompt_tokens: room for the prompt; None: the longest prompt's tokens.
        long_prompts: what to do with a prompt that does not fit: "refuse" raises, "truncate" keeps its last
            tokens.

    Raises:
        ValueError: if a prompt has no tokens or does not fit, or a column takes a reserved name.
    """

    def __init__(
        self,
        prompts: Prompts,
        tokenizer: Any,
        reward: RewardFunction,
        *,
        max_new_tokens: int,
        max_prompt_tokens: int | None = None,
        long_prompts: LongPrompts = "refuse",
    ) -> None:
        if long_prompts not in ("refuse", "truncate"):
            raise ValueError(f'long_prompts is "refuse" or "truncate", got {long_prompts!r}')
        for name in _TAKEN:
            if name in prompts.columns:
                raise ValueError(f"rewards already get {name!r}; rename that column of the prompts")
        codec = as_tokenizer(tokenizer)
        encoded = [codec.encode(text) for text in prompts.texts]
        room = max(map(len, encoded)) if max_prompt_tokens is None else max_prompt_tokens
        texts = list(prompts.texts)
        for i, ids in enumerate(encoded):
            if not ids:
                raise ValueError(
                    f"prompt {texts[i]!r} has no tokens, and an observation holds at least one; leave it out"
                )
            if len(ids) > room:
                if long_prompts == "refuse":
                    raise ValueError(
                        f"prompt {texts[i][:200]!r} has {len(ids)} tokens, more than max_prompt_tokens={room}; "
                        'raise max_prompt_tokens, shorten the prompt, or pass long_prompts="truncate"'
                    )
                encoded[i] = ids[-room:]
                texts[i] = codec.decode(encoded[i])
        super().__init__(tokenizer, max_prompt_tokens=room, max_new_tokens=max_new_tokens)
        self.reward = reward
        self.prompts = Prompts(tuple(texts), prompts.columns)
        self._tokens, self._lengths = pad(encoded, self.vocab_size)

    def sample(self, random: RowRandom) -> Samples:
        """Return uniformly drawn prompts."""
        index = random.integers(len(self.prompts), 1)[:, 0]
        return Samples(self._tokens[index], self._lengths[index], {"index": index})

    def score(self, said: Utterances) -> Score:
        """Return the reward of completions."""
        ids = said.ids()
        completions = [self.codec.decode(row) for row in ids]
        index = said.columns["index"].tolist()
        prompts = [self.prompts.texts[i] for i in index]
        columns: dict[str, list[Any]] = {
            name: [values[i] for i in index] for name, values in self.prompts.columns.items()
        }
        columns["completion_ids"] = ids
        value, terms = evaluate(self.reward, prompts, completions, columns)
        details: dict[str, Any] = {"prompt": prompts, "completion": completions}
        if terms:
            details["reward_terms"] = terms
        return Score(value, details)
