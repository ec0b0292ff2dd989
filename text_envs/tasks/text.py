"""TextTask: tasks whose prompts are real text and whose score is a reward function.

What one task shows and earns does not live here but in its own file; where prompts come from, in
`text_envs.datasets`.
"""

from __future__ import annotations

import re
import string
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv

from ..datasets import Prompts, load_prompts
from ..proposers import Proposer, random_candidates
from ..rewards.base import RewardFunction, evaluate
from ..sources import NAMED
from ..streams import RowRandom
from ..tokenizer import WordTokenizer, as_tokenizer
from .base import Samples, Score, Task, Utterances, a_bool, at_least, pad

LongPrompts = Literal["refuse", "keep_end", "keep_start"]
PromptSource = str | PathLike[str] | Iterable[str] | Mapping[str, Sequence[Any]] | Prompts | None
Split = Literal["train", "test"] | None
_TAKEN = ("prompts", "completions", "completion_ids", "self")  # a reward that is an object gets itself as self
REMEMBERED = 4096  # prompts read from disk: those of a batch, which `dense` asks for at every step
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


class _Drawn(NamedTuple):
    """A prompt as it is shown, the tokens of all that is shown, and its columns."""

    text: str
    ids: list[int]
    known: dict[str, Any]


class TextTask(Task):
    """Continue a prompt; a reward function says what the continuation earns.

    The reward is called once per step for all rows that closed an utterance (under `dense`, for all rows). It
    gets the plain prompts, without instruction and chat template. `info` of a closing step has `prompt`,
    `completion` and, for a WeightedSum, `reward_terms`. A completion that the tokenizer cannot say (utterance
    level only) earns -1. No closed forms: a reference is `best_of`.

    Args:
        prompts: the path of a file, a named source, texts, columns or `Prompts`, see `datasets.load_prompts`; each
            is equally likely. Of texts that are shown exactly alike the first stays.
        tokenizer: ours or one of transformers; its end token is the end action and counts in the budget. None:
            a word tokenizer over some common words and all words shown, those of the other split too, so that
            both have the same actions.
        reward: see `text_envs.rewards.base`.
        words: what the default tokenizer knows beyond the prompts.
        column: the column of a file, or of columns, that holds the prompts; rewards get the others.
        lazy: leave a file that is larger than memory on disk; a prompt is read and encoded when an episode shows
            it. `tokenizer` and `max_prompt_tokens` must then be given.
        split: "train" or "test" for disjoint parts, chosen by a hash of the prompt; None: all.
        prompt_words: words of a prompt that are kept, white space made single; None: the prompt as it is.
        conditions: columns that every prompt is combined with, each combination equally likely, such as
            `[{"style": "formal"}, {"style": "casual"}]`.
        instruction: what is shown, with {text} for the prompt and {name} for a condition or a column.
        max_new_tokens: T, the budget of a completion.
        max_prompt_tokens: room for all that is shown; None: what the longest takes.
        long_prompts: what to do with a prompt that does not fit: "refuse" raises, "keep_end" and "keep_start"
            cut the other side of it, but neither the instruction nor the template.
        chat_template: wrap what is shown in the tokenizer's own chat template, as a user's message that the
            completion answers.

    Attributes:
        prompts: the prompts before any is cut to fit, or combined with the conditions.

    Raises:
        ValueError: if a prompt has no tokens or does not fit, a column takes a reserved name, the instruction
            hides the prompt or a condition, the tokenizer has no chat template, or lazy prompts lack a
            tokenizer or a size.
        TypeError: if `chat_template` or `lazy` is no bool.
    """

    family = "real text"
    invalid_reward = -1.0

    def __init__(
        self,
        prompts: PromptSource,
        tokenizer: Any,
        reward: RewardFunction,
        *,
        words: Iterable[str] = (),
        column: str = "text",
        lazy: bool = False,
        split: Split = None,
        prompt_words: int | None = None,
        conditions: Sequence[Mapping[str, Any]] = ({},),
        instruction: str = "{text}",
        max_new_tokens: int,
        max_prompt_tokens: int | None = None,
        long_prompts: LongPrompts = "refuse",
        chat_template: bool = False,
    ) -> None:
        if long_prompts not in ("refuse", "keep_end", "keep_start"):
            raise ValueError(f'long_prompts is "refuse", "keep_end" or "keep_start", got {long_prompts!r}')
        if max_prompt_tokens is not None:
            at_least(1, max_prompt_tokens, "max_prompt_tokens")
        chosen = load_prompts(prompts, column=column, lazy=lazy)
        if prompt_words is not None:
            chosen = chosen.first_words(at_least(1, prompt_words, "prompt_words"))
        chosen = chosen.unique()
        if chosen.lazy and (tokenizer is None or max_prompt_tokens is None):
            raise ValueError(
                "prompts that stay on disk are not encoded ahead: pass tokenizer= and max_prompt_tokens=, got "
                f"{tokenizer!r:.80} and {max_prompt_tokens}"
            )
        self.prompts, self.conditions, self.instruction = chosen, list(conditions), instruction
        self._check_names()
        if tokenizer is None:
            shown = (self._instruct(*self._row(i)) for i in range(self._combinations()))
            tokenizer = WordTokenizer.from_texts(shown, words=words)
        if split is not None:
            self.prompts = chosen.split(split)
        self.reward = reward
        self.long_prompts = long_prompts
        self.tokenizer, self.codec = tokenizer, as_tokenizer(tokenizer)
        self.chat_template = _checked_template(chat_template, tokenizer)
        self._recent: OrderedDict[int, _Drawn] = OrderedDict()  # prompts read from disk, by number
        self._shown: list[str] = []
        encoded: list[list[int]] = []
        if not self.prompts.lazy:
            rows = (self._fit(*self._row(i), max_prompt_tokens) for i in range(self._combinations()))
            self._shown, encoded = map(list, zip(*rows, strict=True))
        room = max(map(len, encoded)) if max_prompt_tokens is None else max_prompt_tokens
        super().__init__(tokenizer, max_prompt_tokens=room, max_new_tokens=max_new_tokens)
        self._tokens, self._lengths = pad(encoded, self.vocab_size)

    def sample(self, random: RowRandom) -> Samples:
        """Return uniformly drawn prompts."""
        index = random.integers(self._combinations(), 1)[:, 0]
        if not self.prompts.lazy:
            return Samples(self._tokens[index], self._lengths[index], {"index": index})
        encoded = [self._read(i).ids for i in index.tolist()]
        return Samples(*pad(encoded, self.vocab_size), {"index": index})

    def score(self, said: Utterances) -> Score:
        """Return the reward of completions."""
        ids = said.ids()
        completions = [self.codec.decode(row) for row in ids]
        index = said.columns["index"].tolist()
        names = self._names()
        if self.prompts.lazy:
            drawn = [self._read(i) for i in index]
            prompts, known = [one.text for one in drawn], [one.known for one in drawn]
        else:
            prompts, known = [self._shown[i] for i in index], [self._row(i)[1] for i in index] if names else []
        columns: dict[str, list[Any]] = {name: [values[name] for values in known] for name in names}
        columns["completion_ids"] = ids
        value, terms = evaluate(self.reward, prompts, completions, columns)
        details: dict[str, Any] = {"prompt": prompts, "completion": completions}
        if terms:
            details["reward_terms"] = terms
        return Score(value, details)

    def _combinations(self) -> int:
        return len(self.prompts) * len(self.conditions)

    def _names(self) -> list[str]:
        """Return the columns that rewards get."""
        return [*self.prompts.columns, *self.conditions[0]]

    def _row(self, i: int) -> tuple[str, dict[str, Any]]:
        """Return the i-th prompt and its columns, conditions included."""
        i, which = divmod(i, len(self.conditions))
        known = {name: values[i] for name, values in self.prompts.columns.items()}
        return self.prompts.texts[i], known | dict(self.conditions[which])

    def _read(self, i: int) -> _Drawn:
        """Return the i-th of prompts that stay on disk; the last ones are remembered."""
        if i not in self._recent:
            text, known = self._row(i)
            self._recent[i] = _Drawn(*self._fit(text, known, self.max_prompt_tokens), known)
        self._recent.move_to_end(i)
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)
        return self._recent[i]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of copies what can be read again."""
        return {**self.__dict__, "_recent": OrderedDict()}

    def _instruct(self, text: str, known: Mapping[str, Any]) -> str:
        return self.instruction.format(**{**known, "text": text})

    def _encode(self, text: str, known: Mapping[str, Any]) -> list[int]:
        """Return the tokens of what is shown of a prompt: its instruction and template included."""
        shown = self._instruct(text, known)
        if not self.chat_template:
            return self.codec.encode(shown)
        message = [{"role": "user", "content": shown}]
        return self.tokenizer.apply_chat_template(
            message, add_generation_prompt=True, tokenize=True, return_dict=False
        )

    def _fit(self, text: str, known: Mapping[str, Any], room: int | None) -> tuple[str, list[int]]:
        """Return a prompt, cut where it must be, and the tokens of what is shown."""
        ids = self._encode(text, known)
        if not ids:
            raise ValueError(f"prompt {text!r} has no tokens, and an observation holds at least one; leave it out")
        if room is None or len(ids) <= room:
            return text, ids
        if self.long_prompts == "refuse":
            raise ValueError(
                f"prompt {text[:200]!r} has {len(ids)} tokens, more than max_prompt_tokens={room}; raise "
                'max_prompt_tokens, shorten the prompt, or pass long_prompts="keep_end" or "keep_start"'
            )
        kept = self.codec.encode(text)
        while len(ids) > room:  # again where the cut text has other tokens than the part that it was cut to
            over = len(ids) - room
            kept = kept[over:] if self.long_prompts == "keep_end" else kept[:-over]
            cut = self.codec.decode(kept).strip("\ufffd")  # a character cut in two
            if not cut:
                raise ValueError(
                    f"max_prompt_tokens={room} leaves no room for the prompt {text[:200]!r} beside its instruction "
                    "and template; raise it"
                )
            ids = self._encode(cut, known)
        return cut, ids

    def _check_names(self) -> None:
        """Check what the columns, the conditions and the fields of the instruction are called."""
        if len({frozenset(condition) for condition in self.conditions}) != 1:
            raise ValueError(f"conditions are dicts with the same names, at least one, got {self.conditions!r}")
        for name in self._names():
            if name in _TAKEN or (name in self.prompts.columns and name in self.conditions[0]):
                raise ValueError(f"rewards already get {name!r}; rename that column of the prompts")
        needed = {"text", *self.conditions[0]}
        try:
            fields = {name for _, name, _, _ in string.Formatter().parse(self.instruction) if name is not None}
        except ValueError:  # a brace without its partner
            fields = set()
        if not needed <= fields <= needed | set(self.prompts.columns):
            raise ValueError(
                f"instruction={self.instruction!r} must show "
                f"{', '.join(f'{{{name}}}' for name in sorted(needed))} and may show columns of the prompts "
                f"({', '.join(self.prompts.columns) or 'none'}), each in braces; a brace itself is written twice"
            )


def best_of(env: VectorEnv, n: int, propose: Proposer | None = None, *, seed: int = 0) -> float:
    """Return a reference score: the mean over rows of the best clean return among n completions of a prompt.

    It depends on n and on who proposes, so it is no end of a scale: show it beside normalised scores, never in
    an aggregate.

    Args:
        env: a batched environment of a task of one turn, such as
            `gym.make_vec("text_envs/Style-v0", num_envs=256, level="utterance")`; it is reset.
        n: completions of each prompt.
        propose: `propose(contexts, n, generators)` returns n texts for each context, such as samples of an
            untrained language model; None: uniformly random tokens, see `proposers.random_candidates`.
        seed: of the environment, and with the row's number of the row's generator.

    Raises:
        ValueError: if `propose` returns another number of texts, or the episodes go on.

    Source: Stiennon et al. 2020, "Learning to summarize from human feedback", arXiv:2009.01325.
    """
    at_least(1, n, "n")
    task: Task = env.unwrapped.task  # type: ignore[attr-defined]
    contexts, _ = env.reset(seed=seed)
    if propose is None:
        opening = env.unwrapped._engine.opening(np.arange(env.num_envs))  # type: ignore[attr-defined]
        texts: Sequence[Sequence[str]] = random_candidates(task, opening.said, n, opening.random)
    else:
        generators = [np.random.default_rng([seed, row]) for row in range(env.num_envs)]
        texts = propose(list(contexts), n, generators)
    counts = {len(row) for row in texts}
    if len(texts) != env.num_envs or counts != {n}:
        raise ValueError(
            f"propose returned {sorted(counts)} texts each for {len(texts)} contexts; return {n} texts for each of "
            f"the {env.num_envs}"
        )
    best = np.full(env.num_envs, -np.inf)
    for said in zip(*texts, strict=True):
        env.reset(seed=seed)
        _, _, terminated, _, infos = env.step(said)
        if not terminated.all():
            raise ValueError("best_of compares single utterances, but the episodes go on: the task has more turns")
        best = np.maximum(best, infos.get("final_info", infos)["reward_clean"])
    return float(best.mean())


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case: letters and digits, with apostrophes and hyphens inside."""
    return _WORD.findall(text.casefold())


def shown_words(prompts: PromptSource, prompt_words: int | None, ours: int) -> int | None:
    """Return how many words of a prompt are kept: `ours` of the small sets and named sources, all of the user's."""
    named = prompts is None or (isinstance(prompts, str) and prompts in NAMED)
    return ours if prompt_words is None and named else prompt_words


def _checked_template(chat_template: bool, tokenizer: Any) -> bool:
    """Return `chat_template`.

    Raises:
        TypeError: if it is no bool.
        ValueError: if it is True and the tokenizer has no template.
    """
    try:
        a_bool(chat_template, "chat_template")
    except TypeError as error:
        raise TypeError(f"{error}; a template of your own goes to tokenizer.chat_template") from None
    if chat_template and not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"chat_template=True, but {tokenizer!r:.80} has no chat template; pass the tokenizer of an "
            "instruction-tuned model, or set its chat_template"
        )
    return chat_template
