from __future__ import annotations

import os

import hypothesis
import pytest
from helpers.examples import FEW

# A busy machine may need seconds for the first example, which imports what the others use. `make test-long` draws more.
hypothesis.settings.register_profile("few", deadline=None, max_examples=FEW)
hypothesis.settings.register_profile("many", deadline=None, max_examples=5 * FEW)
hypothesis.settings.load_profile("few")


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Tests do not touch the cache of whoever runs them; the processes of one run share theirs, as users' do."""
    own = tmp_path_factory.getbasetemp()
    run = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TILEPIPE_CACHE", str(run / "cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> object:
    """An fsync guards against a power cut, which no test survives; thousands of them took a third of all time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
