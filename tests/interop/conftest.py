"""Libraries that wrote the layouts, where they are installed."""

import pytest


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch")
    found = pytest.importorskip("transformers")
    found.logging.set_verbosity_error()
    return found
