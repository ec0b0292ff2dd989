"""What the commands' arguments are read by."""

from __future__ import annotations

import argparse


def count(text: str, most: int | None = None) -> int:
    """Return a whole number of at least 1, such as 64 or 50_000.

    Args:
        text: what was typed.
        most: the largest that makes sense, if there is one.

    Raises:
        argparse.ArgumentTypeError: if it is none, or larger.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1, such as 64 or 50_000")
    if most is not None and value > most:
        raise argparse.ArgumentTypeError(f"{text} is more than {most:,}, the most that can be")
    return value
