import copy
import pickle
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from text_envs.engine import Engine
from text_envs.tasks.base import Replies, Score
from text_envs.tasks.copy import Copy


def play(engine, actions, rows=None):
    """Return the rewards (T, n) of saying (T, n) actions."""
    return np.array([engine.say(said, rows).reward for said in actions])


def begun(task, seeds, **keywords):
    engine = Engine(task, len(seeds), **keywords)
    engine.seed(seeds)
    engine.begin()
    return engine


def actions_of(task, steps, rows, seed=0):
    return np.random.default_rng(seed).integers(0, task.vocab_size, (steps, rows))


def test_contexts_grow_to_the_right_of_the_prompt():
    engine = begun(Copy(length=3), [1, 2])
    before = engine.tokens.copy()
    for step, said in enumerate([[5, 6], [7, 8], [9, 10]]):
        engine.say(np.array(said))
        assert engine.length.tolist() == [4 + step] * 2
    np.testing.assert_array_equal(engine.tokens[:, :3], before[:, :3])
    assert engine.tokens[:, 3:].tolist() == [[5, 7, 9], [6, 8, 10]]
    assert (before[:, 3:] == 16).all()


def test_a_row_is_the_same_whatever_its_neighbours():
    task = Copy(length=4)
    batch, alone = begun(task, range(20)), begun(task, [13])
    for _ in range(3):
        said = actions_of(task, 4, 20)
        np.testing.assert_array_equal(play(batch, said)[:, 13], play(alone, said[:, 13:14])[:, 0])
        np.testing.assert_array_equal(batch.tokens[13], alone.tokens[0])
        batch.begin()
        alone.begin()


def test_rows_can_act_and_begin_alone():
    task = Copy(length=2)
    engine, whole = begun(task, [1, 2, 3]), begun(task, [1, 2, 3])
    said = actions_of(task, 2, 3)
    expected = play(whole, said)
    rows = np.array([2, 0])
    np.testing.assert_array_equal(play(engine, said[:, rows], rows), expected[:, rows])
    assert engine.length.tolist() == [4, 2, 4]
    engine.begin(rows)
    assert engine.length.tolist() == [2, 2, 2]
    np.testing.assert_array_equal(play(engine, said[:, [1]], np.array([1]))[:, 0], expected[:, 1])


def test_samples_change_with_seed_and_episode_only():
    task = Copy(vocab_size=100)
    engine = begun(task, [1, 1, 2])
    first = engine.tokens.copy()
    assert (first[0] == first[1]).all() and (first[0] != first[2]).any()
    engine.begin(np.array([0]))
    assert (engine.tokens[0] != first[0]).any()
    engine.seed([1], np.array([0]))
    engine.begin(np.array([0]))
    np.testing.assert_array_equal(engine.tokens, first)


@pytest.mark.parametrize("keywords", [{"dense": True}, *({"reward_delay": n} for n in (1, 2, 3, 7))])
def test_every_way_to_pay_gives_the_same_return(keywords, stars):
    sparse, other = begun(stars, range(40)), begun(stars, range(40), **keywords)
    said = np.random.default_rng(1).choice([0, 1, 2], (5, 40), p=[0.5, 0.3, 0.2])
    totals, live = np.zeros((2, 40)), np.arange(40)
    for step in said:
        outcomes = [engine.say(step[live], live) for engine in (sparse, other)]
        for total, outcome in zip(totals, outcomes, strict=True):
            total[live] += outcome.reward
        np.testing.assert_array_equal(outcomes[0].closed, outcomes[1].closed)
        np.testing.assert_array_equal(outcomes[0].clean, outcomes[1].clean)
        live = live[~outcomes[0].terminated]
    assert not live.size and totals[0].any()
    np.testing.assert_allclose(totals[1], totals[0], atol=1e-12)


def test_delay_pays_every_n_tokens_and_the_remainder():
    task = Copy(vocab_size=2, length=5)
    engine = begun(task, [3], reward_delay=2)
    right = engine.tokens[0, :5]
    np.testing.assert_allclose(play(engine, right[:, None])[:, 0], [0, 0.4, 0, 0.4, 0.2], atol=1e-12)


def test_scale_changes_rewards_and_not_the_clean_one():
    said = actions_of(Copy(), 8, 5)
    plain, scaled = begun(Copy(), range(5), dense=True), begun(Copy(), range(5), dense=True, reward_scale=-3.0)
    for step in said:
        a, b = plain.say(step), scaled.say(step)
        np.testing.assert_allclose(b.reward, -3.0 * a.reward)
        np.testing.assert_array_equal(b.clean, a.clean)


def test_noise_is_drawn_once_per_utterance_from_seed_episode_and_tokens():
    task, n = Copy(length=2), 4000

    def noise(seeds, said, dense=False):
        engine = begun(task, seeds, reward_noise=0.5, dense=dense)
        outcomes = [engine.say(step) for step in said]
        return sum(outcome.reward for outcome in outcomes) - outcomes[-1].clean

    said = np.stack([np.arange(n) % 16, np.arange(n) // 16 % 16])
    drawn = noise(range(n), said)
    assert drawn.std() == pytest.approx(0.5, rel=0.05) and drawn.mean() == pytest.approx(0, abs=0.03)
    np.testing.assert_allclose(noise(range(n), said, dense=True), drawn, atol=1e-12)
    shared_seed = noise([7] * 256, said[:, :256])
    assert len(np.unique(shared_seed)) == 256  # what was said differs
    np.testing.assert_array_equal(noise([7, 7], [[1, 1], [2, 2]]), noise([7], [[1], [2]]).repeat(2))


def test_replies_go_on_with_the_episode(guess_number):
    engine = begun(guess_number, [1])
    secret = int(engine.said().columns["secret"][0])
    prompt = engine.context(0)
    wrong = 0 if secret else 1
    outcome = engine.utter([str(wrong)])
    assert (outcome.reward, outcome.terminated) == ([-0.1], [False])
    assert engine.context(0) == f"{prompt}{wrong}>>"
    outcome = engine.utter([f"{secret:02}"])
    assert (outcome.reward, outcome.clean, outcome.terminated) == ([1.0], [1.0], [True])
    assert engine.context(0) == f"{prompt}{wrong}>>{secret:02}"


def test_renders_who_said_what(guess_number):
    engine = begun(guess_number, [1, 2], distractors=3)
    secret = int(engine.said().columns["secret"][0])
    context, prompt = engine.context(0), "?" * (1 + secret % 2)
    wrong, reply = (0, ">>") if secret else (49, "<")
    assert engine.render(0) == f"before: {context[:3]}\nprompt: {prompt}\n  said: "
    engine.utter([str(wrong)], np.array([0]))
    engine.utter([""], np.array([0]))  # is masked: nothing is said, and the game replies
    shown = f"before: {context[:3]}\nprompt: {prompt}\n  said: {wrong}\n reply: {reply}"
    assert engine.render(0).startswith(shown)
    engine.utter([str(secret)], np.array([0]))
    assert engine.render(0).endswith(f"\n  said: {secret}")
    assert engine.render(1).count("\n") == 2
    engine.begin()
    assert engine.render(0).count("\n") == 2 and engine.render(0).endswith("  said: ")


class Chatter(Copy):
    """Every token said is answered by a random one, until the context is full."""

    def __init__(self):
        super().__init__(vocab_size=1000, length=20)
        self.max_new_tokens = 1

    def reply(self, said, random):
        n = len(said)
        return Replies(random.integers(1000, 1), np.ones(n, int), np.zeros(n, bool))


def test_replies_are_drawn_per_turn_and_a_full_context_ends_the_episode():
    engine, alone = begun(Chatter(), range(30)), begun(Chatter(), [7])
    for turn in range(10):
        outcome = engine.say(np.zeros(30, int))
        assert alone.say(np.zeros(1, int)).terminated == outcome.terminated[7] == (turn == 9)
    replies = engine.tokens[:, 21::2]
    np.testing.assert_array_equal(alone.tokens[0], engine.tokens[7])
    assert outcome.terminated.all() and len(np.unique(replies)) > 200  # of 300 draws from 1000
    assert all(len(np.unique(row)) > 5 for row in replies)


def test_noise_is_for_the_rows_that_closed(stars):
    engine = begun(stars, [1, 2], dense=True, reward_noise=1.0)
    rewards = play(engine, np.array([[0, 0], [1, 2], [0, 0]]))  # the second row ends in step 2
    assert rewards[[0, 0, 1, 2], [0, 1, 0, 0]].tolist() == [1.0, 1.0, 0.0, 1.0] and rewards[1, 1] != 0


def test_tokens_and_utterances_end_in_the_same_state(guess_number):
    seeds = list(range(60))
    tokens, texts = begun(guess_number, seeds), begun(guess_number, seeds)
    rng = np.random.default_rng(0)
    live = np.arange(60)
    while live.size:
        words = [str(rng.integers(100)) if rng.random() < 0.9 else rng.choice(["", "?", "1>", "123"]) for _ in live]
        outcome = texts.utter(words, live)
        for row, word, reward, terminated in zip(live, words, outcome.reward, outcome.terminated, strict=True):
            for token in [*guess_number.codec.encode(word), guess_number.end]:
                last = tokens.say(np.array([token]), np.array([row]))
                if last.closed.size:
                    break
            assert (last.reward[0], last.terminated[0]) == (reward, terminated), (row, word)
        np.testing.assert_array_equal(tokens.tokens, texts.tokens)
        np.testing.assert_array_equal(tokens.action_masks()[~_ended(tokens)], texts.action_masks()[~_ended(texts)])
        live = live[~outcome.terminated]


def _ended(engine):
    return engine._turn == 3


def test_a_masked_action_closes_the_utterance_with_the_invalid_reward(guess_number):
    for keywords in ({}, {"dense": True}):
        engine = begun(guess_number, [1, 2], **keywords)
        first = engine.say(np.array([guess_number.end, 4]))  # an utterance starts with a digit
        second = engine.say(np.array([1, guess_number.end]))
        assert first.closed.tolist() == [0] and first.clean.tolist() == [-2.0] and not first.scored.size
        assert second.closed.tolist() == [1] and second.clean.tolist() == [-0.1]
        assert first.reward[0] == -2.0
        assert first.reward[1] + second.reward[1] == pytest.approx(-0.1)


def test_action_masks_are_fresh(guess_number):
    engine = begun(guess_number, [1])
    engine.action_masks()[:] = False
    assert engine.action_masks()[0].tolist() == [True] * 10 + [False] * 4


def test_text_without_tokens_earns_the_invalid_reward(guess_number):
    engine = begun(guess_number, [1])
    before = engine.tokens.copy()
    outcome = engine.utter(["twelve"])
    assert outcome.clean.tolist() == [-2.0] and not outcome.scored.size
    np.testing.assert_array_equal(engine.tokens[:, : engine._prompt[0]], before[:, : engine._prompt[0]])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda engine: pickle.loads(pickle.dumps(engine))])
def test_copies_go_their_own_way(duplicate):
    engine = begun(Copy(), [1])
    twin = duplicate(engine)
    said = actions_of(Copy(), 8, 1)
    np.testing.assert_array_equal(play(engine, said), play(twin, said))
    np.testing.assert_array_equal(engine.tokens, twin.tokens)
    twin.begin()
    assert engine.length[0] == 16 and twin.length[0] == 8


class Broken(Copy):
    """Copy with one method spoilt."""

    def __init__(self, **spoilt):
        super().__init__(length=2)
        self.spoilt = spoilt

    def sample(self, random):
        return replace(super().sample(random), **self.spoilt.get("sample", {}))

    def score(self, said):
        if "score" in self.spoilt:
            return self.spoilt["score"]
        return Score(super().score(said).value[: self.spoilt.get("scores")])

    def reply(self, said, random):
        return self.spoilt.get("reply")

    def action_mask(self, said):
        return np.full((len(said), 16), "mask" not in self.spoilt)


@pytest.mark.parametrize(
    ("lengths", "tokens"), [([0, 2], (2, 2)), ([1, 3], (2, 2)), (None, (2, 3))], ids=["empty", "long", "wide"]
)
def test_prompts_that_do_not_fit_are_refused(lengths, tokens):
    sample = {"tokens": np.zeros(tokens, int), "lengths": None if lengths is None else np.array(lengths)}
    with pytest.raises(ValueError, match="a prompt has 1 to max_prompt_tokens=2 tokens"):
        begun(Broken(sample=sample), [1, 2])


class Told(Copy):
    """Copy with the column "told"; each batch of samples takes the next of some arrays, repeated for its rows."""

    def __init__(self, *told):
        super().__init__(length=2)
        self.told = list(told)

    def sample(self, random):
        told = np.asarray(self.told.pop(0))
        return replace(super().sample(random), columns={"told": np.repeat(told[None], len(random), axis=0)})


def test_the_columns_of_an_episode_are_those_of_its_samples():
    engine = begun(Told("to", "a longer text"), [1, 2])
    engine.begin(np.array([1]))
    assert engine.said().columns["told"].tolist() == ["to", "a longer text"]


def test_a_score_for_every_utterance_is_asked_for():
    engine = begun(Broken(scores=1), [1, 2])
    engine.say(np.array([0, 0]))
    with pytest.raises(ValueError, match=r"Broken.score returned values of shape \(1,\) for 2 utterances"):
        engine.say(np.array([0, 0]))


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (
            Score(np.array([0.5, np.nan])),
            "Broken.score returned nan for row 1, whose context is '..ab'; return a fin",
        ),
        (Score(np.array([np.inf, 0.5])), "Broken.score returned inf for row 0, whose context is '..aa'"),
        (Score([0.5, None]), "Broken.score returned values of dtype object.*return numbers"),
        (Score(["1", "2"]), "Broken.score returned values of dtype <U1"),
        (np.zeros(2), r"Broken.score returned array\(\[0., 0.\]\); return Score\(value\)"),
    ],
)
@pytest.mark.parametrize("level", ["token", "utterance"])
def test_what_is_no_finite_number_never_becomes_a_reward(score, message, level):
    engine = begun(Broken(score=score), [1, 2])
    with pytest.raises((TypeError, ValueError), match=message):
        if level == "utterance":
            engine.utter(["aa", "ab"])
        for said in ([0, 0], [0, 1]):
            engine.say(np.array(said))


@pytest.mark.parametrize("values", [[1, 0], np.array([1, 0], np.float32), np.array([True, False])])
def test_numbers_of_any_type_become_floats(values):
    outcome = begun(Broken(score=Score(values)), [1, 2]).utter(["aa", "ab"])
    assert outcome.clean.dtype == outcome.reward.dtype == np.float64 and outcome.clean.tolist() == [1.0, 0.0]


def test_an_integer_as_invalid_reward_leaves_the_scores_of_other_rows_as_they_are(guess_number):
    guess_number.invalid_reward = -2
    engine = begun(guess_number, [1, 2])
    outcome = engine.utter(["twelve", "99"])
    assert outcome.clean.tolist() == [-2.0, -0.1] and outcome.clean.dtype == np.float64
    guess_number.invalid_reward = float("nan")
    with pytest.raises(ValueError, match="GuessNumber.invalid_reward is a finite number, got nan"):
        Engine(guess_number, 1)


def test_a_reply_that_does_not_fit_is_refused():
    reply = Replies(np.zeros((1, 1), int), np.array([1]), np.array([False]))
    engine = begun(Broken(reply=reply), [1])
    engine.say(np.array([0]))
    with pytest.raises(ValueError, match="a reply of 1 tokens does not fit the 0 left.*context_length above 4"):
        engine.say(np.array([0]))


def test_a_mask_must_leave_an_action():
    with pytest.raises(ValueError, match="Broken.action_mask leaves no legal action after '..'"):
        begun(Broken(mask=None), [1])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"reward_noise": -1.0}, "at least 0, got -1"),
        ({"reward_noise": float("nan")}, "reward_noise is a finite number, got nan"),
        ({"reward_noise": float("inf")}, "reward_noise is a finite number, got inf"),
        ({"reward_scale": float("nan")}, "reward_scale is a finite number, got nan"),
        ({"reward_scale": -np.inf}, "reward_scale is a finite number, got -inf"),
        ({"reward_scale": 10**400}, "reward_scale is a finite number, got 1000"),
        ({"reward_delay": 0}, "reward_delay is at least 1, got 0"),
        ({"distractors": -1}, "distractors is at least 0, got -1"),
    ],
)
def test_impossible_settings_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        Engine(Copy(), 1, **keywords)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dense": "false"}, r"dense is True or False, got 'false' \(str\)"),
        ({"dense": 1}, r"dense is True or False, got 1 \(int\)"),
        ({"reward_scale": "2"}, r"reward_scale is a number, got '2' \(str\)"),
        ({"reward_noise": None}, "reward_noise is a number, got None"),
    ],
)
def test_settings_of_another_type_are_refused(keywords, message):
    with pytest.raises(TypeError, match=message):
        Engine(Copy(), 1, **keywords)
    Engine(Copy(), 1, dense=np.bool_(True), reward_scale=np.float32(2), reward_noise=1)


def test_a_step_that_raises_needs_a_reset_of_all_rows(monkeypatch):
    task = Copy(length=2)
    engine, whole = begun(task, [1, 2]), begun(task, [1, 2])
    for rows in (None, np.array([1])):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(engine, "_settle", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            engine.say(np.zeros(2 if rows is None else 1, int), rows)
        for act in (lambda: engine.say(np.zeros(2, int)), lambda: engine.utter(["a", "b"])):
            with pytest.raises(ResetNeeded, match="the last step failed"):
                act()
        with pytest.raises(ResetNeeded, match="the last step failed"):
            engine.begin(np.array([0]))
        engine.begin()
        whole.begin()
        said = actions_of(task, 2, 2)
        np.testing.assert_array_equal(play(engine, said), play(whole, said))
        np.testing.assert_array_equal(engine.tokens, whole.tokens)
        for one in (engine, whole):
            one.begin()


@pytest.mark.parametrize("level", ["token", "utterance"])
def test_distractors_stand_before_the_prompt_and_change_nothing_else(level):
    def run(**keywords):
        env = gym.make_vec("text_envs/Reverse-v0", num_envs=50, level=level, vocab_size=4, length=3, **keywords)
        first, _ = env.reset(seed=3)
        said = np.random.default_rng(0).integers(0, 4, (3, 50))
        if level == "utterance":
            said = [tuple(map(env.tokenizer.decode, said.T))]
        *_, infos = [env.step(action) for action in said][-1]
        return env, first, infos["final_info"]["reward_clean"]

    plain, shown, earned = run()
    noisy, distracted, same = run(distractors=5)
    np.testing.assert_array_equal(same, earned)
    if level == "token":
        assert noisy.single_observation_space.shape == (plain.single_observation_space.shape[0] + 5,)
        np.testing.assert_array_equal(distracted[:, 5:], shown)
        before = distracted[:, :5]
        assert set(before.flat) == {0, 1, 2, 3} and len(np.unique(before, axis=0)) > 40
    else:
        assert [text[5:] for text in distracted] == list(shown)
        assert all(text in noisy.single_observation_space for text in distracted)
    assert noisy.optimal_return() == plain.optimal_return() == 1.0


def test_distractors_leave_games_as_they_are(guess_number):
    engines = [Engine(guess_number, 1, distractors=n) for n in (0, 4)]
    for engine in engines:
        engine.seed([3])
        engine.begin()
    for text in ["7", "12", "40"]:
        plain, distracted = (engine.utter([text]) for engine in engines)
        assert (plain.clean, plain.terminated) == (distracted.clean, distracted.terminated)
    assert engines[1].context(0)[4:] == engines[0].context(0)


def test_distractors_are_never_end_or_special_tokens(stars):
    engine = Engine(stars, 200, distractors=3)
    engine.seed(range(200))
    engine.begin()
    assert set(engine.tokens[:, :3].flat) == {0, 1}


def test_whole_utterances_are_those_said_token_by_token(stars, monkeypatch):
    rng = np.random.default_rng(0)
    texts = [["".join(rng.choice(["*", "!"], rng.integers(0, 9))) for _ in range(40)] for _ in range(3)]
    whole = begun(stars, range(40))
    monkeypatch.setattr(type(stars), "restricts", True)
    monkeypatch.setattr(type(stars), "action_mask", lambda self, said: None)
    slow = begun(stars, range(40))
    assert slow.restricts and not whole.restricts
    for said in texts:
        for engine in (whole, slow):
            engine.begin()
        fast, twin = whole.utter(said), slow.utter(said)
        np.testing.assert_array_equal(whole.tokens, slow.tokens)
        np.testing.assert_array_equal(whole.length, slow.length)
        np.testing.assert_array_equal(fast.reward, twin.reward)


def test_a_reward_that_overflows_is_refused():
    engine = begun(Copy(length=1), [0], reward_scale=1e308, reward_noise=1e3)
    with pytest.raises(ValueError, match=r"no finite number after reward_scale=1e\+308 and reward_noise=1000"):
        engine.say(np.array([0]))
