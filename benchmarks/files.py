"""Text files that are replaced whole or not at all; rows are appended in `rows.py`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Put a file of UTF-8 text in place at once: a full disk leaves the old one.

    Half of a surrogate pair, which a tokenizer or a shell can hand on and UTF-8 has no bytes for, is written as its
    escape.

    Raises:
        OSError: if it cannot be written; it names the file.
    """
    path = path.resolve()  # through a link, to the file that it names
    try:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as folder:
            new = Path(folder, path.name)
            new.write_bytes(text.encode("utf-8", "backslashreplace"))
            if path.exists():
                shutil.copymode(path, new)
            new.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
