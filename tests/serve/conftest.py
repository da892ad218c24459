"""One server of tiny models for all tests of a process."""

from collections.abc import Iterator

import pytest

from flaxgen.serve import settings
from tests import serving


@pytest.fixture(scope="session")
def started() -> Iterator[serving.Served]:
    """A server with a key, 4 slots and a queue of 16."""
    found = serving.start(settings.Settings(port=0, key="the-key-of-the-tests", slots=4, queue=16), serving.tiny())
    yield found
    serving.stop(found)


@pytest.fixture(scope="module")
def served(started: serving.Served) -> serving.Served:
    """The server, warm also where its programs were forgotten since the last module."""
    started.warm()
    return started
