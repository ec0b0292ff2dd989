import math
import pickle

import pytest

from text_envs.rewards import BLEU, ROUGE, ChrF

pytest.importorskip("sacrebleu")
pytest.importorskip("rouge_score")
SAID = ["", "the cat sat on the mat", "a dog ran", "the cat"]


@pytest.mark.parametrize("reward", [BLEU(), ChrF(), ChrF(word_order=2), ROUGE(), ROUGE(variant="rouge2")])
def test_from_nothing_shared_to_all_shared(reward):
    wanted = ["the cat sat on the mat"] * 4
    empty, same, other, part = reward([""] * 4, SAID, reference=wanted)
    assert empty == 0.0 and same == 1.0 and 0.0 <= other < part < 1.0
    assert pickle.loads(pickle.dumps(reward))([""] * 4, SAID, reference=wanted) == [empty, same, other, part]
    assert len(pickle.dumps(reward)) < 300
    assert reward([""], ["said"], reference=[""]) == [0.0]


def test_values_by_hand():
    # 3 of 3 words, 2 of 2 pairs, 1 of 1 triple, and 3 words said where 4 were wanted
    assert BLEU()([""], ["the cat sat"], reference=["the cat sat down"]) == [pytest.approx(math.exp(1 - 4 / 3))]
    assert ROUGE(variant="rouge1")([""], ["the cat"], reference=["the cat sat down"]) == [pytest.approx(2 / 3)]
    assert ROUGE(measure="recall")([""], ["cats the"], reference=["the cat sat down"]) == [0.25]
    assert ROUGE(measure="precision", stem=False)([""], ["the cats"], reference=["the cat sat"]) == [0.5]


@pytest.mark.parametrize("reward", [BLEU("wanted"), ChrF("wanted"), ROUGE("wanted")])
def test_any_of_several_references_will_do(reward):
    texts, several = ["a b c d"], [["x y", "a b c d"]]
    assert reward([""], texts, wanted=several) == reward([""], texts, wanted=[tuple(several[0])]) == [1.0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, r"BLEU compares with the column 'reference', and the samples have none.*BLEU\(column="),
        ({"answer": ["a"], "id": [1]}, "the samples have 'answer', 'id'"),
        ({"reference": [3]}, "holds a text or a list of texts, got 3"),
        ({"reference": [[]]}, r"got \[\]"),
        ({"reference": [["a", None]]}, r"got \['a', None\]"),
    ],
)
def test_wrong_columns_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        BLEU()([""], ["a"], **columns)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChrF(word_order=-1), "word_order is at least 0, got -1"),
        (lambda: ROUGE(variant="rouge9"), "variant is .*got 'rouge9'"),
        (lambda: ROUGE(measure="f1"), "measure is .*got 'f1'"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "package"), [(BLEU, "sacrebleu"), (ChrF, "sacrebleu"), (ROUGE, "rouge-score")], ids=lambda x: str(x)
)
def test_a_missing_package_names_the_extra(make, package, without):
    without("sacrebleu", "rouge_score")
    with pytest.raises(ImportError, match=rf"{make.__name__} needs the package {package}: .*text-envs\[rewards\]"):
        make()
