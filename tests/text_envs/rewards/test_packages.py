import subprocess
import sys
from pathlib import Path

import pytest

QUIET = """
import logging, sys
from text_envs.rewards import ROUGE, Similarity
heavy = {"asyncio", "sqlite3", "torch", "transformers", "sacrebleu", "rouge_score", "harper", "wordllama"}
print(*heavy & set(sys.modules))
ROUGE(), Similarity()
print(logging.getLogger().handlers, logging.getLogger().level == logging.WARNING)
"""


def test_import_loads_no_package_and_use_sets_up_no_logging():
    for package in ("rouge_score", "wordllama"):
        pytest.importorskip(package)
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, cwd=root)
    assert done.stdout.splitlines() == ["", "[] True"], done.stderr
