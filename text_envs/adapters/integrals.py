"""The score of an antiderivative, by its derivative at a few points of the complex plane.

This stands in for reasoning-gym's own scorers of integrals. Those give the answer to sympy, where forty characters
can keep a run busy for minutes; here an answer costs a few operations per character.
"""

from __future__ import annotations

import ast
import cmath
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from .suite import import_suite

DATASETS = frozenset({"intermediate_integration", "simple_integration"})
POINTS = tuple(cmath.rect(0.3 + 0.24 * k, 0.5 + 1.1 * k) for k in range(6))  # off the axes, in all four quadrants
TOLERANCE = 1e-8  # relative: what is left of a double's 16 digits after cancellation

Dual = tuple[complex, complex]  # a value and its derivative
_CONSTANTS = {"E": complex(cmath.e), "pi": complex(cmath.pi)}
_UNREADABLE = (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError)


def _exp(z: complex) -> complex:
    if value := cmath.exp(z):
        return value
    raise OverflowError("exp is too small")  # taken for 0, it would make 0 an antiderivative


_FUNCTIONS: dict[str, tuple[Callable[[complex], complex], Callable[[complex], complex]]] = {  # and its derivative
    "sin": (cmath.sin, cmath.cos),
    "cos": (cmath.cos, lambda z: -cmath.sin(z)),
    "tan": (cmath.tan, lambda z: 1 / cmath.cos(z) ** 2),
    "asin": (cmath.asin, lambda z: 1 / cmath.sqrt(1 - z * z)),
    "acos": (cmath.acos, lambda z: -1 / cmath.sqrt(1 - z * z)),
    "atan": (cmath.atan, lambda z: 1 / (1 + z * z)),
    "exp": (_exp, _exp),
    "log": (cmath.log, lambda z: 1 / z),
    "ln": (cmath.log, lambda z: 1 / z),
    "sqrt": (cmath.sqrt, lambda z: 0.5 / cmath.sqrt(z)),
}


def solved(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an entry with its integral solved: reasoning-gym leaves some as "Integral(...)"."""
    if "Integral(" not in entry["answer"]:
        return entry
    sympy = import_suite("sympy", "sympy")
    variable = sympy.Symbol(entry["metadata"]["variable"])
    integrand = sympy.parse_expr(entry["metadata"]["integrand"], local_dict={variable.name: variable})
    return {**entry, "answer": f"{sympy.integrate(integrand, variable)} + C"}


def score_answer(answer: str | None, entry: Mapping[str, Any]) -> float:
    """Return 1 for an antiderivative of the entry's integrand, else 0, as reasoning-gym does."""
    metadata = entry["metadata"]
    return float(answer is not None and is_antiderivative(answer, metadata["integrand"], metadata["variable"]))


def is_antiderivative(answer: str, integrand: str, variable: str) -> bool:
    """Return whether a formula's derivative is the integrand; False for what is no formula of numbers.

    Names other than the variable, `E` and `pi` are constants of integration: the result may not depend on them.

    Args:
        answer: what the agent says, in Python's notation: "x**2/2 + sin(x) + C".
        integrand: in the same notation.
        variable: the name of what both are functions of.

    Raises:
        ValueError: if the integrand is not a number at the points, which are 0.3 to 1.5 from 0.
    """
    try:
        wanted = [_dual(_parse(integrand), variable, z)[0] for z in POINTS]
    except _UNREADABLE as error:
        raise ValueError(
            f"the integrand {integrand!r} cannot be computed around 0 ({error}); take smaller bounds in config="
        ) from error
    try:
        formula = _parse(answer)
        found = [_dual(formula, variable, z)[1] for z in POINTS]
    except _UNREADABLE:
        return False
    return all(cmath.isclose(*pair, rel_tol=TOLERANCE) for pair in zip(found, wanted, strict=True))


def _parse(text: str) -> ast.expr:
    return ast.parse(text.strip(), mode="eval").body


def _dual(node: ast.expr, variable: str, z: complex) -> Dual:
    """Return a formula's value and derivative where the variable is z.

    Raises:
        ValueError: if it is no formula, or not finite.
        ArithmeticError: if it is too large, or divides by 0.
    """
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            dual = complex(number), 0j
        case ast.Name(id=name) if name not in _FUNCTIONS:
            dual = (z, 1 + 0j) if name == variable else (_CONSTANTS.get(name) or _any_number(name, z), 0j)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            factor = -1 if isinstance(sign, ast.USub) else 1
            value, slope = _dual(operand, variable, z)
            dual = factor * value, factor * slope
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Pow() as op, right=right):
            dual = _combined(op, _dual(left, variable, z), _dual(right, variable, z))
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            function, derivative = _FUNCTIONS[name]
            value, slope = _dual(argument, variable, z)
            dual = function(value), derivative(value) * slope if slope else 0j
        case _:
            raise ValueError(f"not a formula: {type(node).__name__}")
    if not (cmath.isfinite(dual[0]) and cmath.isfinite(dual[1])):
        raise OverflowError("not finite")
    return dual


def _combined(op: ast.operator, left: Dual, right: Dual) -> Dual:
    """Return the sum, difference, product, quotient or power of two values with their derivatives."""
    (a, da), (b, db) = left, right
    match op:
        case ast.Add():
            return a + b, da + db
        case ast.Sub():
            return a - b, da - db
        case ast.Mult():
            return a * b, da * b + a * db
        case ast.Div():
            return a / b, (da - a / b * db) / b
        case _:
            power = a**b
            slope = (b * a ** (b - 1) * da if da else 0j) + (power * cmath.log(a) * db if db else 0j)
            return power, slope


def _any_number(name: str, z: complex) -> complex:
    """Return a number for a constant of integration, another at each point: nothing but a sum can hide it."""
    return cmath.rect(1 + zlib.crc32(name.encode()) / 2**32, 7 * abs(z))
