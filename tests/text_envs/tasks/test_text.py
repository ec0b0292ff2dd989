import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from text_envs import Prompts, TokenEnv, TokenVectorEnv, UtteranceEnv, UtteranceVectorEnv, sources
from text_envs.rewards import Length, RewardError, WeightedSum
from text_envs.tasks.sentiment import Sentiment
from text_envs.tasks.text import TextTask
from text_envs.tokenizer import ByteTokenizer, CharacterTokenizer, WordTokenizer

PROMPTS = Prompts(("the film", "the book"), {"rating": (1.5, -2.0)})


class Recorder:
    """A reward that remembers what it was called with."""

    def __init__(self):
        self.calls = []

    def __call__(self, prompts, completions, **columns):
        self.calls.append((prompts, completions, columns))
        return [float(len(text)) for text in completions]


def make(reward, prompts=PROMPTS, **keywords):
    tokenizer = WordTokenizer.from_texts(PROMPTS.texts, words=["good", "bad"])
    return TextTask(prompts, tokenizer, reward, **{"max_new_tokens": 3, **keywords})


def test_the_reward_gets_texts_columns_and_ids_once_a_step():
    reward = Recorder()
    task = make(reward)
    env = TokenVectorEnv(task, 6)
    env.reset(seed=1)
    good, bad, end = *task.codec.encode("good bad"), task.end_token_id
    env.step(np.array([good, good, end, good, bad, bad]))
    env.step(np.array([end, good, good, good, end, bad]))
    shown, said, columns = zip(*reward.calls, strict=True)
    assert said == ([""], ["good", "bad"])
    assert columns[1]["completion_ids"] == [[good, end], [bad, end]]
    for prompts, column in zip(shown, columns, strict=True):
        assert column["rating"] == [PROMPTS.columns["rating"][PROMPTS.texts.index(prompt)] for prompt in prompts]


@pytest.mark.parametrize("level", [TokenVectorEnv, UtteranceVectorEnv])
def test_the_reward_is_called_once_for_all_rows_that_closed(level):
    reward = Recorder()
    env = level(make(reward), 50)
    env.reset(seed=1)
    if level is TokenVectorEnv:
        for said in np.random.default_rng(0).integers(0, env.vocab_size, (6, 50)):
            env.step(said)
        assert len(reward.calls) <= 6
    else:
        env.step(["good bad", "", "bad", "unheard-of", "good"] * 10)
        assert [len(call[0]) for call in reward.calls] == [40]


def test_infos_tell_what_was_said():
    env = TokenEnv(make(WeightedSum({"length": (Length(), 2.0)})))
    context, _ = env.reset(seed=1)
    assert env.step(env.tokenizer.encode("good")[0])[4] == {}
    *_, info = env.step(env.end_token_id)
    prompt = env.tokenizer.decode(context[:2])
    assert info == {"reward_clean": 2.0, "prompt": prompt, "completion": "good", "reward_terms": {"length": 1.0}}


def test_prompts_are_equally_likely():
    counts = np.bincount(TokenVectorEnv(make(Length()), 10_000).reset(seed=1)[0][:, 1])
    assert counts[counts > 0].tolist() == pytest.approx([5000, 5000], abs=200)


@pytest.mark.parametrize("level", [TokenVectorEnv, UtteranceVectorEnv])
def test_the_reward_is_never_called_for_nobody(level):
    reward = Recorder()
    env = level(make(reward, max_new_tokens=1), 2, dense=True, autoreset_mode="NextStep")
    env.reset(seed=1)
    for _ in range(4):  # every other step only resets
        env.step([0, 0] if level is TokenVectorEnv else ["good", "bad"])
    assert [len(prompts) for prompts, _, _ in reward.calls] == [2, 2]


@pytest.mark.parametrize(
    "reward",
    [
        lambda prompts, completions, **columns: 1 / 0,
        lambda prompts, completions, **columns: [float("nan")] * len(completions),
        lambda prompts, completions, **columns: [1.0],
        lambda prompts, completions, **columns: [None] * len(completions),
    ],
    ids=["raises", "nan", "length", "none"],
)
def test_a_failing_reward_stops_the_run_and_shows_the_text(reward):
    env = TokenVectorEnv(make(reward), 2)
    env.reset(seed=1)
    env.step(np.full(2, env.tokenizer.encode("good")[0]))
    with pytest.raises(RewardError, match="prompt 'the (film|book)', completion 'good'"):
        env.step(np.full(2, env.end_token_id))


@pytest.mark.parametrize("level", [TokenEnv, UtteranceEnv, TokenVectorEnv, UtteranceVectorEnv])
def test_after_a_failed_step_only_a_reset_of_all_rows_helps(level, same):
    failures = iter([True])

    def fails_once(prompts, completions, **columns):
        if next(failures, False):
            raise OSError("no connection")
        return [float(len(text)) for text in completions]

    batched = issubclass(level, TokenVectorEnv)
    action = "good" if level in (UtteranceEnv, UtteranceVectorEnv) else 0
    env, other = (level(make(reward, max_new_tokens=1), *[3][:batched]) for reward in (fails_once, Recorder()))
    action = (action,) * 3 if batched else action
    env.reset(seed=1)
    with pytest.raises(RewardError, match="no connection"):
        env.step(action)
    for _ in range(2):
        with pytest.raises(ResetNeeded, match=r"the last step failed: call reset\(\)"):
            env.step(action)
    if batched:
        with pytest.raises(ResetNeeded, match=r"call reset\(\) for all rows"):
            env.reset(options={"reset_mask": np.array([True, False, True])})
        same(env.reset(seed=2, options={"reset_mask": np.ones(3, bool)}), other.reset(seed=2))
    else:
        same(env.reset(seed=2), other.reset(seed=2))
    ours, theirs = env.step(action), other.step(action)
    same(ours[:4], theirs[:4])


def test_a_prompt_that_does_not_fit_is_refused_or_cut_as_asked():
    with pytest.raises(ValueError, match="more than max_prompt_tokens=0"):
        make(Length(), max_prompt_tokens=0)
    with pytest.raises(ValueError, match="'the film' has 2 tokens, more than max_prompt_tokens=1.*truncate"):
        make(Length(), max_prompt_tokens=1)
    task = make(Length(), max_prompt_tokens=1, long_prompts="truncate")
    assert task.prompts.texts == ("film", "book") and task.context_length == 4
    with pytest.raises(ValueError, match="long_prompts is"):
        make(Length(), long_prompts="drop")


def test_prompts_need_tokens_and_columns_need_free_names():
    with pytest.raises(ValueError, match="prompt ' ' has no tokens"):
        make(Length(), Prompts((" ",)))
    with pytest.raises(ValueError, match="has no token for 'unheard-of'"):
        make(Length(), Prompts(("unheard-of",)))
    with pytest.raises(ValueError, match="rewards already get 'completions'"):
        make(Length(), Prompts(("film",), {"completions": ("x",)}))


def test_prompts_of_different_lengths_have_the_same_budget():
    task = TextTask(Prompts(("a", "abc")), CharacterTokenizer("abc"), Length(), max_new_tokens=2)
    env = TokenVectorEnv(task, 20)
    before, _ = env.reset(seed=1)
    assert {*(before != 3).sum(axis=1)} == {1, 3}
    env.step(np.zeros(20, int))
    assert env.step(np.zeros(20, int))[2].all()


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


def test_a_tokenizer_of_transformers_stays_visible_as_it_is():
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<e>": 0, "good": 1, "film": 2}, unk_token="<e>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<e>")
    env = gym.make("text_envs/Sentiment-v0", tokenizer=tokenizer, prompts=["film film"]).unwrapped
    assert env.tokenizer is tokenizer and (env.vocab_size, env.end_token_id) == (3, 0)
    env.reset(seed=1)
    env.step(1)
    assert env.step(0)[4]["completion"] == "good"
