import copy
import pickle
import random
import sys

import gymnasium as gym
import numpy as np
import pytest

from text_envs import TokenVectorEnv, UtteranceVectorEnv
from text_envs.adapters import reasoning_gym
from text_envs.adapters.reasoning_gym import EXCLUDED, LISTS, ReasoningGym
from text_envs.tokenizer import CharacterTokenizer

DATASETS = pytest.importorskip("reasoning_gym.factory").DATASETS
PAYS_WRONG = {"coin_flip", "game_of_life_halting"}
JUNK = ("0", "1", "nan", "nan+nani", "inf", "[]", "True", "False", "x", "9" * 400)
SLOW = {"futoshiki", "knight_swap", "sokoban", "zebra_puzzles"}


def score(task, answer, entry=0):
    return task._score(answer, task.entries[entry])


def test_the_question_is_shown_and_its_answer_earns_one():
    env = gym.make("text_envs/ReasoningGym-v0", level="utterance", size=5).unwrapped
    for seed in range(5):
        shown, _ = env.reset(seed=seed)
        (entry,) = [entry for entry in env.task.entries if entry["question"] == shown]
        *_, terminated, _, info = env.step(entry["answer"])
        assert terminated
        assert info == {"reward_clean": 1.0, "answer": entry["answer"], "reference": entry["answer"]}
        env.reset(seed=seed)
        assert env.step("no idea")[1] == 0.0


def test_every_dataset_scores_its_own_answer_or_is_excluded():
    for name in sorted(set(DATASETS) - set(EXCLUDED) - SLOW):
        task = ReasoningGym(dataset=name, size=2)
        for entry in task.entries:
            assert task._score(entry["answer"], entry) == pytest.approx(1.0), name
            assert 0 <= task._score("", entry) < 1, name
            assert len(task.codec.encode(entry["answer"])) < task.max_new_tokens
    assert set(EXCLUDED) < set(DATASETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_slow_datasets_score_their_own_answers(name):
    task = ReasoningGym(dataset=name, size=2)
    assert [task._score(entry["answer"], entry) for entry in task.entries] == [1.0, 1.0]


@pytest.mark.parametrize("name", sorted(set(EXCLUDED) - PAYS_WRONG - {"composite"}))
def test_the_excluded_have_no_answer(name):
    make, configure = DATASETS[name]
    assert make(configure(seed=1, size=1))[0]["answer"] is None


@pytest.mark.parametrize("name", sorted(PAYS_WRONG))
def test_or_pay_a_wrong_answer_in_full(name):
    make, configure = DATASETS[name]
    dataset = make(configure(seed=1, size=20))
    wrong = [entry for entry in dataset if entry["answer"].lower() not in ("true", "1", "0")]
    paid = [dataset.score_answer("0", entry) for entry in wrong]
    assert len(paid) > 5 and min(paid) == 1.0


def test_junk_earns_clearly_less_than_one():
    for name in sorted(set(DATASETS) - set(EXCLUDED) - SLOW):
        task = ReasoningGym(dataset=name, size=12)
        for junk in JUNK:
            assert np.mean([task._score(junk, entry) for entry in task.entries]) < 0.8, (name, junk)


@pytest.mark.parametrize("name", ["codeio", "list_functions", "pool_matrix"])
def test_datasets_that_draw_from_the_global_generators_neither_read_nor_change_them(name):
    found = []
    for seed in (1, 2):
        reasoning_gym._entries.cache_clear()
        random.seed(seed)
        np.random.seed(seed)
        before = random.getstate(), np.random.get_state()[1].tolist()
        found.append([entry["question"] for entry in ReasoningGym(dataset=name, size=6).entries])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert found[0] == found[1]


def test_an_entry_does_not_hang_on_how_many_there_are():
    few, many = ReasoningGym(size=3), ReasoningGym(size=30)
    assert few.entries == tuple(entry for entry in many.entries[:3])


def test_neighbouring_seeds_share_no_question():
    def questions(seed):
        return {entry["question"] for entry in ReasoningGym(dataset_seed=seed).entries}

    assert not questions(0) & questions(1) and len(questions(2)) > 90


def test_batches_rows_and_copies_agree():
    task = ReasoningGym(size=20)
    engine = UtteranceVectorEnv(task, 6, autoreset_mode="SameStep")
    tokens = TokenVectorEnv(task, 6)
    engine.reset(seed=4)
    observation, _ = tokens.reset(seed=4)
    twin, thawed = copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))
    shown = [task.codec.decode(row[row < task.vocab_size]) for row in observation]
    answer = {entry["question"]: entry["answer"] for entry in task.entries}
    said = tuple(answer[text] if row % 2 else "7" for row, text in enumerate(shown))
    observations, rewards, *_ = engine.step(said)
    assert rewards[1::2].tolist() == [1, 1, 1] and (rewards[::2] < 1).all()
    for other in (twin, thawed):
        again = other.step(said)
        assert again[0] == observations and (again[1] == rewards).all()


def test_a_task_makes_its_entries_once_however_many_others_there_are(monkeypatch):
    tasks = [ReasoningGym(size=2, dataset_seed=seed) for seed in range(reasoning_gym.REMEMBERED + 2)]
    for task in tasks:
        assert score(task, task.entries[0]["answer"]) == 1.0
    monkeypatch.setattr(reasoning_gym, "_entries", None)
    monkeypatch.setattr(reasoning_gym, "_dataset", None)
    for task in tasks:
        assert score(task, task.entries[0]["answer"]) == 1.0
    assert not {"entries", "_dataset"} & set(tasks[0].__getstate__())


def test_config_reaches_the_dataset():
    task = ReasoningGym(dataset="chain_sum", config={"min_terms": 5, "max_terms": 5}, size=4)
    assert all(len(entry["metadata"]["expression"].split()) == 9 for entry in task.entries)


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"dataset": "chain_sums"}, ValueError, "dataset='chain_sums' is not known; the nearest are .*chain_sum"),
        ({"dataset": "rubiks_cube"}, ValueError, "left out: its entries have no answer"),
        ({"dataset": "chain_sum", "config": {"terms": 3, "seed": 1}}, ValueError, "'seed', 'terms'.*max_terms"),
        ({"dataset": "chain_sum", "config": {"min_terms": -1}}, ValueError, "refuses config={'min_terms': -1}"),
        ({"dataset": "chain_sum", "config": {"min_terms": "x"}}, ValueError, "refuses config={'min_terms': 'x'}"),
        ({"config": {"x": object()}}, TypeError, "config is a dict that JSON can write, got"),
        ({"size": 0}, ValueError, "size is at least 1, got 0"),
        ({"dataset_seed": -1}, ValueError, "non-negative"),
        ({"max_prompt_tokens": 3}, ValueError, "tokens, more than max_prompt_tokens=3; raise it"),
        ({"tokenizer": CharacterTokenizer("abc")}, ValueError, "no token for"),
    ],
)
def test_bad_keywords(keywords, error, message):
    with pytest.raises(error, match=message):
        ReasoningGym(**keywords)


def test_a_missing_suite_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ImportError, match=r"reasoning-gym.*text-envs\[suites\]"):
        ReasoningGym(size=17)


def test_answers_are_never_run_as_programs(tmp_path):
    for name in (*LISTS, "countdown", "simple_integration"):
        task = ReasoningGym(dataset=name, size=1)
        nothing = score(task, "")
        for program in (f"open({str(tmp_path / 'x')!r}, 'w')", "9**9**9**9"):
            assert score(task, program) == nothing
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(LISTS))
def test_an_answer_knows_no_names_of_the_scorer(name):
    """Where their scorers run an answer, the solution has a name."""
    task = ReasoningGym(dataset=name, size=10)
    for text in ("valid_solutions", "oracle_answer", "entry['answer']", "answer"):
        for answer in (text, f"[{text}]", f"[[{text}]]", f"\n{text}", "-" * 5000 + text, "(" * 5000 + text):
            assert not any(task._score(answer, entry) for entry in task.entries), answer


@pytest.mark.parametrize(
    ("name", "literal", "earned"),
    [
        ("binary_matrix", lambda text: [line.split() for line in text.splitlines()], 0.1),
        ("n_queens", lambda text: [line.split() for line in text.splitlines()], 0.5),
        ("spiral_matrix", str.split, 0.1),
        ("string_insertion", list, 0.1),
    ],
)
def test_a_list_still_earns_a_part(name, literal, earned):
    task = ReasoningGym(dataset=name, size=5)
    for entry in task.entries:
        assert task._score(str(literal(entry["answer"])), entry) == earned


def test_solved_integrals_replace_those_that_are_not():
    task = ReasoningGym(dataset="intermediate_integration", dataset_seed=3, size=40)
    make, configure = DATASETS["intermediate_integration"]
    own = make(configure(seed=reasoning_gym._word(3, 0) >> 33, size=40))
    assert any("Integral" in entry["answer"] for entry in own)
    assert [entry["question"] for entry in own] == [entry["question"] for entry in task.entries]
    for entry in task.entries:
        assert "Integral" not in entry["answer"] and task._score(entry["answer"], entry) == 1.0
        assert task._score(entry["answer"] + " + x/10**4", entry) < 1 or "exp" in entry["answer"]


@pytest.mark.parametrize(
    ("name", "answer"),
    [("prime_factorization", "x"), ("calendar_arithmetic", "9" * 400), ("game_of_life", '{"a": 1}')],
)
def test_an_answer_in_the_wrong_format_earns_what_none_does(name, answer):
    task = ReasoningGym(dataset=name, size=1)
    assert score(task, answer) == reasoning_gym._dataset(*task._key).score_answer(None, task.entries[0])


def test_a_scorer_that_fails_stops_the_run(monkeypatch):
    task = ReasoningGym(size=1)
    monkeypatch.setattr(reasoning_gym._dataset(*task._key), "score_answer", lambda *_: 1 / 0)
    with pytest.raises(ValueError, match="basic_arithmetic raised ZeroDivisionError.* on the answer 'a b'"):
        score(task, "a b")


def test_an_answer_without_tokens_earns_nothing():
    env = UtteranceVectorEnv(ReasoningGym(tokenizer=CharacterTokenizer("Calcute0123456789+-*/(). ", end=True)), 1)
    env.reset(seed=1)
    assert env.step(["é"])[1] == 0.0
