import pytest

from text_envs.adapters.loops import reasoning_gym_loop, textarena_loop


def test_reasoning_gyms_loop_scores_answers():
    pytest.importorskip("reasoning_gym")
    scores = [reasoning_gym_loop(20, dataset="coin_flip", answer=answer) for answer in ("0.5", "no number")]
    assert 0 <= scores[1] < scores[0] <= 1


def test_textarenas_loop_plays_to_the_end():
    pytest.importorskip("textarena")
    assert textarena_loop(3, moves=("no number",)) == 6  # the second invalid move loses
    assert textarena_loop(20, moves=tuple(f"[{n}]" for n in range(1, 21))) > 40
