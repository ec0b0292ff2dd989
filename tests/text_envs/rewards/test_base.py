import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest

from text_envs.rewards import Length, RewardError, WeightedSum, conversational, load_reward, per_sample
from text_envs.rewards.base import evaluate

PROMPTS, COMPLETIONS = ["p", "q", "r"], ["one", "one two", "bad text"]


def call(reward, **columns):
    return evaluate(reward, PROMPTS, COMPLETIONS, columns)[0].tolist()


def returning(values):
    return lambda prompts, completions, **columns: values


def words(prompt, completion):
    return len(completion.split())


def politeness(prompts, completions, **columns):
    return [completion.count("good") for completion in completions]


def makes_a_class():
    return Length


LONG = Length()


def test_functions_of_one_pair_or_of_messages_become_rewards():
    assert call(per_sample(words)) == call(Length()) == [1.0, 2.0, 2.0]

    def messages(prompts, completions, rating):
        assert prompts[0] == [{"role": "user", "content": "p"}]
        return [len(said[0]["content"]) * rate for said, rate in zip(completions, rating, strict=True)]

    assert call(conversational(messages), rating=[1, 2, 3]) == [3.0, 14.0, 24.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, float("nan"), 2.0], "returned nan for prompt 'q', completion 'one two'"),
        ([1.0, 2.0, float("inf")], "returned inf for prompt 'r', completion 'bad text'"),
        ([1.0, None, 2.0], "returned None for prompt 'q'.*terms of a WeightedSum"),
        ([1.0, "2", 3.0], "returned '2' for prompt 'q'"),
        ([1.0, 2.0], "returned 2 values for 3 completions.*completion 'one'.*per_sample"),
        (1.0, "returned 1.0 for 3 completions"),
        (None, "returned None for 3 completions"),
        (b"abc", r"returned b'abc' for 3 completions.*return a list"),
        ({1.0, 2.0, 3.0}, r"returned \{1.0, 2.0, 3.0\} for 3 completions.*return a list"),
        ({"one": 1.0, "two": 2.0, "three": 3.0}, r"returned \{'one': 1.0, .*\} for 3 completions.*return a list"),
        (np.ones((3, 1)), r"returned an array of shape \(3, 1\) for 3 completions"),
        ([np.ones(1)] * 3, r"returned array\(\[1.\]\) for prompt 'p'"),
        ([1.0, 10**400, 2.0], "returned an integer too large for a float for prompt 'q'"),
    ],
)
def test_what_is_not_one_finite_number_each_stops_the_run(values, message):
    with pytest.raises(RewardError, match=message):
        call(returning(values))


def test_numpy_arrays_and_integers_are_fine():
    assert call(returning(np.array([1, 2, 3], np.float32))) == call(returning([1, 2, True + 2])) == [1.0, 2.0, 3.0]


def test_arrays_and_tensors_are_treated_alike():
    torch = pytest.importorskip("torch")
    assert call(returning(torch.ones(3))) == call(returning([torch.tensor(1.0)] * 3)) == [1.0] * 3
    for values in (torch.ones(3, 1), np.ones((3, 1))):
        with pytest.raises(RewardError, match=r"an array of shape \(3, 1\)"):
            call(returning(values))
    with pytest.raises(RewardError, match="returned tensor"):
        call(returning([torch.ones(1)] * 3))


def test_a_reward_may_change_the_lists_it_gets():
    def clears(prompts, completions, rating, **columns):
        values = [float(len(text)) for text in completions]
        for given in (prompts, completions, rating):
            given.clear()
        return values

    rating = [1, 2, 3]
    both = WeightedSum({"first": (clears, 1.0), "second": (clears, 1.0)})
    assert call(clears, rating=rating) == [3.0, 7.0, 8.0] and call(both, rating=rating) == [6.0, 14.0, 16.0]
    assert (PROMPTS, COMPLETIONS, rating) == (["p", "q", "r"], ["one", "one two", "bad text"], [1, 2, 3])


def test_a_reward_may_change_what_is_in_the_lists_it_gets():
    def changes(prompts, completions, tags, facts, where, numbers, completion_ids):
        seen = [len(x) + len(y["of"]) + len(ids) for x, y, ids in zip(tags, facts, completion_ids, strict=True)]
        for i, ids in enumerate(completion_ids):
            tags[i].append("new")
            facts[i]["of"].append("new")
            where[i][0].append("new")
            numbers[i] += 1
            ids.clear()
        return seen

    tags, facts, places = ["a"], {"of": []}, (["x"],)
    rows = {"tags": [tags] * 3, "facts": [facts, facts, {"of": []}], "where": [places] * 3}
    numbers, ids = np.zeros(1), [[1], [], [1, 2]]
    rows |= {"numbers": [numbers] * 3, "completion_ids": ids}
    both = WeightedSum({"first": (changes, 1.0), "second": (changes, 1.0)})
    assert call(changes, **rows) == [2.0, 1.0, 3.0] and call(both, **rows) == [4.0, 2.0, 6.0]
    assert (tags, facts, places, numbers, ids) == (["a"], {"of": []}, (["x"],), 0, [[1], [], [1, 2]])


def test_a_reward_that_raises_is_chained_and_shows_the_text():
    def broken(prompts, completions, **columns):
        raise KeyError("missing")

    def broken_pair(prompt, completion):
        return 1.0 if completion == "one" else 1 / 0

    with pytest.raises(RewardError, match="broken raised KeyError.*completion 'one'.*first of 3") as caught:
        call(broken)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(RewardError, match="broken_pair raised ZeroDivisionError.*completion 'one two'") as caught:
        call(per_sample(broken_pair))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_long_texts_are_cut_in_messages():
    with pytest.raises(RewardError) as caught:
        evaluate(returning([float("nan")]), ["p" * 10_000], ["c" * 10_000], {})
    assert len(str(caught.value)) < 1000


def test_a_weighted_sum_adds_and_reports():
    reward = WeightedSum({"length": (Length(), 0.5), "some": (returning([None, 2.0, -1.0]), 10.0)})
    values, terms = evaluate(reward, PROMPTS, COMPLETIONS, {})
    assert values.tolist() == [0.5, 21.0, -9.0] == reward(PROMPTS, COMPLETIONS)
    np.testing.assert_array_equal(terms["length"], [1.0, 2.0, 2.0])
    np.testing.assert_array_equal(terms["some"], [np.nan, 2.0, -1.0])
    nested = WeightedSum({"inner": (reward, 2.0)})
    assert call(nested) == [1.0, 42.0, -18.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([None, 1.0, 2.0], "no term of .* applies to prompt 'p'"),
        ([float("nan"), 1.0, 2.0], "returned nan for prompt 'p'"),
        ([1.0], "returned 1 values for 3"),
    ],
)
def test_a_weighted_sum_checks_its_terms(values, message):
    with pytest.raises(RewardError, match=message):
        call(WeightedSum({"term": (returning(values), 1.0)}))


def test_a_weighted_sum_must_not_overflow():
    huge = {"a": (returning([1.0, 1e300, 2.0]), 1e300), "b": (Length(), 1.0)}
    with pytest.raises(
        RewardError, match=r"sum is inf for prompt 'q', .*'a': \(1e\+300, 1e\+300\).*make them small"
    ):
        call(WeightedSum(huge))
    opposite = {"a": (returning([1e300] * 3), 1e300), "b": (returning([1e300] * 3), -1e300)}
    with pytest.raises(RewardError, match="sum is nan for prompt 'p'"):
        call(WeightedSum(opposite))


@pytest.mark.parametrize(
    ("terms", "error"),
    [
        ({}, ValueError),
        ({"a": Length()}, TypeError),
        ({"a": (1.0, Length())}, TypeError),
        ({"a": (Length(), float("nan"))}, ValueError),
        ({"a": (Length(), "1")}, ValueError),
        ({"a": (Length(), None)}, ValueError),
        ({"a": (Length(), 10**400)}, ValueError),
        ([("a", Length())], TypeError),
        ({"a": (Length, 1.0)}, TypeError),
    ],
)
def test_wrong_terms_are_refused(terms, error):
    with pytest.raises(error, match="term"):
        WeightedSum(terms)


@pytest.mark.parametrize("make", [Length, lambda: per_sample(words), lambda: WeightedSum({"l": (Length(), 1.0)})])
def test_rewards_are_shared_not_copied_and_can_be_pickled(make):
    reward = make()
    assert copy.deepcopy({"reward": reward})["reward"] is reward
    assert call(pickle.loads(pickle.dumps(reward))) == call(reward)


def test_rewards_are_loaded_from_strings():
    assert isinstance(load_reward("text_envs.rewards:Length"), Length)
    assert load_reward(words) is words


@pytest.mark.parametrize("name", ["politeness", "LONG"])
def test_a_string_may_name_the_reward_itself(name):
    assert load_reward(f"{__name__}:{name}") is globals()[name]
    env = gym.make("text_envs/Sentiment-v0", level="utterance", reward=f"{__name__}:{name}")
    env.reset(seed=1)
    assert env.step("good good")[1] == 2.0


@pytest.mark.parametrize(
    ("reward", "error", "message"),
    [
        ("text_envs.rewards", ValueError, "not of the form"),
        ("text_envs.rewards:", ValueError, "not of the form"),
        ("no_such_module:Length", ValueError, "No module named"),
        ("text_envs.rewards:NoSuchReward", ValueError, "no attribute 'NoSuchReward'"),
        ("builtins:dict", TypeError, "a reward is a callable"),
        (3, TypeError, "a reward is a callable.*got 3"),
        (Length, TypeError, r"reward is the class Length; pass an instance, such as Length\(\)"),
        (f"{__name__}:makes_a_class", TypeError, "reward is the class Length; pass an instance"),
        (f"{__name__}:words", TypeError, "needs prompt, completion; name a function that needs none.*per_sample"),
        (f"{__name__}:PROMPTS", TypeError, "a reward is a callable"),
    ],
)
def test_what_cannot_be_loaded_is_refused(reward, error, message):
    with pytest.raises(error, match=message):
        load_reward(reward)
