import itertools
import json
from functools import cache

import pytest

from text_envs import UtteranceEnv
from text_envs.tasks.twenty_questions import TwentyQuestions
from text_envs.words import KNOWLEDGE

PETS = {"dog": ["barks", "legs"], "cat": ["legs"], "fish": ["wet"], "rock": []}


def naive(knowledge, turns):
    """Return the best expected return, by trying every word at every set of things."""
    traits = sorted({trait for has in knowledge.values() for trait in has})

    @cache
    def search(possible, left):
        if not left or not possible:
            return 0.0
        guesses = [left / turns + search(possible - {thing}, left - 1) for thing in possible]
        for trait in traits:
            yes = frozenset(thing for thing in possible if trait in knowledge[thing])
            if yes and yes != possible:
                guesses.append(search(yes, left - 1) + search(possible - yes, left - 1))
        return max(guesses)

    return search(frozenset(knowledge), turns) / len(knowledge)


@pytest.mark.parametrize("turns", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("knowledge", [PETS, dict(itertools.islice(KNOWLEDGE.items(), 7))])
def test_the_optimum_is_a_naive_searchs(knowledge, turns):
    task = TwentyQuestions(knowledge=knowledge, turns=turns)
    assert task.optimal_return() == pytest.approx(naive(knowledge, turns), abs=1e-12)


def test_a_game():
    env = UtteranceEnv(TwentyQuestions(knowledge=PETS, turns=4))
    env.reset(seed=0)
    env._engine.said().columns["secret"][0] = env.task.things.index("cat")
    assert env.step("wet")[0] == "? wet no"
    assert env.step("legs")[0] == "? wet no legs yes"
    assert env.step("dog")[:3] == ("? wet no legs yes dog no", 0.0, False)
    assert env.step("cat")[:3] == ("? wet no legs yes dog no cat yes", 0.25, True)


def test_what_this_project_knows_tells_its_things_apart():
    assert len({frozenset(traits) for traits in KNOWLEDGE.values()}) == len(KNOWLEDGE) == 24
    traits = [trait for has in KNOWLEDGE.values() for trait in has]
    assert len(set(traits)) == 10
    assert all(2 <= traits.count(trait) <= 12 for trait in traits)


def test_sizes_take_the_first():
    task = TwentyQuestions(items=3, questions=2)
    assert task.things == list(KNOWLEDGE)[:3] and task.traits == ["alive", "animal"]
    assert TwentyQuestions(items=2, questions=0).traits == []


def test_knowledge_of_a_file(tmp_path):
    path = tmp_path / "pets.json"
    path.write_text(json.dumps(PETS), encoding="utf-8")
    assert TwentyQuestions(knowledge=str(path)).things == list(PETS)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="pets.json: not JSON in UTF-8"):
        TwentyQuestions(knowledge=path)
    path.write_text('{"cat": ["furry"], "cat": ["big"], "dog": ["big"]}', encoding="utf-8")
    with pytest.raises(ValueError, match="pets.json: .* an object has 'cat' more than once"):
        TwentyQuestions(knowledge=path)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"knowledge": "none.json"}, FileNotFoundError, "'none.json' is no file; pass a JSON file"),
        ({"knowledge": "a" * 5000}, FileNotFoundError, "knowledge='a{190,199} is no file"),
        ({"knowledge": ["dog"]}, TypeError, r"knowledge is a mapping .*, got \['dog'\]"),
        ({"knowledge": {"dog": "barks"}}, TypeError, r"knowledge\['dog'\] is a list of traits, got 'barks'"),
        ({"knowledge": {"dog": [["legs"]]}}, TypeError, r"things and traits are words, got \['legs'\] in"),
        ({"knowledge": {"dog": ["no"]}}, ValueError, "the word 'no' is the game's own"),
        ({"knowledge": {"dog": ["cat"], "cat": []}}, ValueError, "'cat' is a thing and a trait of 'dog'"),
        ({"knowledge": {"my dog": ["tail"], "cat": []}}, ValueError, "'my dog' is not a word"),
        ({"knowledge": {"dog": []}}, ValueError, "items is at least 2, got 1"),
        ({"items": 1}, ValueError, "items is at least 2, got 1"),
        ({"items": 25}, ValueError, "items is at most 24, what the knowledge has, got 25"),
        ({"questions": 11}, ValueError, "questions is at most 10, what the knowledge has, got 11"),
    ],
)
def test_impossible_knowledge_is_refused(keywords, error, message):
    with pytest.raises(error, match=message):
        TwentyQuestions(**keywords)
