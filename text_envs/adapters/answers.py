"""Which answers may reach the scorers of reasoning-gym that evaluate them as Python.

Nine scorers call `eval`, or sympy's parser, which does, on what an agent says. So an answer is read here
first: code, and numbers too large to compute, never reach them.
"""

from __future__ import annotations

import ast

LISTS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
FUNCTIONS = frozenset({"sin", "cos", "tan", "asin", "acos", "atan", "exp", "log", "ln", "sqrt"})
FORMULAS: dict[str, frozenset[str]] = {  # dataset -> functions that its answers may call
    "countdown": frozenset(),
    "polynomial_multiplication": frozenset(),
    "puzzle24": frozenset(),
    "intermediate_integration": FUNCTIONS,
    "simple_integration": FUNCTIONS,
}
_DEGREE = 1000  # of a formula: nested powers multiply
_DIGITS = 40  # of a number in it
_FEW = 64  # largest number in an exponent
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div)


def harmless(dataset: str, answer: str) -> bool:
    """Return whether the dataset's scorer may be given an answer."""
    if dataset in LISTS:
        return _is_list(answer)
    if dataset in FORMULAS:
        return _is_formula(answer, FORMULAS[dataset])
    return True


def _is_list(answer: str) -> bool:
    """Return whether evaluating a text does no more than build lists, numbers and strings, or fail."""
    try:
        tree = ast.parse(answer.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True  # eval does not take it either
    allowed = ast.Expression | ast.List | ast.Tuple | ast.Constant | ast.Name | ast.UnaryOp | ast.USub | ast.Load
    return all(isinstance(node, allowed) for node in ast.walk(tree))


def _is_formula(answer: str, functions: frozenset[str]) -> bool:
    """Return whether a text is arithmetic over names, small enough to compute."""
    try:
        return _degree(ast.parse(answer.strip(), mode="eval").body, functions) <= _DEGREE
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _degree(node: ast.expr, functions: frozenset[str]) -> float:
    """Return a bound of a formula's degree, where a name and a number have 1.

    Raises:
        ValueError: if it is more than a formula.
    """
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            if abs(value) < 10**_DIGITS:
                return 1
        case ast.Name():
            return 1
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _degree(operand, functions)
        case ast.BinOp(left=ast.Name(id="E"), op=ast.Pow(), right=right) if functions:
            return _degree(right, functions)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _degree(left, functions) * _exponent(right)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _OPERATORS):
            return _degree(left, functions) + _degree(right, functions)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in functions:
            return _degree(argument, functions)
    raise ValueError(f"not a formula: {ast.unparse(node)}")


def _exponent(node: ast.expr) -> float:
    """Return the size of a small number or fraction, at least 1.

    Raises:
        ValueError: if it is neither.
    """
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _exponent(operand)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return max(_exponent(left), _exponent(right))
        case ast.Constant(value=int() | float() as value) if abs(value) <= _FEW:
            return max(1.0, value)
    raise ValueError(f"not a small number: {ast.unparse(node)}")
