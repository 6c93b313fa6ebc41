"""Nothing in these tests reaches a broker, unless it says so."""

import pytest


@pytest.fixture(autouse=True)
def no_broker(rung):
    """Messages are kept, not sent."""
