"""One Markdown page about all environments, made from their tasks: `text-envs page FILE`."""

from __future__ import annotations

from collections.abc import Iterable

from .candidates import CandidateActions
from .catalog import Entry, Example, entries, example, keywords_of, make
from .exact import Values
from .token_env import TokenEnv
from .vector_env import TokenVectorEnv

HEAD = """\
# Environments

Made by `text-envs page docs/environments.md`; do not edit by hand.

Every environment can be had token by token, `gym.make(id)`, utterance by utterance,
`gym.make(id, level="utterance")`, and as a batch, `gym.make_vec(id, num_envs=B)`. V is the vocabulary size, T the
tokens that all utterances of an episode can have, L the length of the context. *Optimal* and *random* are exact
expectations of the clean return over the prompts: of the best policy, and of one that draws uniformly from the
legal tokens. Where prompts were sampled, the standard error is given.
"""

CANDIDATES = """\
## Candidate level

`level="candidate"` proposes k utterances at every turn; the action, `Discrete(k)`, is which of them to say. The
observation is one `Box(0, V, (L + k * C,), int64)`: the context's L ids, then C ids of each candidate, each part
right-padded with V. The attribute `candidate_layout` has these sizes and splits an observation; `candidates` has
the texts. Where fewer than k are proposed, `action_masks()` and `info["action_mask"]` say which are there. The
games have candidates of their own (`propose=None`); the others need `propose`. Optimal and random returns are those
of token level: over all utterances, and of uniform legal tokens.
"""


def markdown() -> str:
    """Return the page.

    Raises:
        ImportError: if a task needs an extra that is not installed; the page is about all of them.
    """
    found = []
    for entry in entries():
        if isinstance(entry, ImportError):
            raise entry
        found.append(entry)
    rows = [
        (
            f"[{e.id}](#{_anchor(e.id)})",
            e.family,
            turns(e),
            f"{e.vocab_size:,}",
            f"{e.horizon:,}",
            *ends(e.values),
        )
        for e in found
    ]
    parts = [HEAD, _table(("id", "family", "turns", "V", "T", "optimal", "random"), rows), _shared()]
    parts += [section(entry, example(make(entry.id).task)) for entry in found]
    return "\n".join(parts)


def section(entry: Entry, episode: Example) -> str:
    """Return what the page says about one environment."""
    length, size = entry.context_length, entry.vocab_size
    limit = "as many as the context holds" if entry.turns is None else f"{entry.turns}"
    lines = [
        f"## {entry.id}\n\n{entry.summary}\n\n{entry.about}\n",
        f"- Token level: observation `Box(0, {size}, ({length},), int64)`, action `Discrete({size})`.",
        f"- Turns: {limit}; tokens of an episode's utterances: at most {entry.horizon:,}.",
        *([f"- Tokens: {vocabulary(entry)}."] if entry.tokens else []),
        f"- {_ends_in_words(entry.values)}",
    ]
    if entry.source:
        lines.append(f"- Source: {entry.source}")
    if entry.keywords:
        lines.append("\n" + _table(("keyword", "default", "meaning"), _keyword_rows(entry.keywords)))
    lines.append(f"Example ({episode.how}):\n\n```text\n" + transcript(episode) + "\n```\n")
    return "\n".join(lines)


def transcript(episode: Example) -> str:
    """Return an episode as lines of text."""
    lines = [_block("shown", episode.shown)]
    for turn in episode.turns:
        lines.append(_block("said", turn.said))
        lines.append(f"earned  {turn.reward:.4g}")
        if turn.reply:
            lines.append(_block("reply", turn.reply))
    return "\n".join(lines)


def turns(entry: Entry) -> str:
    """Return the number of turns as text, a dash where only the context bounds them."""
    return "-" if entry.turns is None else f"{entry.turns}"


def vocabulary(entry: Entry) -> str:
    """Return the tokens as text, a space as such."""
    return " ".join("(space)" if token == " " else f"`{token}`" for token in entry.tokens)


def ends(values: Values | None) -> tuple[str, str]:
    """Return the optimal and the random return as text, a dash where they are not known."""
    if values is None:
        return "-", "-"
    return (
        _with_error(values.optimal, values.optimal_error),
        _with_error(values.random, values.random_error),
    )


def _shared() -> str:
    head = ("keyword", "default", "meaning")
    level = ("level", "'token'", 'what a step says: "token", "utterance" or "candidate"')
    single = {name for name, _, _ in keywords_of(TokenEnv)}
    batch = [row for row in keywords_of(TokenVectorEnv) if row[0] not in single]
    return "\n".join(
        [
            "## Keywords of every environment\n",
            _table(head, _keyword_rows([level, *keywords_of(TokenEnv)])),
            "Of a batch, `gym.make_vec`, moreover:\n",
            _table(head, _keyword_rows(batch)),
            CANDIDATES,
            _table(head, _keyword_rows(keywords_of(CandidateActions))),
        ]
    )


def _ends_in_words(values: Values | None) -> str:
    if values is None:
        return "No exact values: compare with a reference agent, such as the best of n samples."
    optimal, random = ends(values)
    one = values.prompts == 1
    how = {
        "enumerated": "its one prompt solved" if one else f"all {values.prompts:,} prompts solved",
        "symmetry": f"by symmetry {'one prompt stands' if one else f'{values.prompts:,} prompts stand'} for all",
        "sampled": f"mean of {values.prompts:,} sampled prompts",
    }[values.method]
    return f"Optimal return {optimal}, uniformly random {random} ({how}; {values.states:,} states)."


def _keyword_rows(keywords: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    return [(f"`{name}`", f"`{default}`", meaning) for name, default, meaning in keywords]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _with_error(value: float, error: float) -> str:
    return f"{value:.4g} ± {error:.1g}" if error else f"{value:.4g}"


def _block(name: str, text: str) -> str:
    lines = ["".join(map(_printable, line)) for line in text.splitlines()] or [""]
    return f"{name:<8}" + ("\n" + " " * 8).join(lines)


def _printable(character: str) -> str:
    return character if character.isprintable() else f"\\x{ord(character):02x}"


def _anchor(id: str) -> str:
    return "".join(c for c in id.lower() if c.isalnum() or c in "-_")
