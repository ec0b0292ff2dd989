import pytest

from text_envs.adapters.answers import FORMULAS, LISTS, harmless


@pytest.mark.parametrize("dataset", sorted(LISTS))
@pytest.mark.parametrize(
    "answer", ["[['0', '1'], ['1', '-1']]", "1 2 3", "ABCDE", "_ Q _ _\nQ _ _ _", "[-1, (2, 3)]", "["]
)
def test_lists_and_plain_words_reach_the_scorer(dataset, answer):
    assert harmless(dataset, answer)


@pytest.mark.parametrize("dataset", sorted(LISTS))
@pytest.mark.parametrize(
    "answer",
    ["open('x', 'w')", "[9**9**9]", "'a' * 10**12", "[x for x in y]", "().__class__", "[print()]", "f'{x}'"],
)
def test_code_does_not_reach_the_scorers_of_lists(dataset, answer):
    assert not harmless(dataset, answer)


@pytest.mark.parametrize("dataset", sorted(FORMULAS))
@pytest.mark.parametrize("answer", ["(3 + 4) * 2 / 5 - 1", " -7*x**2*y + 1.5", "x**(-3/2)", "+(x + 1)**64"])
def test_formulas_reach_the_scorer(dataset, answer):
    assert harmless(dataset, answer)


@pytest.mark.parametrize("dataset", sorted(FORMULAS))
@pytest.mark.parametrize(
    "answer",
    [
        *("9**9**9", "(9**64)**64", "2**65", "99999!", "9" * 41, "x.y", "open('x')", "'x'", "True", "[1]", "x; y"),
        *("lambda: 0", "factorial(99999)", "x**y", "1 << 99", "sin(x, y)", "", "x =", "(" * 9000, "-" * 9000 + "1"),
    ],
)
def test_code_and_large_numbers_do_not_reach_the_scorers_of_formulas(dataset, answer):
    assert not harmless(dataset, answer)


def test_only_integrals_may_call_functions():
    answer = "2*sqrt(x)*E**(3*x) - log(atan(2*x)) + C"
    assert [name for name in sorted(FORMULAS) if harmless(name, answer)] == [
        "intermediate_integration",
        "simple_integration",
    ]


def test_the_other_scorers_get_every_answer():
    assert harmless("basic_arithmetic", "open('x')")
