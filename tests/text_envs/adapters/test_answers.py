import time

import pytest

from text_envs.adapters.answers import ARITHMETIC, POLYNOMIALS, harmless
from text_envs.adapters.reasoning_gym import ReasoningGym

FORMULAS = sorted(ARITHMETIC | POLYNOMIALS)
ROOTS = "(2**(1/2) + 3**(1/2) + 5**(1/2) + 7**(1/2) + 11**(1/2))**30"
SLOWEST = {
    "x": "*".join(f"(x-{k}*y)" for k in range(160)),
    "1": "+".join(f"{k}/{10**36 + k}" for k in range(1, 250)),
}


@pytest.mark.parametrize("dataset", FORMULAS)
@pytest.mark.parametrize("answer", ["(3 + 4) * 2 / 5 - 1", " -7*2 + 1.5", "+(8 - 1)"])
def test_arithmetic_reaches_the_scorer(dataset, answer):
    assert harmless(dataset, answer)


@pytest.mark.parametrize("answer", [" -7*x**2*y + 1.5", "+(x + 1)**64", "2**64", "x"])
def test_powers_and_names_are_for_polynomials(answer):
    assert [dataset for dataset in FORMULAS if harmless(dataset, answer)] == ["polynomial_multiplication"]


@pytest.mark.parametrize("dataset", FORMULAS)
@pytest.mark.parametrize(
    "answer",
    [
        *("9**9**9", "(9**64)**64", "2**65", "99999!", "9" * 41, "x.y", "open('x')", "'x'", "True", "[1]", "x; y"),
        *("lambda: 0", "factorial(99999)", "x**y", "1 << 99", "sin(x)", "", "x =", "(" * 9000, "-" * 9000 + "1"),
        *(ROOTS, "x**(1/2)", "x**-2", "x**0.5", "9" * 5000),
    ],
)
def test_code_roots_and_large_numbers_do_not_reach_the_scorers_of_formulas(dataset, answer):
    assert not harmless(dataset, answer)


@pytest.mark.parametrize("dataset", FORMULAS)
def test_the_slowest_answers_are_quick(dataset):
    task = ReasoningGym(dataset=dataset, size=1)
    answer = SLOWEST["x" if dataset in POLYNOMIALS else "1"]
    assert harmless(dataset, answer)
    start = time.process_time()
    assert task._score(answer, task.entries[0]) < 0.1
    assert time.process_time() - start < 1


@pytest.mark.parametrize("answer", ["nan", "NaN", "nan+nani", " n an - 2i", "1 + nani"])
def test_a_complex_number_is_a_number(answer):
    assert not harmless("complex_arithmetic", answer)
    assert harmless("complex_arithmetic", "-3.0 + 2.0i")


def test_the_other_scorers_get_every_answer():
    assert harmless("basic_arithmetic", "open('x')")
