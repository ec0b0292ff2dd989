"""Optional packages: the error where one is missing, and how to keep one from setting up logging."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


def missing(what: str, package: str, extra: str) -> ImportError:
    """Return the error that says which extra to install."""
    return ImportError(f"{what} needs the package {package}: pip install 'text-envs[{extra}]'")


@contextmanager
def root_logger_kept() -> Iterator[None]:
    """Keep the root logger as it is: some packages set it up when imported, unless it has a handler."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
