"""Preferences as .jsonl files that TRL and others read, and such files as preferences."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from ..readers import TextFile
from . import tables
from .records import Comparison, Completion, Forgotten, Pair, Rating
from .store import Store

MOST_COMPLETIONS = 100  # of one prompt on one line
EXTRA = ("annotator", "when", "seconds", "policies")


@dataclass(frozen=True)
class Imported:
    """What a file brought.

    Attributes:
        pairs: to be compared, that were not there before.
        comparisons: new ones.
        ratings: new ones.
        known: what was there already.
        forgotten: answers left out, of annotators who were forgotten here.
    """

    pairs: int = 0
    comparisons: int = 0
    ratings: int = 0
    known: int = 0
    forgotten: int = 0


def export_comparisons(
    store: Store, path: str | PathLike[str], *, extra: Collection[str] = (), ties: bool = False
) -> int:
    """Write all comparisons to a file, which is then whole or as it was; return how many.

    Args:
        store: whose.
        path: the file, a line {"prompt": ..., "chosen": ..., "rejected": ...} for each comparison.
        extra: more fields, of "annotator" (the pseudonym), "when" (seconds since 1970), "seconds" (how long it
            took) and "policies" (as "chosen_policy" and "rejected_policy").
        ties: whether ties are written too; each line then has "tie": true or false.

    Raises:
        ValueError: if there is no such extra field.
    """
    number = _write_whole(path, comparison_lines(store, extra=extra, ties=ties))
    with store.database.transaction() as connection:
        store.log(connection, None, "export", f"{number} comparisons")
    return number


def comparison_lines(store: Store, *, extra: Collection[str] = (), ties: bool = False) -> Iterator[str]:
    """Yield the lines that `export_comparisons` writes."""
    _check_extra(extra)
    return (
        _line(_comparison_fields(comparison, extra, ties))
        for comparison in store.comparisons()
        if ties or comparison.choice != "tie"
    )


def export_ratings(store: Store, path: str | PathLike[str], *, extra: Collection[str] = ()) -> int:
    """Write all ratings to a file, a line {"prompt": ..., "completion": ..., "rating": ...} for each.

    Extra fields are those of `export_comparisons`; "policies" is "policy" here.
    """
    number = _write_whole(path, rating_lines(store, extra=extra))
    with store.database.transaction() as connection:
        store.log(connection, None, "export", f"{number} ratings")
    return number


def rating_lines(store: Store, *, extra: Collection[str] = ()) -> Iterator[str]:
    """Yield the lines that `export_ratings` writes."""
    _check_extra(extra)
    return (_line(_rating_fields(rating, extra)) for rating in store.ratings())


def import_file(store: Store, path: str | PathLike[str], *, annotator: str | None = None) -> Imported:
    """Take in all of a .jsonl file, or nothing of it. What is there already stays as it is.

    A line is one of
        {"prompt": ..., "completion_a": ..., "completion_b": ...}: a pair to be compared, perhaps with "policy_a"
            and "policy_b";
        {"prompt": ..., "completions": [...]}: each two of them are such a pair, perhaps with "policies": [...];
        {"prompt": ..., "chosen": ..., "rejected": ...}: a comparison, perhaps with "tie": true;
        {"prompt": ..., "completion": ..., "rating": ...}: a rating.
    The last two may have the extra fields of `export_comparisons`. Other fields do not count, nor does null.

    Args:
        store: where it goes.
        path: the file.
        annotator: whose answers those without an "annotator" are; None: "answers in FILE". A second answer to the
            same question is then of a second such annotator, and so on.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if a line is none of these, or contradicts what is there; the message has file and line.
    """
    path = Path(fspath(path))
    if path.suffix.lower() != ".jsonl":
        raise ValueError(f"{path}: preferences are read from .jsonl files, an object on each line")
    name = annotator or f"answers in {path.name}"
    found = list(_parse(path, name))  # before others are kept from writing
    with store.database.transaction() as connection:
        before, new, known, forgotten = _pairs(connection), Counter[type](), 0, 0
        for number, thing in found:
            try:
                added = _add(store, thing, connection)
            except Forgotten:
                forgotten += 1
                continue
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}; nothing was imported") from error
            new[type(thing)] += added
            known += not added
        result = Imported(_pairs(connection) - before, new[Comparison], new[Rating], known, forgotten)
        told = f"{result.pairs} pairs, {result.comparisons} comparisons, {result.ratings} ratings"
        store.log(connection, None, "import", told)
    return result


def _add(store: Store, thing: Pair | Comparison | Rating, connection: sqlite3.Connection) -> bool:
    """Keep what a line said; return whether it is new."""
    if isinstance(thing, Comparison):
        return store.add_comparison(thing, connection)
    if isinstance(thing, Rating):
        return store.add_rating(thing, connection)
    before = _pairs(connection)
    tables.pair_id(connection, thing)
    return _pairs(connection) > before


def _pairs(connection: sqlite3.Connection) -> int:
    """Return how many pairs there are; none is ever removed."""
    return connection.execute("SELECT coalesce(max(id), 0) FROM pairs").fetchone()[0]


def _parse(path: Path, name: str) -> Iterator[tuple[int, Pair | Comparison | Rating]]:
    """Yield what the lines of a file say, each with its line."""
    times: Counter[Hashable] = Counter()  # that something was asked of somebody unknown

    def annotator(asked: Hashable) -> str:
        times[asked] += 1
        return name if times[asked] == 1 else f"{name}, {times[asked]}"

    for record in TextFile(path, "prompt").scan():
        fields = {key: value for key, value in record.fields.items() if value is not None}
        try:
            for thing in _things(fields, annotator):
                yield record.number, thing
        except ValueError as error:
            raise ValueError(f"{path}:{record.number}: {error}; nothing was imported") from error


def _things(
    fields: Mapping[str, Any], annotator: Callable[[Hashable], str]
) -> Sequence[Pair] | Sequence[Comparison] | Sequence[Rating]:
    """Return what the fields of a line say.

    Args:
        fields: those that are not null.
        annotator: names whoever answered a question, given what it was about.
    """
    if not isinstance(fields.get("prompt"), str):
        given = "there is none" if "prompt" not in fields else f"got {fields['prompt']!r:.200}"
        raise ValueError(f'"prompt" is a text, and {given} (lists of messages: join them to one text first)')
    if {"chosen", "rejected"} <= fields.keys():
        return [_comparison(fields, annotator)]
    if {"completion_a", "completion_b"} <= fields.keys():
        return [_pair(fields, "completion_a", "completion_b", "policy_a", "policy_b")]
    if "completions" in fields:
        return _all_pairs(fields["prompt"], fields["completions"], fields.get("policies"))
    if {"completion", "rating"} <= fields.keys():
        return [_rating(fields, annotator)]
    raise ValueError(
        'a line has "prompt" and either "completion_a" and "completion_b", "completions", "chosen" and '
        f'"rejected", or "completion" and "rating"; this has {", ".join(map(repr, fields))}'
    )


def _pair(fields: Mapping[str, Any], a: str, b: str, policy_a: str, policy_b: str) -> Pair:
    return Pair(fields["prompt"], fields[a], fields[b], fields.get(policy_a), fields.get(policy_b))


def _all_pairs(prompt: str, completions: Any, policies: Any) -> list[Pair]:
    if not isinstance(completions, list) or len(completions) < 2:
        raise ValueError(f'"completions" is a list of at least two texts, got {completions!r:.200}')
    if len(completions) > MOST_COMPLETIONS:
        raise ValueError(
            f'"completions" has {len(completions)} texts, which make {comb(len(completions), 2):,} pairs; give at '
            f"most {MOST_COMPLETIONS}, or the pairs that are wanted"
        )
    if policies is None:
        policies = [None] * len(completions)
    if not isinstance(policies, list) or len(policies) != len(completions):
        raise ValueError(f'"policies" is a list of one for each completion, got {policies!r:.200}')
    both = combinations(zip(completions, policies, strict=True), 2)
    return [Pair(prompt, a, b, policy_a, policy_b) for (a, policy_a), (b, policy_b) in both]


def _comparison(fields: Mapping[str, Any], annotator: Callable[[Hashable], str]) -> Comparison:
    tie = fields.get("tie", False)
    if not isinstance(tie, bool):
        raise ValueError(f'"tie" is true or false, got {tie!r:.200}')
    pair = _pair(fields, "chosen", "rejected", "chosen_policy", "rejected_policy")
    who = fields["annotator"] if "annotator" in fields else annotator(frozenset(pair.completions))
    return Comparison(pair, "tie" if tie else "a", who, fields.get("when"), fields.get("seconds"))


def _rating(fields: Mapping[str, Any], annotator: Callable[[Hashable], str]) -> Rating:
    completion = Completion(fields["prompt"], fields["completion"], fields.get("policy"))
    who = fields["annotator"] if "annotator" in fields else annotator(completion)
    return Rating(completion, fields["rating"], who, fields.get("when"), fields.get("seconds"))


def _comparison_fields(comparison: Comparison, extra: Collection[str], ties: bool) -> dict[str, Any]:
    best = comparison.swapped() if comparison.choice == "b" else comparison
    fields: dict[str, Any] = {
        "prompt": best.pair.prompt,
        "chosen": best.pair.completion_a,
        "rejected": best.pair.completion_b,
    }
    if ties:
        fields["tie"] = best.choice == "tie"
    policies = {"chosen_policy": best.pair.policy_a, "rejected_policy": best.pair.policy_b}
    return fields | _extra_fields(best, policies, extra)


def _rating_fields(rating: Rating, extra: Collection[str]) -> dict[str, Any]:
    completion = rating.completion
    fields = {"prompt": completion.prompt, "completion": completion.text, "rating": rating.value}
    return fields | _extra_fields(rating, {"policy": completion.policy}, extra)


def _extra_fields(
    answer: Comparison | Rating, policies: Mapping[str, Any], extra: Collection[str]
) -> dict[str, Any]:
    """Return the extra fields that are wanted."""
    known = {"annotator": answer.annotator, "when": answer.when, "seconds": answer.seconds}
    wanted = {name: value for name, value in known.items() if name in extra}
    return {**wanted, **policies} if "policies" in extra else wanted


def _check_extra(extra: Collection[str]) -> None:
    strange = [name for name in extra if name not in EXTRA]
    if isinstance(extra, str) or strange:
        raise ValueError(f"extra fields are of {', '.join(EXTRA)}, got {extra!r}")


def _line(fields: Mapping[str, Any]) -> str:
    """Return a line of ASCII, which every reader of JSON splits and decodes alike."""
    return json.dumps(fields) + "\n"


def _write_whole(path: str | PathLike[str], lines: Iterable[str]) -> int:
    """Write a file that is whole, or as it was before; return how many lines."""
    path = Path(fspath(path)).resolve()  # through a link, to the file that it names
    if path.exists() and not path.is_file():  # a device or a pipe is there to be written, not to be replaced
        with open(path, "w", encoding="ascii") as file:
            return sum(1 for line in lines if file.write(line))
    handle, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)  # for its owner only
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            number = sum(1 for line in lines if file.write(line))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(temporary, path.stat().st_mode)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return number
