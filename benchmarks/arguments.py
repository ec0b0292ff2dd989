"""What the commands' arguments are read by."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """Return a whole number of at least 1, such as 64 or 50_000.

    Raises:
        argparse.ArgumentTypeError: if it is none.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1, such as 64 or 50_000")
    return value
