import pickle
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text_envs.tokenizer import (
    ByteTokenizer,
    CharacterTokenizer,
    HuggingFaceTokenizer,
    Tokenizer,
    WordTokenizer,
    as_tokenizer,
)

characters = st.characters(exclude_categories=["Cs"])
TOKENIZERS = [CharacterTokenizer("abc", end=True), WordTokenizer(["a", "film"]), ByteTokenizer()]


@given(st.text(characters, min_size=1).flatmap(lambda a: st.tuples(st.just(a), st.text(st.sampled_from(a)))))
def test_characters_round_trip(pair):
    alphabet, text = pair
    tokenizer = CharacterTokenizer("".join(dict.fromkeys(alphabet)), end=True)
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids + [tokenizer.end_token_id]) == text


@given(st.lists(st.text(characters, min_size=1).map(lambda t: "".join(t.split())).filter(bool), min_size=1))
def test_words_round_trip(words):
    tokenizer = WordTokenizer(words)
    text = " ".join(words)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(f"\n {text}\t") == tokenizer.encode(text)


@given(st.text(characters))
def test_bytes_round_trip(text):
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([*tokenizer.encode(text), tokenizer.end_token_id]) == text


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=repr)
@given(data=st.data())
def test_every_sequence_of_ids_has_a_text_within_the_bound(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    text = tokenizer.decode(ids)
    assert len(text) <= len(ids) * tokenizer.max_token_length
    assert not tokenizer.unknown(text)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=repr)
def test_tokenizers_keep_the_protocol(tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    assert as_tokenizer(tokenizer) is tokenizer
    assert len(tokenizer.vocabulary) == len(set(tokenizer.vocabulary)) == tokenizer.vocab_size
    assert tokenizer.end_token_id == tokenizer.vocab_size - 1
    assert tokenizer.unit in ("character", "word", "byte")
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.vocabulary == tokenizer.vocabulary


@pytest.mark.parametrize("size", [1, 26, 62, 63, 4096])
def test_alphabets_of_any_size_are_stable_letters(size):
    tokenizer = CharacterTokenizer.of_size(size)
    text = "".join(tokenizer.vocabulary)
    assert tokenizer.vocab_size == size and tokenizer.end_token_id is None
    assert text.isalnum() and unicodedata.normalize("NFKC", text) == text
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("size", [0, 4097])
def test_alphabets_have_a_limit(size):
    with pytest.raises(ValueError, match=f"1 to 4096 symbols, got {size}"):
        CharacterTokenizer.of_size(size)


@pytest.mark.parametrize(
    ("tokenizer", "text", "named"),
    [
        (CharacterTokenizer("abc"), "abxd", "'x', 'd'"),
        (WordTokenizer(["a", "film"]), "a fine film", "'fine'"),
        (ByteTokenizer(), "a\ud800", r"'\\ud800'"),
    ],
)
def test_text_without_tokens_is_named(tokenizer, text, named):
    with pytest.raises(ValueError, match=f"has no token for {named}"):
        tokenizer.encode(text)
    assert tokenizer.unknown(text)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=repr)
def test_ids_outside_the_vocabulary_are_refused(tokenizer):
    for bad in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match=f"id {bad} is outside"):
            tokenizer.decode([0, bad])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CharacterTokenizer(""), "at least one character"),
        (lambda: CharacterTokenizer("abca"), "'a' more than once"),
        (lambda: CharacterTokenizer("a\ud800"), "half a character"),
        (lambda: WordTokenizer([]), "at least one word"),
        (lambda: WordTokenizer(["a film"]), "'a film' is not a word"),
        (lambda: WordTokenizer(["<end>"]), "end token's name"),
    ],
)
def test_bad_vocabularies_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_words_come_in_order_of_appearance_and_once():
    tokenizer = WordTokenizer.from_texts(["a fine film", "a film"], words=["fine"])
    assert tokenizer.vocabulary == ["fine", "a", "film", "<end>"]


@pytest.mark.parametrize("thing", [object(), "gpt2", 3])
def test_other_objects_are_no_tokenizers(thing):
    with pytest.raises(TypeError, match="is not a tokenizer"):
        as_tokenizer(thing)


@pytest.fixture(scope="module")
def hugging_face():
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"[UNK]": 0, "[BOS]": 1, "[EOS]": 2, "a": 3, "fine": 4, "film": 5}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, eos_token="[EOS]", bos_token="[BOS]", unk_token="[UNK]"
    )


def test_a_tokenizer_of_transformers_fits_as_it_is(hugging_face):
    adapter = as_tokenizer(hugging_face)
    assert isinstance(adapter, HuggingFaceTokenizer) and isinstance(adapter, Tokenizer)
    assert (adapter.vocab_size, adapter.end_token_id) == (6, 2)
    assert adapter.encode("a fine film") == [3, 4, 5]  # no [BOS]
    assert adapter.decode([3, 4, 5, 2]) == "a fine film"  # no [EOS]
    assert adapter.unknown("x") == [] and adapter.unknown("\ud800") == ["\ud800"]
    assert adapter.max_token_length == 5
