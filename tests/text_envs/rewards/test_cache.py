import copy
import pickle
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from text_envs.rewards import Cached, Length, RewardError, WeightedSum
from text_envs.rewards.base import evaluate


class Counting:
    """The length of each completion, plus its `bonus`; says what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, prompts, completions, bonus=None, **columns):
        assert not columns
        self.asked.append(list(zip(prompts, completions, strict=True)))
        return [len(text) + add for text, add in zip(completions, bonus or [0] * len(completions), strict=True)]


def test_each_pair_is_asked_once():
    inner = Counting()
    reward = Cached(inner)
    assert reward(["p", "p", "q", "p"], ["a", "bb", "a", "a"]) == [1, 2, 1, 1]
    assert reward(["p", "p"], ["ccc", "bb"], rating=[1, 2]) == [3, 2]
    assert inner.asked == [[("p", "a"), ("p", "bb"), ("q", "a")], [("p", "ccc")]]
    assert (reward.hits, reward.misses) == (2, 4)


def test_named_columns_are_part_of_the_question_and_the_others_are_kept_from_the_reward():
    inner = Counting()
    reward = Cached(inner, columns=["bonus"])
    assert reward(["p"] * 3, ["a"] * 3, bonus=[1, 2, 1], other=[0, 0, 0]) == [2, 3, 2]
    assert reward(["p"], ["a"], bonus=[2]) == [3] and len(inner.asked) == 1
    with pytest.raises(ValueError, match=r"needs the columns \['bonus'\]; the samples have \['other'\]"):
        reward(["p"], ["a"], other=[1])
    with pytest.raises(ValueError, match="cannot be a cache's key.*complex"):
        reward(["p"], ["a"], bonus=[1j])


def test_the_values_used_last_stay():
    inner = Counting()
    reward = Cached(inner, max_size=2)
    for text in ("a", "b", "a", "c", "a"):  # b leaves when c comes
        reward([""], [text])
    assert [asked[0][1] for asked in inner.asked] == ["a", "b", "c"]
    assert reward([""] * 5, list("uvwxy")) == [1] * 5  # a batch may be larger than the memory


def test_none_is_remembered_and_failures_are_not():
    answers = iter([[None], [float("nan")], [2.0]])
    reward = Cached(lambda prompts, completions: next(answers))
    assert reward([""], ["none"]) == reward([""], ["none"]) == [None]
    total = WeightedSum({"cached": (reward, 1.0), "length": (Length(), 1.0)})
    assert total([""], ["none"]) == [1.0]
    with pytest.raises(RewardError, match="returned nan for prompt '', completion 'a'"):
        reward([""], ["a"])
    assert reward([""], ["a"]) == [2.0]


def test_a_file_outlives_the_process_and_serves_several_rewards(tmp_path):
    path, inner = tmp_path / "rewards.sqlite", Counting()
    texts = ["a", "tränen 😀", "\ud800", ""]
    assert Cached(inner, path=path, name="count")([""] * 4, texts) == [1, 8, 1, 0]
    again = Cached(inner, path=str(path), name="count")
    assert again([""] * 4, texts) == [1, 8, 1, 0] and len(inner.asked) == 1
    assert again([""] * 4, texts) == [1, 8, 1, 0] and (again.hits, again.misses) == (8, 0)
    assert Cached(Length(), path=path, name="length")([""], ["a b"]) == [2.0]
    assert Cached(Length(), path=path, name="other")([""], ["a"]) == [1.0]
    assert Cached(lambda prompts, completions: [0.1], name="tenth", path=path)([""], ["a"]) == [0.1]
    assert Cached(Counting(), name="tenth", path=path)([""], ["a"]) == [0.1]


def test_copies_share_and_pickles_start_empty(tmp_path):
    reward = Cached(Length(), path=tmp_path / "rewards.sqlite", name="length", max_size=5)
    reward([""], ["one two"])
    assert copy.deepcopy(reward) is reward
    other = pickle.loads(pickle.dumps(reward))
    assert (other.hits, other.misses, other.max_size) == (0, 0, 5)
    assert other([""], ["one two"]) == [2.0] and (other.hits, other.misses) == (1, 0)


WRITER = """
import sys
from text_envs.rewards import Cached
def reward(prompts, completions):
    return [float(text) for text in completions]
cached = Cached(reward, path=sys.argv[1], name="numbers")
sys.stdin.readline()
for i in range(60):
    assert cached(["", ""], [str(i), str(i + int(sys.argv[2]))]) == [i, i + int(sys.argv[2])]
"""


def test_several_processes_write_one_file(tmp_path):
    path = tmp_path / "rewards.sqlite"
    root = Path(__file__).parents[3]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, path, str(100 * i)], cwd=root, stdin=subprocess.PIPE, text=True
        )
        for i in (1, 2, 3)
    ]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.close()
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    known = Cached(lambda prompts, completions: 1 / 0, path=path, name="numbers")
    numbers = [i + offset for offset in (0, 100, 200, 300) for i in range(60)]
    assert known([""] * len(numbers), list(map(str, numbers))) == numbers


def test_several_threads_share_one_memory(tmp_path):
    reward = Cached(Length(), max_size=10, path=tmp_path / "rewards.sqlite", name="length")
    failed = []

    def work():
        try:
            for i in range(100):
                words = [1 + i % 3, 1 + i % 17, 1]
                assert reward([""] * 3, ["a " * many for many in words]) == words
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and reward.hits + reward.misses == 4 * 100 * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no database at all, but long enough to look like one" * 20, "is damaged, or no cache of rewards"),
        (None, "is a database, but no cache of rewards"),
    ],
)
def test_other_files_are_refused_and_left_as_they_are(tmp_path, content, message):
    path = tmp_path / "rewards.sqlite"
    if content is None:
        with sqlite3.connect(path) as file:
            file.execute("CREATE TABLE people (name TEXT)")
        file.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(RewardError, match=message):
        Cached(Length(), path=path, name="length")
    assert path.read_bytes() == before


def test_a_file_that_is_damaged_on_the_way_is_an_error(tmp_path):
    path = tmp_path / "rewards.sqlite"
    reward = Cached(Length(), path=path, name="length")
    reward([""] * 500, [f"number {i}" for i in range(500)])
    content = path.read_bytes()
    damaged = content[:4096] + bytes(len(content) - 4096)
    path.write_bytes(damaged)
    with pytest.raises(RewardError, match="is damaged.*left as it is"):
        reward([""], ["new"])
    assert path.read_bytes() == damaged
    with pytest.raises(RewardError, match="cannot be used: unable to open"):
        Cached(Length(), path=tmp_path / "no such folder" / "rewards.sqlite", name="length")


@pytest.mark.parametrize("value", ["much", b"1", float("inf")])
def test_what_no_reward_answers_is_refused_in_a_file(tmp_path, value):
    path = tmp_path / "rewards.sqlite"
    reward = Cached(Length(), path=path, name="length")
    reward([""], ["a"])
    with sqlite3.connect(path) as file:
        file.execute("UPDATE rewards SET value = ?", (value,))
    file.close()
    with pytest.raises(RewardError, match=f"sqlite holds {value!r} for 'length', which no reward answers"):
        Cached(Length(), path=path, name="length")([""], ["a"])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Cached(WeightedSum({"a": (Length(), 1.0)})), TypeError, "put Cached around its costly terms"),
        (lambda: Cached(3), TypeError, "Cached takes a reward, got 3"),
        (lambda: Cached(Length(), columns="rating"), TypeError, r'such as columns=\["rating"\]'),
        (lambda: Cached(Length(), path="file"), ValueError, "path='file' and name=None: a file needs a name"),
        (lambda: Cached(Length(), name="length"), ValueError, "path=None and name='length'"),
        (
            lambda: Cached(Length(), path="file", name="x\ud800"),
            ValueError,
            r"name='x\\ud800' holds a lone surrogate",
        ),
        (lambda: Cached(Length(), max_size=0), ValueError, "max_size is at least 1, or None, got 0"),
    ],
)
def test_wrong_settings_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_what_the_reward_raises_names_it():
    with pytest.raises(RewardError, match="reward Cached of .*lambda.* raised ZeroDivisionError"):
        evaluate(Cached(lambda prompts, completions: 1 / 0), ["p"], ["c"], {})
