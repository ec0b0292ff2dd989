import gymnasium as gym
import numpy as np
import pytest

from text_envs import Prompts, sources
from text_envs.rewards import Length
from text_envs.tasks.sentiment import Sentiment
from text_envs.tokenizer import ByteTokenizer


def test_sentiment_likes_good_words():
    env = gym.make("text_envs/Sentiment-v0", level="utterance").unwrapped
    rewards = []
    for said in ("was awful", "", "was wonderful"):
        env.reset(seed=1)
        rewards.append(env.step(said)[1])
    assert -1 <= rewards[0] < rewards[1] == 0 < rewards[2] <= 1


def test_sentiments_default_can_be_learned_from_scratch():
    task = Sentiment()
    assert 150 <= task.vocab_size <= 300 and len(task.prompts) == 60
    values = {word: task.reward([""], [word])[0] for word in task.tokenizer.vocabulary}
    signs = np.sign(list(values.values())).tolist()
    assert min(signs.count(-1), signs.count(1)) >= 30 and signs.count(0) >= 90
    assert {len(task.codec.encode(text)) for text in task.prompts.texts} == {6}  # the budget is visible


def test_splits_share_the_vocabulary_and_no_prompt():
    train, test = Sentiment(split="train"), Sentiment(split="test")
    assert train.tokenizer.vocabulary == test.tokenizer.vocabulary
    assert not {*train.prompts.texts} & {*test.prompts.texts}
    assert {*train.prompts.texts} | {*test.prompts.texts} == {*Sentiment().prompts.texts}


def test_sentiment_takes_prompts_tokenizer_and_reward(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("Once upon a time\nOnce upon a hill\nLong ago\n", encoding="utf-8")
    task = Sentiment(
        prompts=path, prompt_words=3, tokenizer=ByteTokenizer(), reward="text_envs.rewards:Length", max_new_tokens=5
    )
    assert task.prompts.texts == ("Once upon a", "Long ago")
    assert task.context_length == len("Once upon a") + 5
    assert isinstance(task.reward, Length)
    assert Sentiment(prompts=["One prompt."], prompt_words=None).prompts.texts == ("One prompt.",)
    with pytest.raises(ValueError, match="prompt_words is at least 1"):
        Sentiment(prompt_words=0)


def test_prompts_of_the_users_are_shown_as_they_are(tmp_path, monkeypatch):
    texts = ("One two three four five six seven.", "one two three four five six seven.", "One two  three")
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    for prompts in (list(texts), [*texts, texts[0]], path, str(path), Prompts(texts)):
        assert Sentiment(prompts=prompts, tokenizer=ByteTokenizer()).prompts.texts == texts
    monkeypatch.setitem(sources.NAMED, "mine", lambda: (texts, {}))
    named = Sentiment(prompts="mine", tokenizer=ByteTokenizer())
    assert named.prompts.texts == ("One two three four five six", "one two three four five six", "One two three")


def test_what_is_shown_alike_is_in_one_split():
    prompts = [f"{first} {case}{rest}" for first in range(40) for case in "Xx" for rest in ("y a", "y  b")]
    shown = [
        {
            " ".join(text.split()).casefold()
            for text in Sentiment(prompts=prompts, prompt_words=2, split=split).prompts.texts
        }
        for split in ("train", "test")
    ]
    assert len(shown[0]) + len(shown[1]) == 40 and not shown[0] & shown[1]


def test_the_column_of_a_file_can_be_named(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("title,rating\nOnce upon,3\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no column 'text', only 'title', 'rating'; pass column="):
        Sentiment(prompts=path)
    task = Sentiment(prompts=path, column="title")
    assert task.prompts == Prompts(("Once upon",), {"rating": ("3",)})


@pytest.mark.parametrize("level", ["token", "utterance"])
def test_silence_and_prompts_of_one_word_earn_nothing(level):
    env = gym.make("text_envs/Sentiment-v0", level=level, prompts=["Well", "So"]).unwrapped
    env.reset(seed=1)
    *_, info = env.step(env.end_token_id if level == "token" else "")
    assert info["reward_clean"] == 0.0 and info["completion"] == "" and info["prompt"] in ("Well", "So")
