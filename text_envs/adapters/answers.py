"""Which answers may reach the scorers of reasoning-gym.

Three scorers call sympy's parser, which runs what it reads as Python, and one takes what is not a number for a
right one. So an answer is read here first: code, and numbers too large to compute, never reach them.
"""

from __future__ import annotations

import ast

ARITHMETIC = frozenset({"countdown", "puzzle24"})  # numbers only, and no powers: sympy can take minutes for roots
POLYNOMIALS = frozenset({"polynomial_multiplication"})
_DEGREE = 500  # of a formula: nested powers multiply
_DIGITS = 40  # of a number in it
_FEW = 64  # largest exponent
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div)


def harmless(dataset: str, answer: str) -> bool:
    """Return whether the dataset's scorer may be given an answer."""
    if dataset in ARITHMETIC | POLYNOMIALS:
        return _is_formula(answer, powers=dataset in POLYNOMIALS)
    if dataset == "complex_arithmetic":  # its distance to nan counts as none
        return "nan" not in answer.lower().replace(" ", "")
    return True


def _is_formula(answer: str, *, powers: bool) -> bool:
    """Return whether a text is arithmetic, over names and with powers or not, small enough to compute."""
    try:
        return _degree(ast.parse(answer.strip(), mode="eval").body, powers) <= _DEGREE
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _degree(node: ast.expr, powers: bool) -> int:
    """Return a bound of a formula's degree, where a name and a number have 1.

    Raises:
        ValueError: if it is more than a formula.
    """
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            if abs(value) < 10**_DIGITS:
                return 1
        case ast.Name() if powers:
            return 1
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _degree(operand, powers)
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int() as exponent)) if powers:
            if exponent <= _FEW:
                return _degree(left, powers) * max(1, exponent)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _OPERATORS):
            return _degree(left, powers) + _degree(right, powers)
    raise ValueError(f"not a formula: {type(node).__name__}")
