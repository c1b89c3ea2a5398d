from __future__ import annotations

import os

import hypothesis
import pytest

# A busy machine may need seconds for the first example, which imports what the others use.
hypothesis.settings.register_profile("no deadline", deadline=None, max_examples=50)
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Tests neither use nor fill the cache of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILEPIPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> object:
    """An fsync guards against a power cut, which no test survives; thousands of them took a third of all time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
