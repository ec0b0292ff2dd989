"""What several floors' tests need."""

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def chromium():
    """Return the path of Chromium; tests without one are skipped, but fail under CI=true."""
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    if not found and os.environ.get("CI") == "true":
        pytest.fail("no Chromium on PATH, which CI must have: apt-get install --no-install-recommends chromium")
    if not found:
        pytest.skip("no Chromium on PATH")
    return found[0]
