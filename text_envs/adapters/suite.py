"""What the adapters share: importing a suite, refusing an unknown name, and keeping the global generators whole."""

from __future__ import annotations

import difflib
import importlib
import io
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np


@contextmanager
def isolated(seed: int, *, numpy: bool = True) -> Iterator[None]:
    """Run a block on global generators seeded for it alone, without its prints.

    The suites draw from the global generators of `random` and numpy, and some seed them. Inside, both start from
    `seed`; afterwards, the caller's states are back, whatever was raised. Not for several threads: global
    generators belong to a process.

    Args:
        seed: 0..2**64-1.
        numpy: numpy's generator too. It takes 0.15 ms, `random`'s 0.03: False where it is known not to be used.
    """
    before = random.getstate()
    before_numpy = np.random.get_state() if numpy else None
    random.seed(seed)
    if numpy:
        np.random.seed([seed >> 32, seed & 0xFFFFFFFF])
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        random.setstate(before)
        if before_numpy is not None:
            np.random.set_state(before_numpy)


def import_suite(module: str, package: str) -> Any:
    """Return a module of a suite, imported without a trace in the global generators.

    Args:
        module: what to import.
        package: the distribution that has it.

    Raises:
        ImportError: if it cannot be imported; the message names the extra.
    """
    try:
        if module in sys.modules:  # no import, so nothing to undo
            return importlib.import_module(module)
        with isolated(0):
            return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this environment needs the package {package}, which does not import ({error}): "
            "pip install 'text-envs[suites]'"
        ) from error


def refuse_unknown(what: str, name: str, known: Iterable[str], excluded: Mapping[str, str]) -> None:
    """Do nothing if `name` is known.

    Args:
        what: what the name is of, such as "dataset".
        name: what the user asked for.
        known: what there is.
        excluded: names that the suite has and we leave out -> why.

    Raises:
        ValueError: if it is not; the message has the reason or the nearest names.
    """
    names = sorted(known)
    if name in names:
        return
    if name in excluded:
        raise ValueError(f"{what}={name!r} is left out: {excluded[name]}; choose another {what}")
    near = difflib.get_close_matches(str(name), names, n=5, cutoff=0.4)
    hint = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(names)}"
    raise ValueError(f"{what}={name!r} is not known; {hint}")
