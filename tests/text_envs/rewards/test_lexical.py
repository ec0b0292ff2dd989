import pickle

import pytest

from text_envs.rewards import Keywords, Length, Lipogram, Regex, Repetition

TEXTS = ["", "river", "no no no no", "hill, (RIVER), by hill,"]


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (Length(), [0, 1, 4, 4]),
        (Length(unit="characters"), [0, 5, 11, 23]),
        (Length(minimum=2), [0, 0.5, 1, 1]),
        (Length(maximum=2), [1, 1, 0.5, 0.5]),
        (Length(maximum=0), [1, 0, 0, 0]),
        (Length(target=2), [0, 0.5, 0.5, 0.5]),
        (Length(minimum=1, maximum=3), [0, 1, 0.75, 0.75]),
        (Keywords(["River", "hill"]), [0, 0.5, 0, 1]),
        (Keywords(["no  NO", "by hill"]), [0, 0, 0.5, 0.5]),
        (Keywords(("(River), by", "hill river")), [0, 0, 0, 1]),
        (Keywords(["river no", "hill"]), [0, 0, 0, 0.5]),
        (Regex("[a-z]*"), [1, 1, 0, 0]),
        (Regex("(?i)river", whole=False), [0, 1, 0, 1]),
        (Repetition(1), [0, 0, 0.75, 0.25]),
        (Repetition(2), [0, 0, 2 / 3, 0]),
        (Repetition(9), [0, 0, 0, 0]),
        (Lipogram("R"), [0, 0, 1, 0.75]),
        (Lipogram("ro", unit="letters"), [0, 3 / 5, 0.5, 13 / 15]),
    ],
)
def test_values(reward, expected):
    assert reward([""] * 4, TEXTS) == pytest.approx(expected)
    assert pickle.loads(pickle.dumps(reward))([""] * 4, TEXTS) == pytest.approx(expected)


def test_tokens_are_counted_by_their_column():
    reward = Length(target=2, unit="tokens")
    assert reward(["", ""], ["a b c", "d"], completion_ids=[[5, 6], [1, 2, 3, 4]]) == [1.0, 0.5]
    with pytest.raises(ValueError, match="needs the column completion_ids"):
        reward([""], ["a"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Keywords([]), "at least one word"),
        (lambda: Keywords(["a", "..."]), r"keyword '\.\.\.' has no word in it.*leave it out"),
        (lambda: Keywords([""]), "keyword '' has no word in it"),
        (lambda: Repetition(0), "n=0"),
        (lambda: Length(unit="bytes"), "unit is .*got 'bytes'"),
        (lambda: Length(target=3, maximum=4), "target=3 is both limits"),
        (lambda: Length(minimum=3, maximum=2), "0 <= minimum <= maximum, got 3 and 2"),
        (lambda: Length(minimum=-1), "got -1 and None"),
        (lambda: Length(maximum=-1), "got None and -1"),
        (lambda: Regex("(a"), r"'\(a' is not a regular expression"),
        (lambda: Lipogram(""), "at least one"),
        (lambda: Lipogram("a1"), "letters only.*'a1'"),
        (lambda: Lipogram("a", unit="lines"), "unit is .*got 'lines'"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_keywords_are_a_list_of_texts():
    with pytest.raises(TypeError, match=r"got the text 'river'; pass \['river'\]"):
        Keywords("river")
    with pytest.raises(TypeError, match=r"a keyword is a text, got 3 \(int\)"):
        Keywords([3])
