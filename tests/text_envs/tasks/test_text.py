import json
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st

from text_envs import Prompts, TokenEnv, TokenVectorEnv, UtteranceEnv, UtteranceVectorEnv
from text_envs.lazy import LazyColumn
from text_envs.proposers import random_candidates
from text_envs.rewards import Length, RewardError, WeightedSum
from text_envs.streams import RowRandom, Stream
from text_envs.tasks.text import TextTask, best_of, words_of
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
    return TextTask(prompts, reward=reward, **{"tokenizer": tokenizer, "max_new_tokens": 3, **keywords})


def shown(task, n=200):
    """Return the contexts that episodes begin with."""
    return {*UtteranceVectorEnv(task, n).reset(seed=1)[0]}


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


def test_a_prompt_that_does_not_fit_is_refused_or_cut_at_the_chosen_side():
    with pytest.raises(ValueError, match="max_prompt_tokens is at least 1, got 0"):
        make(Length(), max_prompt_tokens=0)
    with pytest.raises(ValueError, match="'the film' has 2 tokens, more than max_prompt_tokens=1.*keep_end"):
        make(Length(), max_prompt_tokens=1)
    for side, texts in {"keep_end": ("film", "book"), "keep_start": ("the", "the")}.items():
        env = UtteranceVectorEnv(make(Length(), max_prompt_tokens=1, long_prompts=side), 20)
        contexts, _ = env.reset(seed=1)
        *_, infos = env.step(["good"] * 20)
        assert {*contexts} == {*infos["final_info"]["prompt"]} == {*texts} and env.task.context_length == 4
    with pytest.raises(ValueError, match='long_prompts is "refuse", "keep_end" or "keep_start", got \'drop\''):
        make(Length(), long_prompts="drop")


def test_the_instruction_is_never_cut():
    keywords = {"instruction": "good : {text} bad", "tokenizer": None, "words": ["good"]}
    task = make(Length(), Prompts(("a b c d",)), max_prompt_tokens=5, long_prompts="keep_start", **keywords)
    assert shown(task) == {"good : a b bad"}
    with pytest.raises(ValueError, match="max_prompt_tokens=3 leaves no room for the prompt 'a b c d'"):
        make(Length(), Prompts(("a b c d",)), max_prompt_tokens=3, long_prompts="keep_end", **keywords)


def test_a_cut_inside_a_character_still_fits():
    for side in ("keep_end", "keep_start"):
        task = TextTask(
            ["žžž"], ByteTokenizer(), Length(), max_new_tokens=1, max_prompt_tokens=5, long_prompts=side
        )
        assert shown(task) == {"žž"}


def test_prompts_need_tokens_and_columns_need_free_names():
    with pytest.raises(ValueError, match="prompt ' ' has no tokens"):
        make(Length(), Prompts((" ",)))
    with pytest.raises(ValueError, match="has no token for 'unheard-of'"):
        make(Length(), Prompts(("unheard-of",)))
    with pytest.raises(ValueError, match="rewards already get 'completions'"):
        make(Length(), Prompts(("film",), {"completions": ("x",)}))
    with pytest.raises(ValueError, match="rewards already get 'self'"):
        make(Length(), Prompts(("film",), {"self": ("x",)}))
    with pytest.raises(ValueError, match="rewards already get 'mood'"):
        make(Length(), Prompts(("film",), {"mood": ("x",)}), conditions=[{"mood": 1}], instruction="{mood} {text}")
    with pytest.raises(ValueError, match="no prompts"):
        make(Length(), [])
    with pytest.raises(ValueError, match="prompt 0 is a text with at least one word, got ''"):
        make(Length(), [""])


def test_prompts_of_different_lengths_have_the_same_budget():
    task = TextTask(Prompts(("a", "abc")), CharacterTokenizer("abc"), Length(), max_new_tokens=2)
    env = TokenVectorEnv(task, 20)
    before, _ = env.reset(seed=1)
    assert {*(before != 3).sum(axis=1)} == {1, 3}
    env.step(np.zeros(20, int))
    assert env.step(np.zeros(20, int))[2].all()


def test_conditions_are_combined_with_every_prompt_and_reach_the_reward():
    reward = Recorder()
    task = make(
        reward,
        tokenizer=None,
        words=["good"],
        conditions=[{"mood": "glad"}, {"mood": "sad"}],
        instruction="{mood} {rating} {text}",
    )
    assert shown(task) == {f"{m} {t}" for m in ("glad", "sad") for t in ("1.5 the film", "-2.0 the book")}
    env = UtteranceVectorEnv(task, 50)
    contexts, _ = env.reset(seed=1)
    *_, infos = env.step(["good"] * 50)
    prompts, _, columns = reward.calls[0]
    assert prompts == list(infos["final_info"]["prompt"])
    seen = zip(columns["mood"], columns["rating"], prompts, strict=True)
    assert contexts == tuple(f"{mood} {rating} {prompt}" for mood, rating, prompt in seen)


@pytest.mark.parametrize(
    "instruction", ["say more", "{text} {nobody}", "{mood}", "{text} {}", "{text.upper}", "{mood} {text} {"]
)
def test_an_instruction_shows_the_prompt_and_known_names(instruction):
    with pytest.raises(ValueError, match=r"must show \{mood\}, \{text\} and may show .*\(rating\)"):
        make(Length(), conditions=[{"mood": "glad"}], instruction=instruction)


def test_conditions_have_the_same_names():
    for conditions in ([], [{"mood": 1}, {"style": 2}]):
        with pytest.raises(ValueError, match="conditions are dicts with the same names, at least one"):
            make(Length(), conditions=conditions)


def hugging_face_tokenizer(template=True):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = "<e> user : assistant good film the long".split()
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<e>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<e>")
    if template:
        tokenizer.chat_template = (
            "{% for message in messages %}{{ message.role + ' : ' + message.content + ' ' + eos_token + ' ' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ 'assistant :' }}{% endif %}"
        )
    return tokenizer


def test_a_tokenizer_of_transformers_stays_visible_as_it_is():
    tokenizer = hugging_face_tokenizer()
    env = gym.make("text_envs/Sentiment-v0", tokenizer=tokenizer, prompts=["film film"]).unwrapped
    assert env.tokenizer is tokenizer and (env.vocab_size, env.end_token_id) == (8, 0)
    env.reset(seed=1)
    env.step(4)
    assert env.step(0)[4]["completion"] == "good"


def test_a_chat_template_wraps_what_is_shown_and_the_reward_gets_the_plain_prompt():
    tokenizer, reward = hugging_face_tokenizer(), Recorder()
    keywords = {"instruction": "long {text}", "chat_template": True}
    task = make(reward, Prompts(("the film",)), tokenizer=tokenizer, **keywords)
    env = TokenEnv(task)
    wrapped = [*tokenizer.convert_tokens_to_ids("user : long the film <e> assistant :".split())]
    observation, _ = env.reset(seed=1)
    assert observation[: task.max_prompt_tokens].tolist() == wrapped
    info = env.step(tokenizer.eos_token_id)[4]
    assert reward.calls[0][:2] == (["the film"], [""]) and info["prompt"] == "the film"
    cut = make(
        reward,
        Prompts(("the film good",)),
        tokenizer=tokenizer,
        max_prompt_tokens=7,
        long_prompts="keep_end",
        **keywords,
    )
    TokenEnv(cut).reset(seed=1)
    assert cut.sample(RowRandom(1, [0], Stream.PROMPT)).tokens.tolist() == [
        tokenizer.convert_tokens_to_ids("user : long good <e> assistant :".split())
    ]


def test_a_chat_template_must_be_there():
    for tokenizer in (hugging_face_tokenizer(template=False), ByteTokenizer()):
        with pytest.raises(ValueError, match="has no chat template; pass the tokenizer of an instruction-tuned"):
            make(Length(), tokenizer=tokenizer, chat_template=True)
    with pytest.raises(TypeError, match="chat_template is True or False, got 'mine'"):
        make(Length(), tokenizer=hugging_face_tokenizer(), chat_template="mine")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "prompts.jsonl"
    lines = [json.dumps({"text": f"text number {i:012d}", "number": i}) for i in range(300)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_lazy_prompts_are_read_when_shown(path, monkeypatch):
    keywords = {"max_prompt_tokens": 30, "conditions": [{"mood": 1}, {"mood": 2}], "instruction": "{mood}{text}"}
    reward = Recorder()
    task = make(reward, path, lazy=True, tokenizer=ByteTokenizer(), **keywords)
    reads = []
    one = LazyColumn.__getitem__
    monkeypatch.setattr(LazyColumn, "__getitem__", lambda self, i: reads.append(i) or one(self, i))
    env = UtteranceVectorEnv(task, 5)
    assert reads == []
    contexts, _ = env.reset(seed=1)
    assert 5 <= len(reads) <= 10
    env.step(["a"] * 5)
    said, _, columns = reward.calls[0]
    assert [f"{mood}{text}" for mood, text in zip(columns["mood"], said, strict=True)] == list(contexts)
    assert [f"text number {number:012d}" for number in columns["number"]] == said
    assert UtteranceVectorEnv(task, 7).reset(seed=1)[0][:5] == contexts


def test_lazy_prompts_show_what_those_in_memory_show(path, same):
    keywords = {"max_prompt_tokens": 9, "long_prompts": "keep_end", "tokenizer": ByteTokenizer(), "split": "train"}
    a, b = (TokenVectorEnv(make(Length(), path, lazy=lazy, **keywords), 20) for lazy in (True, False))
    same(a.reset(seed=3), b.reset(seed=3))
    for _ in range(3):
        same(a.step(np.full(20, 65)), b.step(np.full(20, 65)))


@pytest.mark.parametrize("remembered", [1, 20])
def test_lazy_prompts_of_open_episodes_are_not_read_again(path, monkeypatch, same, remembered):
    monkeypatch.setattr("text_envs.tasks.text.REMEMBERED", remembered)
    keywords = {"max_prompt_tokens": 30, "tokenizer": ByteTokenizer(), "max_new_tokens": 8}
    kept, lazy = (
        TokenVectorEnv(make(Length(), path, lazy=lazy, **keywords), 20, dense=True) for lazy in (False, True)
    )
    reads = []
    one = LazyColumn.__getitem__
    monkeypatch.setattr(LazyColumn, "__getitem__", lambda self, i: reads.append(i) or one(self, i))
    same(lazy.reset(seed=3), kept.reset(seed=3))
    first = len(reads)
    for _ in range(7):
        same(lazy.step(np.full(20, 65)), kept.step(np.full(20, 65)))
    assert (len(reads) == first) is (remembered == 20)
    assert len(lazy.task._recent) <= remembered and not pickle.loads(pickle.dumps(lazy.task))._recent


@pytest.mark.parametrize("given", [{"tokenizer": None, "max_prompt_tokens": 5}, {"max_prompt_tokens": None}])
def test_lazy_prompts_need_a_tokenizer_and_a_size(path, given):
    with pytest.raises(ValueError, match="not encoded ahead: pass tokenizer= and max_prompt_tokens="):
        make(Length(), path, lazy=True, **given)


def test_lazy_prompts_are_refused_when_they_turn_out_too_long(path):
    env = TokenEnv(make(Length(), path, lazy=True, tokenizer=ByteTokenizer(), max_prompt_tokens=5))
    with pytest.raises(ValueError, match="'text number 0000.* more than max_prompt_tokens=5"):
        env.reset(seed=1)


def test_best_of_is_a_mean_of_maxima():
    env = UtteranceVectorEnv(make(Length(), max_new_tokens=8), 100)
    asked = []

    def propose(contexts, n, generators):
        asked.append(contexts)
        return [[" ".join(["good"] * int(k)) for k in g.integers(0, 8, n)] for g in generators]

    draws = [np.random.default_rng([5, row]).integers(0, 8, 3) for row in range(100)]
    assert best_of(env, 3, propose, seed=5) == np.mean([max(draw) for draw in draws])
    assert asked == [list(env.reset(seed=5)[0])]
    assert best_of(env, 3, lambda contexts, n, generators: [["unheard-of"] * n] * len(contexts)) == -1.0
    random = [best_of(env, n) for n in (1, 4, 16)]
    assert random == sorted(random) and random[0] < random[2] and random == [best_of(env, n) for n in (1, 4, 16)]


def test_random_completions_are_those_of_random_candidates():
    env = UtteranceVectorEnv(make(Length(), max_new_tokens=8), 20)
    env.reset(seed=5)
    opening = env._engine.opening(np.arange(20))
    texts = random_candidates(env.task, opening.said, 3, opening.random)
    assert best_of(env, 3, seed=5) == np.mean([max(len(text.split()) for text in row) for row in texts])


def test_best_of_has_something_to_compare(guess_number):
    env = UtteranceVectorEnv(make(Length()), 2)
    for texts in ([["a"], ["b"]], [["a", "b"]]):
        with pytest.raises(ValueError, match="return 2 texts for each of the 2"):
            best_of(env, 2, lambda contexts, n, generators, texts=texts: texts)
    with pytest.raises(ValueError, match="n is at least 1"):
        best_of(env, 0)
    with pytest.raises(ValueError, match="the task has more turns"):
        best_of(UtteranceVectorEnv(guess_number, 2), 1, lambda contexts, n, generators: [["60"]] * 2)


def test_words_are_letters_digits_and_what_joins_them():
    said = "Don’t stop: the WELL-known 3rd café_-- !"
    assert words_of(said) == ["don’t", "stop", "the", "well-known", "3rd", "café"]
    assert words_of("") == words_of(" .-'") == []


@pytest.mark.parametrize("task", ["Sentiment", "Keywords", "Readability", "Summarize", "Style"])
def test_any_text_earns_a_finite_reward(task):
    prompts = Prompts(("!", "word", "two words", "žluť 🙂"), {"reference": ("", "word", "a b", "🙂")})
    keywords = {"tokenizer": ByteTokenizer(), "prompts": prompts, "max_new_tokens": 60}
    env = gym.make_vec(f"text_envs/{task}-v0", num_envs=64, level="utterance", **keywords)
    env.reset(seed=1)
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=15)
    said = []

    @settings(max_examples=40, deadline=None)
    @given(st.lists(text, min_size=64, max_size=64))
    def check(texts):
        said.extend(texts)
        observations, rewards, *_ = env.step(tuple(texts))
        assert np.isfinite(rewards).all() and observations in env.observation_space

    check()
    env.step(("",) * 64)
    assert len(said) >= 2000


def test_real_text_tasks_pickle_and_copy():
    for name in ("Keywords", "Readability", "Summarize", "Style"):
        env = gym.make(f"text_envs/{name}-v0", level="utterance").unwrapped
        again = pickle.loads(pickle.dumps(env))
        assert env.reset(seed=1)[0] == again.reset(seed=1)[0] and env.step("the")[1] == again.step("the")[1]


@pytest.mark.parametrize("name", ["Sentiment", "Keywords", "Readability", "Summarize", "Style"])
def test_every_task_shows_only_the_first_words_where_it_is_asked_to(name):
    keywords = {"prompts": ["one  two three four"], "reward": Length(), "level": "utterance"}
    shown = gym.make(f"text_envs/{name}-v0", prompt_words=2, **keywords).reset(seed=1)[0]
    assert shown.endswith("one two")
    assert gym.make(f"text_envs/{name}-v0", **keywords).reset(seed=1)[0].endswith("one two three four")
